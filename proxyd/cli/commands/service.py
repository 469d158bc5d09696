"""``claude-proxy service``: run the daemon at login and restart it after a crash, by systemd or launchd."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from proxyd.cli import detached as background
from proxyd.cli import service_managers as manager
from proxyd.cli.commands import lifecycle
from proxyd.cli.commands.init import write_configuration
from proxyd.cli.daemon_client import State, ask, find_target
from proxyd.cli.exit_codes import EXIT_NOT_RUNNING
from proxyd.cli.groups import CommandGroup
from proxyd.cli.options import json_option
from proxyd.config.paths import make_private_folder, resolve_models_path, resolve_state_folder

__all__ = ["service_command"]


@click.group("service", cls=CommandGroup, epilog="Example: claude-proxy service install")
def service_command() -> None:
    """Run at login, by systemd or launchd."""


@service_command.command("install", epilog="Example: claude-proxy service install --socket")
@click.option("--models", metavar="FILE", type=click.Path(), help="The models.yaml to use.")
@click.option("--socket", "use_socket", is_flag=True, help="systemd: no refused connection during a restart.")
@click.option(
    "--harden", is_flag=True, help="systemd: a read-only system for the daemon (needs user namespaces)."
)
def install(models: str | None, use_socket: bool, harden: bool) -> None:
    """Write the service files, start the service, and wait until it is ready."""
    from proxyd.daemon.configuration import load_configuration

    path, _ = resolve_models_path(models, os.environ)
    if not path.exists():
        for line in write_configuration(path):
            click.echo(line)
    load_configuration({}, str(path), os.environ)  # do not install a service that would not start
    target = find_target(None, None, models)
    this = manager.this_manager()
    this.check(socket=use_socket, harden=harden)  # before the running daemon is stopped for it
    peer = ask(target)
    if peer.is_ours and peer.about.get("supervisor") != this.name:
        lifecycle.stop_in_background(peer)
    elif peer.state is State.FOREIGN:
        background.refuse_foreign(target, peer)
    make_private_folder(resolve_state_folder(os.environ))
    named = Path(models).expanduser().resolve() if models is not None else None
    address = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
    for line in this.install(named, socket_address=address if use_socket else None, harden=harden):
        click.echo(line)
    started = lifecycle.wait_until_ready(target, this)
    click.echo(f"claude-proxy {started.about['version']} answers on {target.url}; its log: {this.log_hint}")
    if this.name == "systemd":
        click.echo("To have it run without a login: loginctl enable-linger")


@service_command.command("uninstall", epilog="Example: claude-proxy service uninstall")
def uninstall() -> None:
    """Stop the service and remove its files. models.yaml, hooks and the ledger stay."""
    lines = manager.this_manager().uninstall()
    for line in lines or ["the service was not installed; there was nothing to remove"]:
        click.echo(line)


@service_command.command("status", epilog="Example: claude-proxy service status")
@json_option
def status(as_json: bool) -> None:
    """Show the state of the service. Ends with 3 if the service is not installed or does not run."""
    service = manager.installed()
    target = find_target(None, None, None)
    peer = ask(target)
    runs = service is not None and peer.is_ours and peer.about.get("supervisor") == service.name
    state = "not installed" if service is None else service.state()
    if as_json:
        click.echo(
            json.dumps({"installed": service is not None, "state": state, "runs": runs, "url": target.url})
        )
    else:
        click.echo(f"claude-proxy service: {state}")
        click.echo(f"{target.url}: {'answers' if runs else 'is not served by it'}")
    if not runs:
        sys.exit(EXIT_NOT_RUNNING)
