"""``claude-proxy run``: run the daemon in the foreground; ``-d`` for development."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxyd.cli.options import run_options
from proxyd.errors import ConfigError

if TYPE_CHECKING:
    import socket

    from proxyd.config.models import Config
    from proxyd.daemon.configuration import LoadedConfig
    from proxyd.daemon.systemd import Notifier

__all__ = ["run_command"]

#: Set in the child of ``-d``, which is the daemon.
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
    log_level: str | None,
    log_format: str | None,
    max_retries: int | None,
    workers: int | None,
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
        "log_level": log_level or ("debug" if dev else None),
        "log_format": log_format,
        "max_retries": max_retries,
        "workers": workers,
    }
    if dev and log_format is None:
        flags["log_format"] = os.environ.get("LOG_FORMAT") or "console"
    try:
        code = asyncio.run(_serve(flags, models, supervised))
    except ConfigError as exc:
        if supervised != "launchd":
            raise
        # With any other exit code than 0 launchd would restart it forever (docs/spec/operations.md#g7).
        click.echo(exc.message, err=True)
    else:
        if code:
            sys.exit(code)


async def _serve(flags: dict[str, Any], models: str | None, supervisor: str | None) -> int:
    from proxyd.config.paths import resolve_state_folder
    from proxyd.daemon.configuration import load_configuration
    from proxyd.daemon.systemd import Notifier, inherited_sockets
    from proxyd.daemon.workers.place import WorkerPlace
    from proxyd.logs.rotation import rotate_when_large
    from proxyd.logs.setup import configure, set_worker

    def load() -> Any:
        return load_configuration(flags, models, os.environ)

    place = WorkerPlace.taken_from(os.environ)
    if place is not None:
        set_worker(place.number)
    loaded = load()
    configure(loaded.settings.log_level, loaded.settings.log_format)
    if supervisor in ("detached", "launchd"):
        rotate_when_large()
    notifier, sockets = Notifier(os.environ), tuple(inherited_sockets(os.environ))
    if loaded.settings.workers > 1 and place is None:
        return await _supervise(loaded, supervisor, notifier, sockets)

    from proxyd.daemon.server import Daemon, Service

    service = Service(supervisor, notifier, sockets, place)
    daemon = Daemon(loaded, reload=load, state_folder=resolve_state_folder(os.environ), service=service)
    daemon.handle_signals()
    await daemon.start()
    if place is None:
        _greet(supervisor, daemon.addresses, loaded)
    await daemon.run()
    return 0


async def _supervise(
    loaded: LoadedConfig, supervisor: str | None, notifier: Notifier, sockets: tuple[socket.socket, ...]
) -> int:
    """Run several workers; return the exit code."""
    from proxyd.daemon.workers.supervisor import Supervisor

    loaded.hooks.close()  # they have been checked; it is the workers that run them
    parent = Supervisor(loaded.settings, supervisor, notifier, sockets)
    parent.handle_signals()
    parent.start()
    _greet(supervisor, parent.addresses, loaded)
    return await parent.run()


def _greet(supervisor: str | None, addresses: list[tuple[str, int]], loaded: LoadedConfig) -> None:
    """Say in a terminal how to connect. Not with JSON logs, which a program reads."""
    from proxyd.logs.setup import is_journal

    in_journal = any(is_journal(os.environ, stream) for stream in (sys.stdout, sys.stderr))
    if supervisor is not None or in_journal or loaded.settings.log_format == "json":
        return
    needs_virtual_key = loaded.settings.auth == "keys"
    has_token = loaded.settings.auth_token is not None and not needs_virtual_key
    _print_how_to_connect(
        addresses[0], loaded.config, has_token=has_token, needs_virtual_key=needs_virtual_key
    )


def _print_how_to_connect(
    address: tuple[str, int], config: Config, *, has_token: bool, needs_virtual_key: bool
) -> None:
    """Print how to run Claude Code here: by ``code``, since plain ``claude`` asks Anthropic's models for side calls."""
    from proxyd.cli.claude_code import needs_client_key
    from proxyd.cli.daemon_client import find_target
    from proxyd.cli.package_data import below_folder, own_words
    from proxyd.config.paths import resolve_models_path
    from proxyd.urls import host_of

    host = "localhost" if address[0] == "127.0.0.1" else address[0]
    url = f"http://{host}:{address[1]}"
    route = config.table.routes[0]
    command = [*own_words(), "code", route.model_id]
    is_default_file = resolve_models_path(None, os.environ)[0] == config.path
    target = find_target(None, None, None if is_default_file else str(config.path))
    if target.port != address[1]:
        command += ["--port", str(address[1])]
    if target.host not in (address[0], host):
        command += ["--host", address[0]]
    if not is_default_file:
        command += ["--models", below_folder(config.path)]
    needs_key = needs_virtual_key or (not has_token and needs_client_key(route))
    token = "TOKEN" if has_token else "KEY" if needs_key else "any"
    click.echo(f"claude-proxy listens on {url}. To use it, in another terminal:")
    click.echo(f"  {'ANTHROPIC_AUTH_TOKEN=KEY ' if needs_key else ''}{shlex.join(command)}")
    click.echo(f"Others: ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={token}")
    if has_token:
        click.echo(
            f"  (TOKEN is the auth_token of this daemon; 'claude-proxy env {route.model_id}' prints it.)"
        )
    elif needs_virtual_key:
        click.echo("  (KEY is a key of this proxy; 'claude-proxy keys add NAME' makes one.)")
    elif needs_key:
        click.echo(f"  (KEY is your key for {host_of(route.api_base)}.)")
    if not config.path.exists():
        click.echo(
            f"Only the model 'demo' is there yet. Add one of yours: {shlex.join([*own_words(), 'add'])}"
        )
    click.echo(f"Calls and models: {url}/dashboard  Stop it: Ctrl-C")


def _run_and_watch(models: str | None) -> None:
    """Run the daemon as a child; restart it when a source file or models.yaml changes."""
    from watchfiles import DefaultFilter, run_process

    from proxyd.config.paths import resolve_models_path

    path, _ = resolve_models_path(models, os.environ)
    os.environ[_DEV_CHILD] = "1"
    command = [sys.executable, "-m", "proxyd", *sys.argv[1:]]
    run_process(
        Path(__file__).resolve().parents[2],
        *([path.parent] if path.parent.exists() else []),
        target=" ".join(map(_quoted, command)),
        target_type="command",
        watch_filter=DefaultFilter(),
    )


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)
