"""``claude-proxy run``: the daemon in the foreground, and ``-d``, its development form."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from proxyd.cli.options import run_options
from proxyd.errors import ConfigError

__all__ = ["run_command"]

#: Tells the child of ``-d`` that it is the one that serves.
_DEV_CHILD = "PROXYD_DEV_CHILD"


@click.command("run", epilog="Example: claude-proxy run --port 8090")
@run_options
@click.option(
    "--supervised",
    type=click.Choice(("systemd", "launchd", "detached")),
    help="Set by the service files: who restarts it.",
)
def run_command(
    dev: bool,
    port: int | None,
    host: str | None,
    models: str | None,
    log_bodies: bool,
    insecure: bool,
    supervised: str | None = None,
) -> None:
    """Run the daemon in the foreground."""
    if dev and _DEV_CHILD not in os.environ:
        _run_and_watch(models)
        return
    flags: dict[str, Any] = {
        "port": port,
        "host": host,
        "insecure": insecure or None,
        "log_bodies": log_bodies or None,
    }
    if dev:
        flags["log_level"] = "debug"
        flags["log_format"] = os.environ.get("LOG_FORMAT") or "console"
    try:
        _run(_serve(flags, models, supervised))
    except ConfigError as exc:
        if supervised != "launchd":
            raise
        # launchd would start it again and again, and knows no exit code that says not to
        # (docs/spec/operations.md#g7).
        click.echo(exc.message, err=True)


def _run(daemon: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, with a loop of ours where there is epoll, and a way to say which."""
    if sys.platform == "linux" and sys.version_info >= (3, 11):
        from proxyd.transport.epoll_loop import EventLoop

        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(daemon)
    else:
        asyncio.run(daemon)


async def _serve(flags: dict[str, Any], models: str | None, supervisor: str | None) -> None:
    from proxyd.config.paths import resolve_state_folder
    from proxyd.daemon.load_config import load_configuration
    from proxyd.daemon.server import Daemon, Service
    from proxyd.daemon.systemd import Notifier, inherited_sockets
    from proxyd.logs.rotation import rotate_when_large
    from proxyd.logs.setup import configure, is_journal

    def load() -> Any:
        return load_configuration(flags, models, os.environ)

    loaded = load()
    configure(loaded.settings.log_level, loaded.settings.log_format)
    if supervisor in ("detached", "launchd"):
        rotate_when_large()
    service = Service(supervisor, Notifier(os.environ), tuple(inherited_sockets(os.environ)))
    daemon = Daemon(loaded, reload=load, state_folder=resolve_state_folder(os.environ), service=service)
    await daemon.start()
    in_journal = any(is_journal(os.environ, stream) for stream in (sys.stdout, sys.stderr))
    if supervisor is None and not in_journal:
        _say_how_to_connect(daemon.addresses[0], loaded.config.table.ids())
    await daemon.run()


def _say_how_to_connect(address: tuple[str, int], models: tuple[str, ...]) -> None:
    host = "localhost" if address[0] == "127.0.0.1" else address[0]
    url = f"http://{host}:{address[1]}"
    model = models[0] if models else "MODEL"
    click.echo(f"claude-proxy listens on {url}. To use it, in another terminal:")
    click.echo(f"  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=any claude --model {model}")
    click.echo("Ctrl-C stops it; models are configured in models.yaml.")


def _run_and_watch(models: str | None) -> None:
    """Run the daemon as a child and start it anew whenever a source file or models.yaml changes."""
    try:
        from watchfiles import DefaultFilter, run_process
    except ImportError:
        raise ConfigError(
            "development mode needs the package watchfiles: pip install 'claude-proxy[dev]'"
        ) from None
    from proxyd.config.paths import resolve_models_path

    path, _ = resolve_models_path(models, os.environ)
    os.environ[_DEV_CHILD] = "1"
    command = [sys.executable, "-m", "proxyd", *sys.argv[1:]]
    run_process(
        Path(__file__).resolve().parents[2],
        path.parent,
        target=" ".join(map(_quoted, command)),
        target_type="command",
        watch_filter=DefaultFilter(),
    )


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)
