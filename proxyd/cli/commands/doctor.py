"""``claude-proxy doctor``: diagnose everything between Claude Code and the upstreams, one line per finding.

Each check is a generator of findings; a failed finding has a remedy and an exit code. The command ends with the code of
the first failure.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

import proxyd
from proxyd.api.probe import STREAM, TOOL_CALL, Question, probe
from proxyd.cli.address_probe import Endpoint, connection_to, endpoint_of, fault_at, find_neighbour
from proxyd.cli.claude_code import diverting_variables, needs_client_key, telemetry_variables
from proxyd.cli.daemon_client import Peer, State, Target, ask, find_target
from proxyd.cli.exit_codes import (
    EXIT_ADDRESS_IN_USE,
    EXIT_BUG,
    EXIT_CONFIG,
    EXIT_NO_COMMAND,
    EXIT_NOT_RUNNING,
    EXIT_PERMISSIONS,
    EXIT_UPSTREAM,
)
from proxyd.cli.options import address_options, json_option
from proxyd.cli.wrapping import wrapped
from proxyd.config.envfile import fault_of_env_file
from proxyd.errors import ConfigError
from proxyd.urls import is_loopback_url, origin_of

if TYPE_CHECKING:
    from proxyd.config.routes import ModelRoute
    from proxyd.daemon.configuration import LoadedConfig

__all__ = ["Finding", "doctor_command"]

_CONNECT_S = 5.0
#: Beyond this, signed requests and certificates may fail.
_MAX_SKEW_S = 120.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_NOT_PROXIED = "localhost,127.0.0.1,::1"


@dataclass(frozen=True)
class Finding:
    """A result of a check.

    Attributes:
        result: ``ok``, ``warn`` (works, but may not be intended) or ``fail``.
        code: the exit code of a failure.
    """

    name: str
    result: str
    text: str
    remedy: str = ""
    code: int = EXIT_BUG


@click.command("doctor", epilog="Example: claude-proxy doctor --probe")
@address_options
@click.option(
    "--probe", is_flag=True, help="Call every model once: a tiny stream, and a tool call. It may cost."
)
@json_option
def doctor_command(
    port: int | None, host: str | None, models: str | None, probe: bool, as_json: bool
) -> None:
    """Check everything between Claude Code and the upstreams."""
    findings = []
    for finding in _findings(port, host, models, probe=probe):
        findings.append(finding)
        if not as_json:
            _show(finding)
    failed = [finding for finding in findings if finding.result == "fail"]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        doubts = sum(finding.result == "warn" for finding in findings)
        if failed:
            click.echo(f"{len(failed)} of {len(findings)} checks failed.")
        else:
            click.echo(f"Nothing failed; see the {doubts} warnings above." if doubts else "All is well.")
    if failed:
        sys.exit(failed[0].code)


def _show(finding: Finding) -> None:
    colors = {"ok": "green", "warn": "yellow", "fail": "red"}
    use_color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    mark = f"{finding.result:5}"
    text = wrapped(f"{mark}{finding.name}: {finding.text}", sys.stdout, indent=" " * 5)
    click.echo(
        f"{click.style(mark, fg=colors[finding.result])}{text.removeprefix(mark)}" if use_color else text
    )
    if finding.remedy:
        click.echo(wrapped(f"     → {finding.remedy}", sys.stdout, indent=" " * 7))


def _findings(port: int | None, host: str | None, models: str | None, *, probe: bool) -> Iterator[Finding]:
    from proxyd.daemon.configuration import load_configuration

    loaded: LoadedConfig | None = None
    target = find_target(port, host, models)
    try:
        loaded = load_configuration({}, models, os.environ)
    except ConfigError as exc:
        first, *more = exc.message.splitlines()
        rest = f" (and {len(more)} more; see 'claude-proxy check')" if more else ""
        remedy = "correct it, or write an example with 'claude-proxy init'"
        yield Finding("configuration", "fail", first + rest, remedy, EXIT_CONFIG)
    if loaded is not None:
        count = len(loaded.config.table.routes)
        models = "1 model" if count == 1 else f"{count} models"
        yield Finding("configuration", "ok", f"{loaded.config.path}, {models}")
        yield from _permissions(loaded)
        yield from _hooks(loaded)
        yield from _keys(loaded)
        yield from _auto_mode(loaded)
    peer = ask(target)
    yield from _daemon(target, peer)
    if loaded is not None:
        if peer.is_ours:
            yield from _configuration_in_use(loaded, peer)
        yield from _upstreams(loaded)
        if probe and peer.is_ours:
            yield from _probes(target, peer, loaded)
    yield from _claude()
    yield from _conflicts("environment", target, os.environ)
    yield from _claude_settings(target, loaded)


def _permissions(loaded: LoadedConfig) -> Iterator[Finding]:
    open_file = fault_of_env_file(loaded.config.path.parent)
    for line in loaded.config.warnings:
        if line != open_file:
            yield Finding("configuration", "warn", line)
    if open_file is not None:
        what, _, remedy = open_file.partition("; run ")
        yield Finding("env file", "fail", what, remedy.strip("'"), EXIT_PERMISSIONS)


def _hooks(loaded: LoadedConfig) -> Iterator[Finding]:
    hooks = loaded.hooks
    for name, why in hooks.faults.items():
        yield Finding(
            "hooks",
            "fail",
            f"{name} does not load: {why}",
            "correct the file, or put a _ in front of its name",
        )
    if hooks.files:
        yield Finding("hooks", "ok", ", ".join(file.name for file in hooks.files))


def _keys(loaded: LoadedConfig) -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}  # what is said of a key -> the models
    for route in loaded.config.table.routes:
        if route.missing_key:
            missing.setdefault(route.missing_key.partition(" has no key: ")[2], []).append(route.model_id)
        elif needs_client_key(route):
            yield Finding(
                f"key of {route.model_id}", "ok", "comes with each request, from ANTHROPIC_AUTH_TOKEN"
            )
        elif route.key_origin is not None:
            yield Finding(f"key of {route.model_id}", "ok", f"from {route.key_origin}")
    for text, ids in missing.items():
        what, _, remedy = text.partition("; ")
        yield Finding(f"key of {', '.join(ids)}", "warn", what, remedy)


def _auto_mode(loaded: LoadedConfig) -> Iterator[Finding]:
    """Say for which models Claude Code's auto mode works, and what to set for the others."""
    from proxyd.cli.claude_code import auto_mode_of

    judges: dict[str, list[str]] = {}  # what checks -> the models
    for route in loaded.config.table.routes:
        judges.setdefault(auto_mode_of(route, loaded.settings), []).append(route.model_id)
    without = judges.pop("", [])
    for judge, ids in judges.items():
        yield Finding(f"auto mode of {', '.join(ids)}", "ok", f"checked by {judge}")
    if without:
        remedy = (
            "for auto mode, set auto_mode: {classifier: MODEL_ID} in the entry, or under settings for all translated "
            "ones"
        )
        yield Finding(
            f"auto mode of {', '.join(without)}", "ok", "not set up; the other permission modes work", remedy
        )


