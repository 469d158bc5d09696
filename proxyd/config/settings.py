"""Settings of the daemon: flag > environment > ``settings:`` of models.yaml > default
(docs/spec/design.md#environment).

Each setting is one field of `Settings`: its name with the unit, its default and where that number comes from,
what it may be, its help text and its variable. Readers, ``claude-proxy check`` and the JSON Schema go through
`TABLE`, which is made from the fields. Defaults of clocks and limits are those of docs/spec/operations.md#b and #c.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from proxyd.config.faults import hint
from proxyd.config.kinds import (
    Kind,
    boolean,
    choice,
    choice_mapping,
    free_text,
    header_patterns,
    json_mapping,
    names,
    number,
    secret_text,
    size_bytes,
    text,
    whole_number,
)
from proxyd.config.secrets import read_credential
from proxyd.errors import ConfigError
from proxyd.headers import never_goes_on
from proxyd.secret import Secret
from proxyd.urls import is_loopback

__all__ = [
    "TABLE",
    "Setting",
    "Settings",
    "faults_in_file",
]

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_DAY_S = 86_400
#: Fewer can be guessed.
_MIN_TOKEN_CHARS = 16

#: Variables that are no settings and yet ours.
_OTHER_VARIABLES = frozenset({"CLAUDE_PROXY_MODELS"})


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        kind: what it may be.
        help: what it does, one sentence.
        source: where the default comes from.
        env: its environment variable.
        flag: its option on the command line, or None.
        is_live: whether a reload puts a change in force; else it waits for a restart (docs/spec/operations.md#a4).
    """

    name: str
    kind: Kind
    default: Any
    help: str
    source: str
    env: str
    flag: str | None
    is_live: bool


def _setting(
    default: Any,
    kind: Kind,
    help_: str,
    *,
    source: str = "docs/spec/design.md#environment",
    env: str | None = None,
    flag: str | None = None,
    is_live: bool = True,
) -> Any:
    """A field that carries its own row of the table."""
    row = {"kind": kind, "help": help_, "source": source, "env": env, "flag": flag, "is_live": is_live}
    if isinstance(default, dict):  # dataclasses refuse a shared one
        return field(default_factory=dict, metadata=row)
    return field(default=default, metadata=row)


def _clock(default: float, help_: str, source: str, *, is_live: bool = True) -> Any:
    kind = number(0.001, _DAY_S, what="a number of seconds")
    return _setting(float(default), kind, help_, source=source, is_live=is_live)


def _is_in_picker(prefix: str) -> bool:
    """Whether Claude Code's model picker shows ids that begin so (docs/spec/claude-code.md#picker)."""
    return "claude" in prefix.lower() or "anthropic" in prefix.lower()


