"""``claude-proxy logs``: show the log of the background daemon, from the journal or a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from proxyd.cli import detached as background
from proxyd.cli.exit_codes import EXIT_NOT_RUNNING, CommandFailed

__all__ = ["logs_command"]

_POLL_S = 0.2


@click.command("logs", epilog="Example: claude-proxy logs -f")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option("-n", "--lines", type=click.IntRange(0), default=50, metavar="N", help="How many lines (50).")
def logs_command(follow: bool, lines: int) -> None:
    """Show the log of the background daemon."""
    from proxyd.cli import service_managers as manager

    service = manager.installed()
    command = service.log_command(lines, follow) if service is not None else None
    if command is not None:
        try:
            os.execvp(command[0], command)  # noqa: S606 - journalctl, with our own arguments
        except FileNotFoundError:
            raise CommandFailed(f"{command[0]} was not found, and the service logs to the journal") from None
    path = service.log_file if service is not None and service.log_file is not None else background.log_path()
    if not path.exists():
        raise CommandFailed(
            f"there is no log at {path}: nothing was started in the background yet", EXIT_NOT_RUNNING
        )
    _show(path, lines, follow)


def _show(path: Path, lines: int, follow: bool) -> None:
    for line in background.tail(path, lines) if lines else ():
        click.echo(line)
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        while follow:
            data = file.read()
            if data:
                click.echo(data, nl=False)
            elif _was_replaced(path, file.fileno()):
                return _show(path, lines, follow)  # renamed at a start
            else:
                time.sleep(_POLL_S)
    return None


def _was_replaced(path: Path, fd: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