def _daemon(target: Target, peer: Peer) -> Iterator[Finding]:
    if peer.state is State.FOREIGN:
        remedy = "stop that program, or choose another port with --port"
        yield Finding(
            "port", "fail", f"{target.url} is another program's: {peer.why}", remedy, EXIT_ADDRESS_IN_USE
        )
    elif not peer.is_ours:
        yield Finding(
            "daemon", "fail", f"nothing listens on {target.url}", "claude-proxy start", EXIT_NOT_RUNNING
        )
    else:
        yield Finding("daemon", "ok", f"{peer.state.value} on {target.url}, process {peer.pid}")
        version = peer.about["version"]
        if version == proxyd.__version__:
            yield Finding("version", "ok", str(version))
        else:
            text = f"the daemon is {version}, this program {proxyd.__version__}"
            yield Finding("version", "warn", text, "claude-proxy restart")


def _configuration_in_use(loaded: LoadedConfig, peer: Peer) -> Iterator[Finding]:
    used = Path(peer.about["config"])
    if used.is_absolute() and os.path.realpath(used) != os.path.realpath(loaded.config.path):
        yield Finding(
            "configuration in use",
            "warn",
            f"the daemon uses {used}, and this command has checked {loaded.config.path}",
            f"claude-proxy doctor --models {used}, or claude-proxy restart --models {loaded.config.path}",
        )


def _upstreams(loaded: LoadedConfig) -> Iterator[Finding]:
    """Check each origin once: the connection, its certificate, and by its ``Date`` header our clock."""
    by_origin: dict[str, list[str]] = {}
    for route in loaded.config.table.routes:
        if not route.is_demo:
            parts = urlsplit(route.api_base)
            by_origin.setdefault(f"{parts.scheme}://{parts.netloc}", []).append(route.model_id)
    skews = []
    for origin, ids in by_origin.items():
        name = f"upstream {urlsplit(origin).netloc}"
        try:
            date = _head(origin, loaded.settings.ca_file)
        except (OSError, http.client.HTTPException) as exc:
            text = f"cannot be reached: {_reason(exc)} (models {', '.join(ids)})"
            yield Finding(name, "fail", text, _remedy(exc, origin), EXIT_UPSTREAM)
            continue
        yield Finding(name, "ok", f"reached (models {', '.join(ids)})")
        yield from _addresses(loaded, origin)
        if date is not None:
            skews.append(time.time() - date)
    if skews:
        # An upstream's clock may be wrong as well, so the smallest difference counts.
        skew = min(skews, key=abs)
        if abs(skew) > _MAX_SKEW_S:
            text = f"it differs by {skew:.0f} s from that of the upstreams"
            yield Finding("clock", "fail", text, "switch on time synchronisation", EXIT_UPSTREAM)
        else:
            yield Finding("clock", "ok", f"within {_MAX_SKEW_S:.0f} s of the upstreams")