@dataclass(frozen=True)
class Settings:
    """What is in force. Made by `Settings.load`; the bare constructor gives the defaults."""

    # -- where to listen
    host: str = _setting(
        "127.0.0.1",
        text("an address or host name"),
        "Address to listen on; beyond loopback it needs auth_token.",
        env="HOST",
        flag="--host",
        is_live=False,
    )
    port: int = _setting(
        8082,
        whole_number(0, 65535),
        "Port to listen on; 0 takes any free one.",
        env="PORT",
        flag="--port",
        is_live=False,
    )
    auth_token: Secret | None = _setting(  # noqa: RUF009 - it makes a field, as dataclasses.field does
        None,
        secret_text("a token, ${ENV_NAME} or ${file:PATH}"),
        "Token that clients must send, at least 16 characters; required to listen beyond loopback.",
    )
    insecure: bool = _setting(
        False,
        boolean(),
        "Listen beyond loopback without auth_token.",
        source="docs/spec/operations.md#e1",
        flag="--insecure",
        is_live=False,
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        names("a host name"),
        "Further names in the Host and Origin headers of requests that are answered.",
        source="docs/spec/operations.md#e2, #e3",
    )

    # -- logs
    log_level: str = _setting(
        "info",
        choice("debug", "info", "warning", "error"),
        "Least severe lines that are logged.",
        env="LOG_LEVEL",
        flag="--log-level",
    )
    log_format: str = _setting(
        "auto",
        choice("auto", "console", "json", "logfmt"),
        "auto: console on a terminal, else JSON.",
        env="LOG_FORMAT",
        flag="--log-format",
        is_live=False,
    )
    log_bodies: bool = _setting(
        False,
        boolean(),
        "Log prompts and answers at debug; warns at start.",
        source="docs/spec/operations.md#e7",
        flag="--log-bodies",
    )

    # -- clocks towards clients
    keepalive_s: float = _clock(
        75,
        "Seconds a client's connection may idle, or take to send a request's head.",
        "docs/spec/operations.md#b: nginx keepalive_timeout",
        is_live=False,
    )
    body_idle_s: float = _clock(
        30, "Seconds between two pieces of a request body.", "docs/spec/operations.md#b: nginx has 60"
    )
    body_total_s: float = _clock(120, "Seconds for a whole request body.", "docs/spec/operations.md#b")
    write_stall_s: float = _clock(
        60,
        "Seconds a client may take no byte before it is dropped.",
        "docs/spec/operations.md#b: nginx send_timeout",
    )
    ping_s: float = _clock(
        15, "Seconds of silence in a stream after which a ping is sent.", "docs/spec/operations.md#b"
    )
    commit_s: float = _clock(
        10,
        "Seconds without an upstream event after which status 200 is sent nevertheless.",
        "docs/spec/design.md#p2",
    )
    drain_timeout_s: float = _clock(
        30, "Seconds that open streams have to finish at a stop.", "docs/spec/operations.md#a2"
    )

    # -- clocks towards upstreams
    connect_s: float = _clock(
        10,
        "Seconds for a connection to an upstream: name look-up, proxy, CONNECT and TLS together.",
        "docs/spec/operations.md#b: Envoy 5, SDK 5",
    )
    first_byte_s: float = _clock(
        600, "Seconds until an upstream's first byte.", "docs/spec/operations.md#b: the SDK's default timeout"
    )
    idle_s: float = _clock(
        300,
        "Seconds of silence within an upstream's stream.",
        "docs/spec/operations.md#b: Envoy stream idle, Claude Code",
    )
    total_s: float = _setting(
        0.0,
        number(0, _DAY_S, what="a number of seconds, 0 for no limit,"),
        "Seconds for a whole upstream answer; 0 for no limit.",
        source="docs/spec/operations.md#b",
    )

    # -- limits
    max_body_bytes: int = _setting(
        32 * _MIB,
        size_bytes(1 * _KIB, _GIB),
        "Largest request body, after decompression.",
        source="docs/spec/operations.md#c1: the Messages API's own",
        is_live=False,
    )
    max_parsing_bytes: int = _setting(
        128 * _MIB,
        size_bytes(1 * _KIB, 64 * _GIB),
        "Request bodies that are read, parsed or waiting for an upstream, together; more are answered 529.",
        source="four of the largest",
    )
    max_upstream_body_bytes: int = _setting(
        64 * _MIB,
        size_bytes(1 * _KIB, _GIB),
        "Largest upstream answer that is no stream.",
        source="docs/spec/operations.md#c4",
    )
    max_frame_bytes: int = _setting(
        8 * _MIB,
        size_bytes(1 * _KIB, _GIB),
        "Largest event of an upstream's stream.",
        source="docs/spec/operations.md#c4",
    )
    max_error_body_bytes: int = _setting(
        1 * _MIB,
        size_bytes(1 * _KIB, _GIB),
        "Largest error body of an upstream; the rest is cut.",
        source="docs/spec/operations.md#c4",
    )
    max_streams: int = _setting(
        256,
        whole_number(1, 65_536),
        "Calls in flight; more are answered 529.",
        source="docs/spec/operations.md#c7",
    )
    max_streams_per_route: int = _setting(
        0,
        whole_number(0, 65_536),
        "Calls in flight of one entry; 0 for no limit.",
        source="docs/spec/operations.md#c7",
    )
    max_connections: int = _setting(
        1024,
        whole_number(1, 1_000_000),
        "Client connections; more are answered 529 and closed.",
        source="docs/spec/operations.md#e9",
        is_live=False,
    )
    max_idle_per_peer: int = _setting(
        64,
        whole_number(1, 1_000_000),
        "Idle connections of one client address; the oldest make room for new ones.",
        source="docs/spec/operations.md#e9",
        is_live=False,
    )

    # -- failures
    max_retries: int = _setting(
        2,
        whole_number(0, 10),
        "Further tries before the first byte; 0 for none.",
        source="docs/spec/design.md#environment, docs/spec/operations.md#d2",
        env="MAX_RETRIES",
        flag="--max-retries",
    )
    circuit_failures: int = _setting(
        5,
        whole_number(0, 1_000),
        "Failures in a row after which an upstream is left alone for a while; 0 for never.",
        source="docs/spec/operations.md#d4: Envoy",
        is_live=False,
    )
    circuit_open_s: float = _clock(
        30,
        "Seconds that an upstream is left alone, times the number of times in a row, 300 at most.",
        "docs/spec/operations.md#d4: Envoy",
        is_live=False,
    )
    on_midstream_error: str = _setting(
        "event",
        choice("event", "abort"),
        "How a stream ends that breaks: with an error event, or by a cut connection.",
        source="docs/spec/operations.md#d1",
    )

    # -- upstreams
    ca_file: str = _setting(
        "",
        free_text("the path of a PEM file, or an empty text"),
        "PEM file of certificate authorities for upstreams, instead of the system's.",
        source="docs/spec/operations.md#e10",
        is_live=False,
    )
    trust_env: bool = _setting(
        False,
        boolean(),
        "Use HTTPS_PROXY and netrc for upstream calls.",
        source="docs/spec/operations.md#e10",
        is_live=False,
    )

    forward_headers: tuple[str, ...] = _setting(
        ("*",),
        header_patterns("a header's name, or its beginning with a '*' behind it", never_goes_on),
        "Headers of a client's own that go on to the direct upstream it has chosen; [] for only those of the API.",
        source="docs/spec/operations.md#e4",
    )

    # -- what clients see
    discovery_prefix: str = _setting(
        "",
        free_text("a text with 'claude' or 'anthropic' in it, or an empty one", _is_in_picker),
        "Put in front of ids that Claude Code's picker would hide, as additional ids in /v1/models.",
        source="docs/spec/design.md#discovery-prefix",
    )

    # -- hooks, the ledger and records
    hook_options: Mapping[str, Any] = _setting(
        {},
        json_mapping("a mapping of hook names to mappings"),
        "Options by hook name.",
        source="docs/spec/design.md#hook-options",
    )
    hooks: Mapping[str, str] = _setting(
        {},
        choice_mapping({"isolation": ("thread", "process")}),
        "{isolation: process} runs hooks in a process of their own, which is ended when one does not come back.",
        source="docs/hooks.md",
    )
    hook_timeout_s: float = _clock(5, "Seconds that one call of a hook may take.", "half of commit_s")
    ledger_days: int = _setting(
        90,
        whole_number(0, 36_500),
        "Days that usage is kept; 0 for ever.",
        source="a quarter",
    )
    record: str = _setting(
        "failures",
        choice("failures", "all", "off"),
        "Which calls are recorded, without prompts and answers (docs/observability.md).",
        source="docs/spec/design.md#recording",
    )
    record_max: int = _setting(
        50,
        whole_number(1, 10_000),
        "Calls whose records are kept; the oldest go.",
        source="docs/spec/design.md#recording",
    )
    record_bodies: bool = _setting(
        False,
        boolean(),
        "Record prompts and answers, too, for 'claude-proxy replay'; warns at start.",
        source="docs/spec/design.md#recording, docs/spec/operations.md#e7",
    )

    #: Where each value comes from; names that are missing here have their default.
    origins: Mapping[str, str] = field(default_factory=dict)
    #: What is odd about the environment, one line each.
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        file_values: Mapping[str, Any] | None = None,
        file_places: Mapping[str, str] | None = None,
        *,
        folder: Path = Path(),
    ) -> Settings:
        """Decide each setting.

        Args:
            flags: values by name of the setting; None is a flag that was not given.
            environ: the environment. An empty variable counts as not set, as in a unit's ``EnvironmentFile``.
            file_values: the plain values under ``settings:``.
            file_places: where each of them stands, ``FILE:LINE:COLUMN``.
            folder: what relative paths among `file_values` are relative to, the folder of models.yaml.

        Raises:
            ConfigError: one line per fault, all of them.
        """
        reading = _Reading(flags, environ, file_values or {}, file_places or {}, folder)
        values = reading.values()
        if reading.faults:
            raise ConfigError("\n".join(reading.faults))
        return cls(**values, origins=reading.origins, warnings=_odd_variables(environ))

    def origin_of(self, name: str) -> str:
        """Where a value comes from: ``--port``, ``PORT``, ``FILE:LINE:COLUMN`` or ``default``."""
        return self.origins.get(name, "default")

    def after_reload(self, new: Settings) -> tuple[Settings, tuple[str, ...]]:
        """`new` with the settings that need a restart as they are, and the names of those it would have
        changed.
        """
        waiting = tuple(
            name
            for name, row in TABLE.items()
            if not row.is_live and getattr(self, name) != getattr(new, name)
        )
        kept = {name: getattr(self, name) for name in waiting}
        origins = {**new.origins, **{name: self.origin_of(name) for name in waiting}}
        return replace(new, **kept, origins=origins), waiting


