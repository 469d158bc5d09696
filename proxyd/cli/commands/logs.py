"""``claude-proxy logs``: show the log of the background daemon, from the journal or a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from proxyd.cli import detached as background
from proxyd.cli.exit_codes import EXIT_NOT_RUNNING, CommandFailed
from proxyd.terminal import printable

__all__ = ["logs_command"]

_POLL_S = 0.2
#: A line is hardly ever longer.
_LINE_BYTES = 4096


@click.command("logs", epilog="Example: claude-proxy logs -f")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option("-n", "--lines", type=click.IntRange(0), default=50, metavar="N", help="How many lines (50).")
@click.option("--raw", is_flag=True, help="All fields, as they were written; the default where it is piped.")
def logs_command(follow: bool, lines: int, raw: bool) -> None:
    """Show the log of the background daemon, on a terminal one short line for each call."""
    from proxyd.cli import service_managers as manager

    is_short = not raw and sys.stdout.isatty()
    service = manager.installed()
    command = service.log_command(lines, follow) if service is not None else None
    if command is not None:
        if is_short:
            _show_journal(command)
        else:
            try:
                os.execvp(command[0], command)  # noqa: S606 - journalctl, with our own arguments
            except FileNotFoundError:
                raise _missing(command) from None
        return
    path = service.log_file if service is not None and service.log_file is not None else background.log_path()
    if not path.exists():
        raise CommandFailed(
            f"there is no log at {path}: nothing was started in the background yet", EXIT_NOT_RUNNING
        )
    render = _renderer() if is_short else None
    for line in _lines_of(path, lines, follow):
        text = line if render is None else render(line, None)
        if text is not None:
            click.echo(text)


def _missing(command: list[str]) -> CommandFailed:
    return CommandFailed(f"{command[0]} was not found, and the service logs to the journal")


def _lines_of(path: Path, lines: int, follow: bool) -> Iterator[str]:
    """The last lines of a log file, and with `follow` those to come, also when it is rotated."""
    file = path.open("rb")
    try:
        start = max(0, os.fstat(file.fileno()).st_size - lines * _LINE_BYTES)
        file.seek(start)
        *complete, rest = file.read().split(b"\n")
        if start and complete:
            del complete[0]  # only the end of a line
        if not follow and rest:
            complete.append(rest)
        yield from (line.decode("utf-8", "replace") for line in complete[max(0, len(complete) - lines) :])
        while follow:
            is_rotated = _was_replaced(
                path, file.fileno()
            )  # before the last read: nothing follows a rotation
            *complete, rest = (rest + file.read()).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in complete)
            if is_rotated:
                file.close()
                file, rest = path.open("rb"), b""
            elif not complete:
                time.sleep(_POLL_S)
    finally:
        file.close()


def _was_replaced(path: Path, fd: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def _show_journal(command: list[str]) -> None:
    """Show the journal's entries as short lines, with the journal's times."""
    render = _renderer()
    try:
        process = subprocess.Popen([*command, "--output=json"], stdout=subprocess.PIPE)
    except FileNotFoundError:
        raise _missing(command) from None
    try:
        for entry in process.stdout or ():
            message, at = _journal_entry(entry)
            text = render(message, at)
            if text is not None:
                click.echo(text)
        if process.wait():
            raise CommandFailed(f"{command[0]} failed; its message is above")
    finally:
        process.terminate()
        process.wait()


def _journal_entry(entry: bytes) -> tuple[str, float | None]:
    """The message of an entry in the journal's JSON format, and its Unix time."""
    try:
        fields = json.loads(entry)
        message, at = fields["MESSAGE"], int(fields["__REALTIME_TIMESTAMP"]) / 1e6
    except (ValueError, KeyError, TypeError):
        return entry.decode("utf-8", "replace").rstrip("\n"), None
    if isinstance(message, list):  # not UTF-8, or with control characters
        message = bytes(byte for byte in message if isinstance(byte, int) and 0 <= byte < 256).decode(
            "utf-8", "replace"
        )
    return str(message), at


def _renderer() -> Callable[[str, float | None], str | None]:
    """A function that renders a JSON line, given its Unix time if it has none itself; None to leave it out."""
    from structlog import DropEvent

    from proxyd.logs.console import ConsoleRenderer, clock_time, columns_of

    console = ConsoleRenderer(lambda: columns_of(sys.stdout), colors=not os.environ.get("NO_COLOR"))

    def render(line: str, at: float | None) -> str | None:
        try:
            event: Any = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or "event" not in event:
            return printable(line)
        at = _time_of(event.get("timestamp")) if at is None else at
        shown = "" if at is None else clock_time(at)
        try:
            return console(None, str(event.get("level")), {**event, "timestamp": shown})
        except DropEvent:
            return None

    return render


def _time_of(timestamp: Any) -> float | None:
    """The Unix time of an ISO timestamp in UTC."""
    try:
        return datetime.fromisoformat(str(timestamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