def _addresses(loaded: LoadedConfig, origin: str) -> Iterator[Finding]:
    """Check that something is at the entries' paths; if not, try their neighbours."""
    by_endpoint: dict[Endpoint, list[str]] = {}
    for route in loaded.config.table.routes:
        if not route.is_demo and origin_of(route.api_base) == origin.lower():
            by_endpoint.setdefault(endpoint_of(route), []).append(route.model_id)
    for endpoint, ids in by_endpoint.items():
        name = f"address of {', '.join(ids)}"
        try:
            fault = fault_at(endpoint, loaded.settings.ca_file)
        except (OSError, http.client.HTTPException) as exc:
            yield Finding(name, "warn", f"POST {endpoint.url}: {_reason(exc)}")
            continue
        if fault is None:
            continue
        other = find_neighbour(endpoint, loaded.settings.ca_file)
        if other is None:
            text, remedy = (
                f"POST {endpoint.url} is {fault}",
                "look the address up in the vendor's documentation",
            )
        else:
            text = f"POST {endpoint.url} is {fault}; {other.url} responds"
            remedy = f"write {other.as_lines()}"
        yield Finding(name, "fail", text, remedy, EXIT_UPSTREAM)


def _head(origin: str, ca_file: str) -> float | None:
    """Request the head of an origin's root; return its date as Unix time. Any status will do."""
    connection = connection_to(urlsplit(origin), ca_file, _CONNECT_S)
    try:
        connection.request("HEAD", "/", headers={"user-agent": "claude-proxy"})
        date = connection.getresponse().getheader("date")
    finally:
        connection.close()
    if date is None:
        return None
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _remedy(exc: Exception, origin: str) -> str:
    """Return what to do about an origin that cannot be reached."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "set ca_file to the certificate of your own authority, or correct api_base"
    if isinstance(exc, ConnectionRefusedError) and is_loopback_url(origin):
        return "start that server, or correct api_base; it matters only if you use these models"
    return "correct api_base, or check the network"


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({exc.verify_message})"
    if isinstance(exc, socket.gaierror):
        return "its name is not known"
    if isinstance(exc, TimeoutError):
        return f"no response within {_CONNECT_S:g} s"
    if isinstance(exc, OSError):
        return (exc.strerror or type(exc).__name__).lower()
    return "it does not speak HTTP"


def _probes(target: Target, peer: Peer, loaded: LoadedConfig) -> Iterator[Finding]:
    """Request a stream and a tool call through the daemon, as Claude Code would."""
    token = loaded.settings.auth_token
    key = token.reveal() if token is not None else os.environ.get("ANTHROPIC_AUTH_TOKEN", "")
    for route in loaded.config.table.routes:
        if route.model_id not in peer.about["models"] or route.missing_key:
            continue
        own_key = os.environ.get("ANTHROPIC_API_KEY", "") or key
        if (needs_client_key(route) or loaded.settings.auth == "keys") and not own_key:
            yield Finding(f"probe of {route.model_id}", "warn", "skipped: no key", "set ANTHROPIC_AUTH_TOKEN")
            continue
        for what, question in (("stream", STREAM), ("tool call", TOOL_CALL)):
            yield _probe(target, route, what, question, own_key or "any")


def _probe(target: Target, route: ModelRoute, what: str, question: Question, key: str) -> Finding:
    name = f"{what} of {route.model_id}"
    headers = {"authorization": f"Bearer {key}"}
    result = probe(target.host, target.port, route.model_id, question, headers)
    if not result.is_ok:
        failed = result.error if result.status in (None, 200) else f"{result.status}: {result.error}"
        return Finding(name, "fail", str(failed), "see 'claude-proxy logs'", EXIT_UPSTREAM)
    if question.tools and "report" not in result.tools:
        text = "the model did not call the tool; Claude Code needs one that calls tools"
        return Finding(name, "warn", text)
    return Finding(name, "ok", f"{result.duration_s:.1f} s")


def _claude() -> Iterator[Finding]:
    program = shutil.which("claude")
    if program is None:
        remedy = "npm install -g @anthropic-ai/claude-code"
        yield Finding("claude", "warn", "not found on PATH; SDKs and other clients need none", remedy)
        return
    try:
        result = subprocess.run(
            (program, "--version"), capture_output=True, text=True, timeout=20, check=False
        )
        text = result.stdout.strip().split("\n")[0]
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    if text:
        yield Finding("claude", "ok", f"{text}, {program}")
    else:
        yield Finding(
            "claude", "fail", f"{program} does not say its version", "install it again", EXIT_NO_COMMAND
        )


def _proxies(where: str, target: Target, values: Mapping[str, str]) -> Iterator[Finding]:
    """Find HTTP proxies to which Claude Code would send its calls, prompts and key included."""
    set_names = [name for name in _PROXIES if values.get(name) or values.get(name.lower())]
    excluded = f"{values.get('NO_PROXY', '')},{values.get('no_proxy', '')}".replace(" ", ",").split(",")
    host = "localhost" if target.host == "127.0.0.1" else target.host
    if set_names and host not in excluded and "*" not in excluded:
        text = f"{' and '.join(set_names)} is set: Claude Code sends its calls for {target.url} there"
        yield Finding(where, "fail", text, f"set NO_PROXY={_NOT_PROXIED}", EXIT_CONFIG)


def _claude_settings(target: Target, loaded: LoadedConfig | None) -> Iterator[Finding]:
    folder = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude")
    path = Path(folder) / "settings.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as exc:
        yield Finding(
            str(path), "warn", f"cannot be read: {type(exc).__name__}", "Claude Code ignores it, or stops"
        )
        return
    settings = settings if isinstance(settings, dict) else {}
    env = settings.get("env")
    if isinstance(env, dict):
        yield from _conflicts(str(path), target, {str(key): str(value) for key, value in env.items()})
    model = settings.get("model")
    if loaded is not None and isinstance(model, str) and _is_only_ours(model, loaded):
        text = f"its model is {model[:100]!r}, which only the proxy has: 'claude' without the proxy fails with it"
        remedy = "remove the line, and in /model use s, which keeps a choice to its session"
        yield Finding(str(path), "fail", text, remedy, EXIT_CONFIG)


def _is_only_ours(model: str, loaded: LoadedConfig) -> bool:
    """Return whether models.yaml has `model` and Anthropic does not."""
    prefix = loaded.settings.discovery_prefix
    is_ours = "claude" not in model or (bool(prefix) and model.startswith(prefix))
    return is_ours and loaded.config.table.resolve(model) is not None


def _conflicts(where: str, target: Target, values: Mapping[str, str]) -> Iterator[Finding]:
    """Find variables that lead Claude Code elsewhere."""
    is_clean = True
    for name in diverting_variables(values):
        is_clean = False
        yield Finding(where, "fail", f"{name} leads Claude Code past the proxy", f"unset {name}", EXIT_CONFIG)
    for name in telemetry_variables(values):
        is_clean = False
        text = f"{name} makes Claude Code report what it does to the collector of OTEL_EXPORTER_OTLP_ENDPOINT"
        remedy = f"unset {name}; 'claude-proxy code' does not pass it on from the environment"
        yield Finding(where, "warn", text, remedy)
    for finding in _proxies(where, target, values):
        is_clean = False
        yield finding
    base = values.get("ANTHROPIC_BASE_URL")
    if base:
        parts = urlsplit(base)
        if parts.path.rstrip("/").endswith("/v1"):
            is_clean = False
            text = (
                "ANTHROPIC_BASE_URL ends in /v1, and Claude Code adds that itself: it calls /v1/v1/messages"
            )
            yield Finding(where, "fail", text, f"set ANTHROPIC_BASE_URL={target.url}", EXIT_CONFIG)
        try:
            port = parts.port
        except ValueError:
            port = None
        if port != target.port or parts.hostname not in ("localhost", "127.0.0.1", "::1", target.host):
            is_clean = False
            text = f"ANTHROPIC_BASE_URL is {parts.scheme}://{parts.hostname}:{port}, not {target.url}"
            yield Finding(where, "warn", text, "claude-proxy env MODEL prints what it should be")
    if values.get("ANTHROPIC_AUTH_TOKEN") and values.get("ANTHROPIC_API_KEY"):
        is_clean = False
        text = "ANTHROPIC_AUTH_TOKEN and ANTHROPIC_API_KEY are both set, and Claude Code sends both"
        yield Finding(where, "warn", text, "unset one of them")
    if is_clean:
        yield Finding(where, "ok", "nothing leads Claude Code elsewhere")
