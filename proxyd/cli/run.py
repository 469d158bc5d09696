"""``claude-proxy run``: the daemon in the foreground, and ``-d``, its development form."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from proxyd.errors import ConfigError

__all__ = ["run_command", "run_options"]


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The daemon's options, on the root command and on ``run`` alike."""
    for option in reversed(
        (
            click.option(
                "-d", "--dev", is_flag=True, help="Development: debug logs, restart on a changed file."
            ),
            click.option("-p", "--port", type=int, metavar="N", help="Port to listen on (8082)."),
            click.option("--host", metavar="H", help="Address to listen on (127.0.0.1)."),
            click.option("--models", metavar="FILE", help="The models.yaml to use."),
            click.option("--insecure", is_flag=True, help="Listen beyond loopback without an access token."),
        )
    ):
        command = option(command)
    return command


@click.command("run", epilog="Example: claude-proxy run --port 8090")
@run_options
def run_command(dev: bool, port: int | None, host: str | None, models: str | None, insecure: bool) -> None:
    """Run the daemon in the foreground."""
    if dev and "CLAUDE_PROXY_DEV_CHILD" not in os.environ:
        _run_and_watch(models)
        return
    flags = {"port": port, "host": host, "insecure": insecure or None, "log_level": "debug" if dev else None}
    import asyncio  # small commands import this module too, and start without paying for it

    asyncio.run(_serve(flags, models))


async def _serve(flags: dict[str, Any], models: str | None) -> None:
    from proxyd.cli.configuration import load_configuration
    from proxyd.locations import resolve_state_folder
    from proxyd.logs import configure
    from proxyd.server import Daemon

    def load() -> Any:
        return load_configuration(flags, models, os.environ)

    loaded = load()
    configure(loaded.settings.log_level, loaded.settings.log_format)
    daemon = Daemon(loaded, reload=load, state_folder=resolve_state_folder(os.environ))
    await daemon.start()
    if sys.stderr.isatty() or os.environ.get("CLAUDE_PROXY_HINTS"):
        _say_how_to_connect(daemon.addresses[0], loaded.config.table.ids())
    await daemon.run()


def _say_how_to_connect(address: tuple[str, int], models: tuple[str, ...]) -> None:
    host = "localhost" if address[0] == "127.0.0.1" else address[0]
    model = models[0] if models else "MODEL"
    click.echo(
        f"claude-proxy listens on http://{host}:{address[1]}. To use it, in another terminal:", err=True
    )
    click.echo(
        f"  ANTHROPIC_BASE_URL=http://{host}:{address[1]} ANTHROPIC_AUTH_TOKEN=any claude --model {model}",
        err=True,
    )
    click.echo("Ctrl-C stops it; models are configured in models.yaml.", err=True)


def _run_and_watch(models: str | None) -> None:
    """Run the daemon as a child and start it anew whenever a source file or models.yaml changes."""
    try:
        from watchfiles import DefaultFilter, run_process
    except ImportError:
        raise ConfigError(
            "development mode needs the package watchfiles: pip install 'claude-proxy[dev]'"
        ) from None
    from proxyd.locations import resolve_models_path

    path, _ = resolve_models_path(models, os.environ)
    os.environ["CLAUDE_PROXY_DEV_CHILD"] = "1"
    command = [sys.executable, "-m", "proxyd", *sys.argv[1:]]
    run_process(
        Path(__file__).resolve().parents[1],
        path.parent,
        target=" ".join(map(_quoted, command)),
        target_type="command",
        watch_filter=DefaultFilter(),
    )


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)
