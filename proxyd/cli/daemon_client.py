"""Client of a running daemon: finds its address, and asks it for its state.

There is no PID file that could be stale (docs/spec/operations.md#a9): the daemon's port is queried. A program that
listens there and does not identify itself as claude-proxy is never signalled.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from proxyd import jsonio
from proxyd.errors import ConfigError
from proxyd.secret import Secret

__all__ = ["RESPONSE_TIMEOUT_S", "Peer", "State", "Target", "ask", "find_target"]

#: Long enough for a busy daemon: its event loop is never blocked for 50 ms (docs/spec/operations.md#a8).
RESPONSE_TIMEOUT_S = 3.0
_MAX_RESPONSE_BYTES = 1 << 20
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")
#: Matches where models.yaml may set port or host; only then is it parsed as YAML, which is slow.
_SETS_ADDRESS = re.compile(r"^[^#\n]*\b(?:port|host)\s*:", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """Address of the daemon, running or not. `host` can be connected to, unlike a wildcard address."""

    host: str
    port: int
    models: Path

    @property
    def url(self) -> str:
        return f"http://{'localhost' if self.host == '127.0.0.1' else self.host}:{self.port}"


class State(Enum):
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Peer:
    """The program at a target's port.

    Attributes:
        about: the body of ``/readyz?verbose`` of a claude-proxy; else empty.
        why: why a program counts as foreign.
    """

    state: State
    about: Mapping[str, Any]
    why: str = ""

    @property
    def is_ours(self) -> bool:
        return self.state in (State.RUNNING, State.DRAINING)

    @property
    def pid(self) -> int:
        return int(self.about["pid"])


def find_target(
    port: int | None, host: str | None, models: str | None, environ: Mapping[str, str] | None = None
) -> Target:
    """Find the address as the daemon does: from flag, environment, models.yaml, or the default."""
    from proxyd.config.envfile import with_env_file
    from proxyd.config.paths import resolve_models_path

    environ = os.environ if environ is None else environ
    path, _ = resolve_models_path(models, environ)
    try:
        environ = with_env_file(path.parent, environ)
    except (ConfigError, OSError):
        pass  # reported by the commands that load the configuration
    found_host, found_port = host or environ.get("HOST", ""), port
    if found_port is None and environ.get("PORT", "").strip().isdigit():
        found_port = int(environ["PORT"])
    if found_port is None or not found_host:
        set_host, set_port = _address_in(path)
        found_host, found_port = found_host or set_host, set_port if found_port is None else found_port
    if found_host in ("0.0.0.0", ""):  # noqa: S104 - compared with, not bound to
        found_host = "127.0.0.1"
    return Target("::1" if found_host == "::" else found_host, found_port, path)


def _address_in(path: Path) -> tuple[str, int]:
    """Return host and port from models.yaml, or the defaults, also where the file is not valid YAML."""
    default = ("127.0.0.1", 8082)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return default
    if not _SETS_ADDRESS.search(text):
        return default
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        tree = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return default
    settings = tree.get("settings") if isinstance(tree, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    host, port = settings.get("host"), settings.get("port")
    return (
        host if isinstance(host, str) else default[0],
        port if isinstance(port, int) else default[1],
    )


def ask(target: Target, timeout_s: float = RESPONSE_TIMEOUT_S) -> Peer:
    """Query the program at `target`."""
    try:
        status, body = _get(target, "/readyz?verbose=1", timeout_s)
        if status == 401 and (token := _token_for(target)) is not None:
            status, body = _get(target, "/readyz?verbose=1", timeout_s, token)
    except ConnectionRefusedError:
        return Peer(State.STOPPED, {})
    except TimeoutError:
        return Peer(State.FOREIGN, {}, f"it did not respond within {timeout_s:g} s")
    except ConnectionError as exc:
        return Peer(State.FOREIGN, {}, (exc.strerror or type(exc).__name__).lower())
    except OSError:
        return Peer(State.STOPPED, {})  # no such host or network
    if status is None:
        return Peer(State.FOREIGN, {}, "it does not speak HTTP")
    if status == 401 and b"x-claude-proxy-token" in body:
        why = "a claude-proxy that asks for its access token; set CLAUDE_PROXY_AUTH_TOKEN to it"
        return Peer(State.FOREIGN, {}, why)
    try:
        about = jsonio.loads(body)
    except jsonio.JSONError:
        about = None
    if (
        not isinstance(about, dict)
        or about.get("name") != "claude-proxy"
        or not isinstance(about.get("pid"), int)
    ):
        return Peer(State.FOREIGN, {}, f"its response, status {status}, is not that of claude-proxy")
    return Peer(State.DRAINING if about.get("status") == "draining" else State.RUNNING, about)


def _token_for(target: Target) -> Secret | None:
    """Return the access token that `target`'s models.yaml configures, or None."""
    from proxyd.daemon.configuration import load_settings

    try:
        return load_settings({}, target.models, os.environ)[1].auth_token
    except ConfigError:
        from proxyd.config.envfile import with_env_file
        from proxyd.config.settings_loader import decide_settings

        try:  # the token may come from the environment, whatever is wrong with models.yaml
            return decide_settings({}, with_env_file(target.models.parent, os.environ)).auth_token
        except (ConfigError, OSError):
            return None


def _get(
    target: Target, path: str, timeout_s: float, token: Secret | None = None
) -> tuple[int | None, bytes]:
    """Send a GET request; return status and body, or no status if the response is not HTTP.

    Written with a bare socket because importing `http.client` takes longer than ``status`` may take. In HTTP/1.0 the
    end of the connection ends the body.
    """
    host = f"[{target.host}]" if ":" in target.host else target.host
    token_line = "" if token is None else f"x-claude-proxy-token: {token.reveal()}\r\n"
    request = (
        f"GET {path} HTTP/1.0\r\nHost: {host}:{target.port}\r\nAccept: application/json\r\n{token_line}\r\n"
    )
    response = bytearray()
    deadline = time.monotonic() + timeout_s
    # A str would be encoded by the idna codec, which is slow to import.
    name: Any = target.host.encode() if target.host.isascii() else target.host
    with socket.create_connection((name, target.port), timeout=timeout_s) as sock:
        sock.sendall(request.encode("ascii", "replace"))
        while len(response) < _MAX_RESPONSE_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            chunk = sock.recv(65_536)
            if not chunk:
                break
            response += chunk
    match = _STATUS_LINE.match(response)
    return (int(match[1]) if match else None), bytes(response.partition(b"\r\n\r\n")[2])
