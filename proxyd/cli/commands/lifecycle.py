"""``start``, ``stop``, ``restart``, ``reload`` and ``status``: the daemon in the background.

If the service is installed (``claude-proxy service install``), the service manager runs the daemon; else it is a
detached process (`proxyd.cli.detached`).
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxyd.cli import detached as background
from proxyd.cli.daemon_client import Peer, State, Target, ask, find_target
from proxyd.cli.exit_codes import EXIT_NOT_RUNNING, EXIT_USAGE, CommandFailed
from proxyd.cli.options import address_options, json_option
from proxyd.cli.wrapping import wrapped

if TYPE_CHECKING:
    from proxyd.cli.service_managers import Manager

__all__ = [
    "ensure_running",
    "reload_command",
    "restart_command",
    "start_command",
    "status_command",
    "stop_command",
    "stop_in_background",
    "wait_until_ready",
]

_POLL_S = 0.05


@click.command("start", epilog="Example: claude-proxy start --port 8090")
@address_options
def start_command(port: int | None, host: str | None, models: str | None) -> None:
    """Start the daemon in the background.

    Returns when it is ready. If the service is installed, the service manager starts it.
    """
    target = _target(port, host, models)
    peer = ask(target)
    if peer.is_ours and peer.state is State.RUNNING:
        click.echo(f"claude-proxy runs already: {_summary(target, peer)}")
        return
    if peer.state is State.DRAINING:
        _wait_for_free_port(target)
    started, where = ensure_running(target, port=port, host=host, models=models)
    if started.about.get("supervisor") == "detached":
        _check_configuration(started)  # it is valid; the warnings would be in the log only
    click.echo(f"claude-proxy {started.about['version']} listens on {target.url} (process {started.pid}).")
    click.echo(f"models: {', '.join(started.about['models'])}")
    click.echo(f"dashboard: {target.url}/dashboard")
    click.echo(f"log: {where}")


def ensure_running(
    target: Target, *, port: int | None = None, host: str | None = None, models: str | None = None
) -> tuple[Peer, str]:
    """Start the daemon unless it runs; return it and the place of its log.

    Raises:
        CommandFailed: it did not start.
    """
    from proxyd.cli import service_managers as manager

    peer = ask(target)
    background.refuse_foreign(target, peer)
    service = manager.installed() if (port, host, models) == (None, None, None) else None
    if service is not None:
        if not peer.is_ours:
            service.start()
            peer = wait_until_ready(target, service)
        return peer, service.log_hint
    if not peer.is_ours:
        peer = background.launch(target, _run_options(port, host, models))
    return peer, str(background.log_path())


@click.command("stop", epilog="Example: claude-proxy stop")
@address_options
def stop_command(port: int | None, host: str | None, models: str | None) -> None:
    """Stop the daemon. Open streams may finish, for up to drain_timeout_s."""
    target = _target(port, host, models)
    peer = ask(target)
    background.refuse_foreign(target, peer)
    if not peer.is_ours:
        raise CommandFailed(f"claude-proxy does not run on {target.url}", EXIT_NOT_RUNNING)
    calls = peer.about.get("calls", 0)
    if calls:
        click.echo(f"waiting for {calls} call{'' if calls == 1 else 's'} in flight to finish …")
    _terminate(peer)
    if not background.wait_for_end(peer.pid, background.STOP_TIMEOUT_S, _report_waiting):
        raise CommandFailed(
            f"process {peer.pid} still runs after {background.STOP_TIMEOUT_S:g} s; end it with 'kill -9 {peer.pid}'"
        )
    click.echo("claude-proxy has stopped.")


def _ask_running(target: Target) -> Peer:
    """Return the daemon that runs on `target`.

    Raises:
        CommandFailed: none does, or another program.
    """
    peer = ask(target)
    background.refuse_foreign(target, peer)
    if not peer.is_ours:
        raise CommandFailed(
            f"claude-proxy does not run on {target.url}; start it with 'claude-proxy start'", EXIT_NOT_RUNNING
        )
    return peer


@click.command("restart", epilog="Example: claude-proxy restart")
@address_options
def restart_command(port: int | None, host: str | None, models: str | None) -> None:
    """Replace the daemon by one with the current program and configuration.

    The old process stops listening at once, finishes its open streams while the new one runs, and ends.
    """
    from proxyd.cli import service_managers as manager

    target = _target(port, host, models)
    peer = _ask_running(target)
    service = manager.installed()
    if service is not None and peer.about.get("supervisor") == service.name:
        service.restart()
        started, where = wait_until_ready(target, service, other_than=peer.pid), service.log_hint
    else:
        _check_configuration(peer)
        background.terminate(peer)
        _wait_for_free_port(target)
        options = _run_options(target.port, host or _host_of(peer), models or str(peer.about["config"]))
        started, where = background.launch(target, options), str(background.log_path())
    click.echo(f"claude-proxy {started.about['version']} listens on {target.url} (process {started.pid}).")
    if background.is_alive(peer.pid):
        click.echo(f"process {peer.pid} finishes its open calls.")
    click.echo(f"log: {where}")


@click.command("reload", epilog="Example: claude-proxy reload")
@address_options
def reload_command(port: int | None, host: str | None, models: str | None) -> None:
    """Have the daemon read models.yaml, the env file and hooks again.

    Open streams continue. An invalid configuration is reported, and the daemon keeps the one it has.
    """
    target = _target(port, host, models)
    peer = _ask_running(target)
    config, supervisor = Path(peer.about["config"]), peer.about.get("supervisor")
    if supervisor in (None, "detached"):
        _check_configuration(peer)  # a service has other variables than this shell
    if supervisor is None:
        if not config.exists():
            raise CommandFailed(
                f"there is no {config} yet; 'claude-proxy add' writes it, and the daemon takes it over"
            )
        config.touch()  # the daemon watches it; in a terminal SIGHUP means that the terminal was closed
    else:
        background.send_reload(peer)
    click.echo(f"The daemon on {target.url} reads {config}, the env file and hooks again.")
    if supervisor not in (None, "detached"):
        click.echo("Its log says whether they are valid: claude-proxy logs")


@click.command("status", epilog="Example: claude-proxy status --json")
@address_options
@json_option
def status_command(port: int | None, host: str | None, models: str | None, as_json: bool) -> None:
    """Say whether the daemon runs, and how it does. Ends with 0 if it does, with 3 if not."""
    target = _target(port, host, models)
    peer = ask(target)
    if as_json:
        import json  # slow to import, and `status` is fast

        click.echo(json.dumps({"state": peer.state.value, "url": target.url, "why": peer.why, **peer.about}))
    elif peer.is_ours:
        _show(target, peer)
    elif peer.state is State.FOREIGN:
        click.echo(f"claude-proxy does not run: on {target.url} is another program ({peer.why}).")
    else:
        click.echo(f"claude-proxy does not run on {target.url}; start it with 'claude-proxy start'.")
    if not peer.is_ours:
        sys.exit(EXIT_NOT_RUNNING)


def _show(target: Target, peer: Peer) -> None:
    about = peer.about
    click.echo(f"claude-proxy {about['version']} is {peer.state.value} on {target.url}")
    rows: list[tuple[str, Any]] = [
        ("process", f"{about['pid']}, {_supervision(about.get('supervisor'))}"),
        *(("worker", _worker(each)) for each in about.get("workers", ())),
        ("uptime", _duration(about["uptime_s"])),
        (
            "config",
            f"{about['config']} (hash {about['config_hash']})"
            if about.get("config_hash")
            else about["config"],
        ),
        ("models", ", ".join(about["models"])),
        ("in flight", f"{about['calls']} calls"),
        ("dashboard", f"{target.url}/dashboard"),
    ]
    rows += [
        ("rejected", f"{fault} (the configuration before is in force)")
        for fault in about.get("config_error", {}).get("faults", ())
    ]
    rows += [
        ("differs", f"{name} on the same database runs another models.yaml (hash {other})")
        for name, other in ((about.get("replicas") or {}).get("differing") or {}).items()
    ]
    rows += [_circuit(circuit) for circuit in about["circuits"]]
    for word in ("key", "target"):
        pools = about.get(f"{word}s", {}).items()
        rows += [(word, f"{model}: {_member(each)}") for model, members in pools for each in members]
    rows += [
        ("limit", _limit(holder, limit))
        for holder in about.get("virtual_keys", ())
        for limit in holder["limits"]
        if limit["is_near"]
    ]
    store = about.get("store")
    if store is not None and (store["trouble"] or store["place"] != "sqlite"):
        rows.append(("store", store["trouble"] or store["place"]))
    rows += [("hook", _hook(hook)) for hook in about["hooks"]]
    for name, value in rows:
        click.echo(f"  {name:10} {value}")


def _worker(worker: dict[str, Any]) -> str:
    return (
        f"{worker['number']}: process {worker['pid']}, since {_duration(worker['uptime_s'])}, "
        f"{worker['calls']} calls in flight"
    )


def _circuit(circuit: dict[str, Any]) -> tuple[str, str]:
    """Return how an upstream that has failed lately does, in the words of the page."""
    failures = f"{circuit['failures']} failure{'' if circuit['failures'] == 1 else 's'} in a row"
    cause = f": {circuit['cause']}" if circuit.get("cause") else ""
    origin, left_s = circuit["origin"], math.ceil(circuit.get("open_for_s", 0))
    if circuit["state"] == "closed":
        return "failing", f"{origin}, {failures}{cause}"
    until = f"for another {left_s} s" if left_s else "until the next call, which tries it again"
    return "paused", f"{origin} {until}, after {failures}{cause}"


def _member(member: dict[str, Any]) -> str:
    """Return how a key of a pool, or a target, does."""
    tokens = member["input_tokens"] + member["output_tokens"]
    counts = f"{member['calls']} call{'' if member['calls'] == 1 else 's'}, {tokens} tokens"
    if "until" not in member:
        return f"{member['name']} works, {counts}"
    until = time.strftime("%H:%M:%S", time.localtime(member["until"]))
    return f"{member['name']} is set aside until {until} ({member['why']}), {counts}"


def _limit(holder: dict[str, Any], limit: dict[str, Any]) -> str:
    """Return how much of a limit of a virtual key, or of a team, is used."""
    kind = "team" if holder["is_team"] else "key"
    return (
        f"{kind} {holder['name']} has used {limit['share']:.0%} of {limit['limit']}; it resets at "
        + time.strftime("%Y-%m-%d %H:%M", time.localtime(limit["resets_at"]))
    )


def _hook(hook: dict[str, Any]) -> str:
    if "error" in hook:
        return f"{hook['name']}: not loaded: {hook['error']}"
    off = ", switched off" if hook["is_off"] else ""
    return (
        f"{hook['name']}: {hook['calls']} calls, {hook['failures']} failures, {hook['slow_calls']} slow{off}"
    )


def _supervision(supervisor: str | None) -> str:
    return {None: "in the foreground", "detached": "in the background"}.get(
        supervisor, f"run by {supervisor}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(shown) or "0 s"


def _summary(target: Target, peer: Peer) -> str:
    return f"{target.url}, process {peer.pid}, since {_duration(peer.about['uptime_s'])}"


def _target(port: int | None, host: str | None, models: str | None) -> Target:
    target = find_target(port, host, models)
    if target.port == 0:
        raise CommandFailed(
            "port 0 takes any free port, where the daemon could not be found; name one", EXIT_USAGE
        )
    return target


def _run_options(port: int | None, host: str | None, models: str | None) -> list[str]:
    options = []
    if port is not None:
        options += ["--port", str(port)]
    if host is not None:
        options += ["--host", host]
    if models is not None:
        options += ["--models", str(Path(models).expanduser().resolve())]
    return options


def _host_of(peer: Peer) -> str | None:
    address = peer.about.get("address")
    return str(address[0]) if isinstance(address, list) and address else None


def _check_configuration(peer: Peer) -> None:
    """Check the daemon's configuration and print its warnings.

    Raises:
        ConfigError: it is not valid; no daemon is stopped for one that would not start.
    """
    import os

    from proxyd.daemon.configuration import load_configuration

    loaded = load_configuration({}, str(peer.about["config"]), os.environ)
    loaded.hooks.close()
    for line in (*loaded.config.warnings, *loaded.settings.warnings):
        click.echo(wrapped(f"warning: {line}", sys.stderr, indent="  "), err=True)


def stop_in_background(peer: Peer) -> None:
    """Stop a detached daemon, to make room for one under a service manager."""
    background.terminate(peer)
    background.wait_for_end(peer.pid, background.STOP_TIMEOUT_S)


def _terminate(peer: Peer) -> None:
    from proxyd.cli import service_managers as manager

    service = manager.installed()
    if service is not None and peer.about.get("supervisor") == service.name:
        service.stop()
    else:
        background.terminate(peer)


def _report_waiting(seconds: float) -> None:
    click.echo(f"… still waiting after {seconds:.0f} s", err=True)


def _wait_for_free_port(target: Target) -> None:
    """Wait until the old daemon has stopped listening, which it does at once."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if ask(target, timeout_s=1.0).state is State.STOPPED:
            return
        time.sleep(_POLL_S)
    raise CommandFailed(f"the old daemon still listens on {target.url}; try 'claude-proxy stop' first")


def wait_until_ready(target: Target, service: Manager, other_than: int = 0) -> Peer:
    """Wait until the service manager's daemon is ready; return it.

    Raises:
        CommandFailed: it was not ready in time.
    """
    deadline = time.monotonic() + background.START_TIMEOUT_S
    while time.monotonic() < deadline:
        peer = ask(target, timeout_s=1.0)
        if peer.state is State.RUNNING and peer.pid != other_than:
            return peer
        time.sleep(_POLL_S)
    raise CommandFailed(
        f"the {service.name} service was started and is not ready on {target.url}; see '{service.log_hint}'"
    )
