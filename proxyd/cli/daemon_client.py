"""The daemon as the command line sees it: where it listens, whether it is one of ours, and what it says of itself.

The daemon is asked, over its port; no file says that it runs (docs/spec/operations.md#a9), so none can be stale. What
answers there and is no claude-proxy is told apart by what it says, and never signalled.
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

__all__ = ["ANSWER_S", "Peer", "State", "Target", "ask", "find_target"]

#: Long enough for a daemon in the middle of something else; its loop is never blocked for 50 ms
#: (docs/spec/operations.md#a8).
ANSWER_S = 3.0
_MAX_ANSWER_BYTES = 1 << 20
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")
#: A port or host that may be set in models.yaml; only then is the file read as YAML, which takes its time.
_SETS_ADDRESS = re.compile(r"^[^#\n]*\b(?:port|host)\s*:", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """Where the daemon is, or would be. `host` is one that can be connected to."""

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
    """What is at a target's port.

    Attributes:
        about: what a claude-proxy says of itself (``/readyz?verbose``); empty for anything else.
        why: for a foreign one, what was seen.
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
    """Which daemon is meant, as it would itself decide: flag, environment, models.yaml, default."""
    from proxyd.config.envfile import with_env_file
    from proxyd.config.paths import resolve_models_path

    environ = os.environ if environ is None else environ
    path, _ = resolve_models_path(models, environ)
    try:
        environ = with_env_file(path.parent, environ)
    except (ConfigError, OSError):
        pass  # its own commands complain; one that only asks for the daemon need not fail for it
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
    """What models.yaml sets, or the defaults; a file that is no YAML sets nothing."""
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


def ask(target: Target, timeout_s: float = ANSWER_S) -> Peer:
    """What is there now."""
    try:
        status, body = _get(target, "/readyz?verbose=1", timeout_s)
        if status == 401 and (token := _token_for(target)) is not None:
            status, body = _get(target, "/readyz?verbose=1", timeout_s, token)
    except ConnectionRefusedError:
        return Peer(State.STOPPED, {})
    except TimeoutError:
        return Peer(State.FOREIGN, {}, f"it did not answer within {timeout_s:g} s")
    except ConnectionError as exc:
        return Peer(State.FOREIGN, {}, (exc.strerror or type(exc).__name__).lower())
    except OSError:
        return Peer(State.STOPPED, {})  # no such host or network: nobody that could be talked to
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
        return Peer(State.FOREIGN, {}, f"it answered {status} and is no claude-proxy")
    return Peer(State.DRAINING if about.get("status") == "draining" else State.RUNNING, about)


def _token_for(target: Target) -> Secret | None:
    """The access token of the daemon that `target`'s models.yaml configures; None where there is none to be found."""
    from proxyd.daemon.configuration import load_settings

    try:
        return load_settings({}, target.models, os.environ)[1].auth_token
    except ConfigError:
        from proxyd.config.envfile import with_env_file
        from proxyd.config.settings import Settings

        try:  # a models.yaml with faults is no reason not to look
            return Settings.load({}, with_env_file(target.models.parent, os.environ)).auth_token
        except (ConfigError, OSError):
            return None


def _get(
    target: Target, path: str, timeout_s: float, token: Secret | None = None
) -> tuple[int | None, bytes]:
    """Status and body; no status where the answer is no HTTP.

    In HTTP/1.0 a body ends with its connection, so that this is all of it; the library's client takes longer to
    import than `status` may take in all.
    """
    host = f"[{target.host}]" if ":" in target.host else target.host
    shown = "" if token is None else f"x-claude-proxy-token: {token.reveal()}\r\n"
    request = f"GET {path} HTTP/1.0\r\nHost: {host}:{target.port}\r\nAccept: application/json\r\n{shown}\r\n"
    answer = bytearray()
    deadline = time.monotonic() + timeout_s
    # As text it would be encoded by a codec that takes its time to import, too.
    name: Any = target.host.encode() if target.host.isascii() else target.host
    with socket.create_connection((name, target.port), timeout=timeout_s) as sock:
        sock.sendall(request.encode("ascii", "replace"))
        while len(answer) < _MAX_ANSWER_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            piece = sock.recv(65_536)
            if not piece:
                break
            answer += piece
    match = _STATUS_LINE.match(answer)
    return (int(match[1]) if match else None), bytes(answer.partition(b"\r\n\r\n")[2])