def _table() -> dict[str, Setting]:
    rows = {}
    for each in fields(Settings):
        if "kind" in each.metadata:
            default = {} if each.default is MISSING else each.default
            row = dict(each.metadata)
            env = row.pop("env") or f"CLAUDE_PROXY_{each.name.upper()}"
            rows[each.name] = Setting(name=each.name, default=default, env=env, **row)
    return rows


#: All settings by name, in the order of `Settings`.
TABLE: Mapping[str, Setting] = _table()


def faults_in_file(values: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """What is wrong under ``settings:``, by name; the flag says whether the name itself is (see
    `models.Checks`).
    """
    faults: dict[str, tuple[str, bool]] = {}
    for name, value in values.items():
        if name not in TABLE:
            faults[name] = (f"unknown setting; {hint(name, TABLE)}", True)
            continue
        TABLE[name].kind.read(value, _first_fault(faults, name))
    return faults


class _Reading:
    """One decision over all settings; faults are collected, not raised."""

    def __init__(
        self,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        file_values: Mapping[str, Any],
        file_places: Mapping[str, str],
        folder: Path,
    ) -> None:
        strangers = set(flags) - set(TABLE)
        if strangers:
            raise AssertionError(f"flags that are no settings: {strangers}")
        self._flags = flags
        self._environ = environ
        self._file_values = file_values
        self._file_places = file_places
        self._folder = folder
        self.origins: dict[str, str] = {}
        self.faults: list[str] = []

    def values(self) -> dict[str, Any]:
        for name, (sentence, _) in faults_in_file(self._file_values).items():
            self._fault(f"{self._place(name)}: settings.{name}", sentence)
        values = {name: self._value(row) for name, row in TABLE.items()}
        values["auth_token"] = self._token(values["auth_token"])
        values["ca_file"] = self._ca_file(values["ca_file"])
        self._exposure(values)
        return values

    def _value(self, row: Setting) -> Any:
        flag, variable = self._flags.get(row.name), self._environ.get(row.env, "").strip()
        if flag is not None:
            raw, origin = flag, row.flag or f"--{row.name.replace('_', '-')}"
        elif variable:
            raw, origin = variable, row.env
        elif row.name in self._file_values:
            # Its faults are known already, with their places.
            value = row.kind.read(self._file_values[row.name], lambda *_: None)
            self.origins[row.name] = self._place(row.name)
            return row.default if value is None else value
        else:
            return row.default
        self.origins[row.name] = origin
        faults: dict[str, tuple[str, bool]] = {}
        raw = row.kind.from_text(raw) if isinstance(raw, str) else raw
        value = row.kind.read(raw, _first_fault(faults, row.name))
        for sentence, _ in faults.values():
            self._fault(origin, sentence)
        return row.default if value is None else value

    def _token(self, reference: str | None) -> Secret | None:
        if reference is None:
            return None
        origin = self.origins["auth_token"]
        try:
            credential = read_credential(reference, self._environ, self._folder)
        except ValueError as exc:
            self._fault(origin, f"auth_token: {exc}")
            return None
        if credential.missing is not None:
            # Not lazily, as with an entry's key: without its token the daemon would be open.
            self._fault(origin, f"auth_token: {credential.missing}")
        if credential.secret is not None and len(credential.secret.reveal()) < _MIN_TOKEN_CHARS:
            self._fault(
                origin,
                f"auth_token: expected at least {_MIN_TOKEN_CHARS} characters, so that nobody guesses it; "
                "make one with 'openssl rand -hex 32'",
            )
            return None
        return credential.secret

    def _ca_file(self, path: str) -> str:
        if not path:
            return path
        # A path in models.yaml is relative to it, one typed in a shell to where it was typed.
        is_from_file = self.origins["ca_file"] == self._place("ca_file")
        full = (self._folder if is_from_file else Path()) / os.path.expanduser(path)
        if not full.is_file():
            self._fault(self.origins["ca_file"], f"ca_file: expected a PEM file; there is none at {full}")
        return str(full)

    def _exposure(self, values: Mapping[str, Any]) -> None:
        """Whoever reaches the port can spend the user's money (docs/spec/operations.md#e1)."""
        if is_loopback(values["host"]) or values["auth_token"] is not None or values["insecure"]:
            return
        if any(fault.startswith(f"{self.origins.get('auth_token')}:") for fault in self.faults):
            return  # there is a token, and what is wrong with it is said already
        remedy = "set auth_token (CLAUDE_PROXY_AUTH_TOKEN), or --insecure if nobody else can reach it"
        self._fault(
            self.origins["host"], f"{values['host']} is beyond loopback and there is no token; {remedy}"
        )

    def _place(self, name: str) -> str:
        return self._file_places.get(name, "settings")

    def _fault(self, origin: str, text: str) -> None:
        self.faults.append(f"{origin}: {text}")


def _first_fault(
    faults: dict[str, tuple[str, bool]], name: str
) -> Callable[[tuple[str | int, ...], str, bool], None]:
    """A reporter that keeps the first fault below `name`; a setting is small enough for one at a time."""

    def report(path: tuple[str | int, ...], text: str, on_key: bool) -> None:
        faults.setdefault(name, (text, False))

    return report


def _odd_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that look like ours and are not: most often a typing error, whose setting would be missed."""
    known = {row.env for row in TABLE.values()} | _OTHER_VARIABLES
    # A setting with a short name may have been looked for under the long one.
    long_names = {f"CLAUDE_PROXY_{name.upper()}": row.env for name, row in TABLE.items()}
    odd = sorted(name for name in environ if name.startswith("CLAUDE_PROXY_") and name not in known)
    return tuple(
        f"{name}: not a variable of claude-proxy; "
        + (f"use {long_names[name]}" if name in long_names else hint(name, known))
        for name in odd
    )
