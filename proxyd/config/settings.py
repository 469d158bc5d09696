"""Table of the daemon's settings (docs/spec/design.md#environment).

Each setting is one field of `Settings`, with its unit in its name and its default, the source of that default, kind,
help text, variable and flag as the field's metadata. The loader, ``claude-proxy check``, the JSON Schema and
docs/configuration.md all read `TABLE`, which is built from the fields. Defaults of timeouts and limits come from
docs/spec/operations.md#b and #c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from proxyd.config.auto_mode import auto_mode_kind
from proxyd.config.database_url import DatabaseUrl
from proxyd.config.images import images_kind
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
from proxyd.config.networks import networks_kind
from proxyd.config.otel import Otel, otel_kind
from proxyd.config.secrets import Credential
from proxyd.config.tls import Tls, tls_kind
from proxyd.config.web_search import web_search_kind
from proxyd.headers import is_never_forwarded
from proxyd.secret import Secret

__all__ = [
    "TABLE",
    "Setting",
    "Settings",
]

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_DAY_S = 86_400


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        kind: the values that are valid.
        help: what it does, one sentence.
        source: document or reasoning behind the default.
        env: its environment variable.
        flag: its option on the command line, or None.
        is_live: a reload applies a change; otherwise it takes effect at the next restart
            (docs/spec/operations.md#a4).
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
    """Return a dataclass field whose metadata is its row of the table."""
    row = {"kind": kind, "help": help_, "source": source, "env": env, "flag": flag, "is_live": is_live}
    if isinstance(default, dict):  # dataclasses refuse a mutable default
        return field(default_factory=dict, metadata=row)
    return field(default=default, metadata=row)


def _timeout(default: float, help_: str, source: str, *, is_live: bool = True) -> Any:
    kind = number(0.001, _DAY_S, what="a number of seconds")
    return _setting(float(default), kind, help_, source=source, is_live=is_live)


def _is_in_picker(prefix: str) -> bool:
    """Whether Claude Code's model picker shows ids with this prefix (docs/spec/claude-code.md#picker)."""
    return "claude" in prefix.lower() or "anthropic" in prefix.lower()


@dataclass(frozen=True)
class Settings:
    """Settings in force. `proxyd.config.settings_loader` builds them; the bare constructor gives the defaults."""

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
        secret_text("a token, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}"),
        "Token that clients must send, at least 16 characters; required to listen beyond loopback.",
    )
    auth: str = _setting(
        "token",
        choice("token", "keys"),
        "What clients of the models must send: token, auth_token where one is set; keys, a virtual key "
        "(docs/teams.md).",
        is_live=False,
    )
    store: DatabaseUrl | None = _setting(  # noqa: RUF009 - as above
        None,
        secret_text(
            "sqlite, postgresql://USER:PASSWORD@HOST/DATABASE, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}"
        ),
        "Where virtual keys, limits and their usage are: sqlite, a file of the state folder, or the address of a "
        "PostgreSQL database that several daemons share, with the ledgers of all (docs/teams.md).",
        is_live=False,
    )
    fail_closed: bool = _setting(
        False,
        boolean(),
        "With ``auth: keys``, refuse new calls while the store cannot be reached; otherwise they go on, with the keys "
        "and limits that were read last.",
    )
    insecure: bool = _setting(
        False,
        boolean(),
        "Listen beyond loopback without auth_token.",
        source="docs/spec/operations.md#e1",
        flag="--insecure",
        is_live=False,
    )
    workers: int = _setting(
        1,
        whole_number(1, 64),
        "Processes that serve calls, for more than one core (docs/service.md#several-workers).",
        flag="--workers",
        is_live=False,
    )
    tls: Mapping[str, Any] = _setting(
        {},
        replace(tls_kind(), from_text=json_mapping("").from_text),
        "A second address on which clients speak TLS; ``cert`` and ``key`` are read again when they change "
        "(docs/teams.md).",
        is_live=False,
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        names("a host name"),
        "Further names that requests may have in their Host and Origin headers.",
        source="docs/spec/operations.md#e2, #e3",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        networks_kind(),
        "Addresses and networks of reverse proxies and balancers; only what these say in ``X-Forwarded-For`` or "
        "``Forwarded`` is taken for a client's address (docs/teams.md).",
        source="docs/spec/operations.md#e1",
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
        "auto: console on a terminal, else JSON. With json the hint how to connect is not printed.",
        env="LOG_FORMAT",
        flag="--log-format",
        is_live=False,
    )
    prompt_cache: bool = _setting(
        True,
        boolean(),
        "Keep parsed parts of the last conversations in memory, for ten minutes at most: translated requests of 137 KB "
        "are prepared in two thirds of the time. ``false`` keeps no prompt longer than its call.",
        source="docs/spec/operations.md#e7",
    )
    log_bodies: bool = _setting(
        False,
        boolean(),
        "Log prompts and responses at debug; warns at start.",
        source="docs/spec/operations.md#e7",
        flag="--log-bodies",
    )

    # -- timeouts towards clients
    keepalive_s: float = _timeout(
        75,
        "Seconds a client's connection may idle, or take to send a request's head.",
        "docs/spec/operations.md#b: nginx keepalive_timeout",
        is_live=False,
    )
    body_idle_s: float = _timeout(
        30, "Seconds between two chunks of a request body.", "docs/spec/operations.md#b: nginx has 60"
    )
    body_total_s: float = _timeout(120, "Seconds for a whole request body.", "docs/spec/operations.md#b")
    write_stall_s: float = _timeout(
        60,
        "Seconds a client may read nothing before it is disconnected.",
        "docs/spec/operations.md#b: nginx send_timeout",
    )
    ping_s: float = _timeout(
        15, "Seconds of silence in a stream after which a ping is sent.", "docs/spec/operations.md#b"
    )
    commit_s: float = _timeout(
        10,
        "Seconds without an upstream event after which status 200 is sent nevertheless.",
        "docs/spec/design.md#p2",
    )
    drain_timeout_s: float = _timeout(
        30, "Seconds that open streams have to finish at a stop.", "docs/spec/operations.md#a2"
    )

    # -- timeouts towards upstreams
    connect_s: float = _timeout(
        10,
        "Seconds for a connection to an upstream: name lookup, proxy, CONNECT and TLS together.",
        "docs/spec/operations.md#b: Envoy 5, SDK 5",
    )
    first_byte_s: float = _timeout(
        600, "Seconds until an upstream's first byte.", "docs/spec/operations.md#b: the SDK's default timeout"
    )
    idle_s: float = _timeout(
        300,
        "Seconds of silence within an upstream's stream.",
        "docs/spec/operations.md#b: Envoy stream idle, Claude Code",
    )
    total_s: float = _setting(
        0.0,
        number(0, _DAY_S, what="a number of seconds, 0 for no limit,"),
        "Seconds for a whole upstream response; 0 for no limit.",
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
        "Request bodies that are read, parsed or waiting for an upstream, together; more get 529.",
        source="four of the largest",
    )
    max_upstream_body_bytes: int = _setting(
        64 * _MIB,
        size_bytes(1 * _KIB, _GIB),
        "Largest upstream response that is no stream.",
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
        "Largest error body of an upstream; the rest is truncated.",
        source="docs/spec/operations.md#c4",
    )
    max_streams: int = _setting(
        256,
        whole_number(1, 65_536),
        "Calls in flight; more get 529.",
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
        "Client connections; more get 529 and are closed.",
        source="docs/spec/operations.md#e9",
        is_live=False,
    )
    max_idle_per_peer: int = _setting(
        64,
        whole_number(1, 1_000_000),
        "Idle connections of one client address; the oldest are closed for new ones.",
        source="docs/spec/operations.md#e9",
        is_live=False,
    )

    # -- failures
    max_retries: int = _setting(
        2,
        whole_number(0, 10),
        "Retries before the first byte; 0 for none.",
        source="docs/spec/design.md#environment, docs/spec/operations.md#d2",
        env="MAX_RETRIES",
        flag="--max-retries",
    )
    circuit_failures: int = _setting(
        5,
        whole_number(0, 1_000),
        "Failures in a row that open the circuit breaker of an upstream; 0 for never.",
        source="docs/spec/operations.md#d4: Envoy",
        is_live=False,
    )
    circuit_open_s: float = _timeout(
        30,
        "Seconds that a circuit breaker stays open, times the number of times in a row, 300 at most.",
        "docs/spec/operations.md#d4: Envoy",
        is_live=False,
    )
    on_midstream_error: str = _setting(
        "event",
        choice("event", "abort"),
        "How a stream ends after an upstream failure: an error event, or a closed connection.",
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
    client_cert: str = _setting(
        "",
        free_text("the path of a PEM file, or an empty text"),
        "PEM file with a certificate and its key, shown to upstreams that ask for one.",
        source="docs/spec/operations.md#e10",
        is_live=False,
    )
    trust_env: bool = _setting(
        False,
        boolean(),
        "Use HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and netrc for upstream calls; NO_PROXY lists exceptions.",
        source="docs/spec/operations.md#e10",
        is_live=False,
    )
    idle_connection_s: float = _setting(
        300.0,
        number(0, _DAY_S, what="a number of seconds, 0 for no reuse,"),
        "Seconds that an idle connection to an upstream is kept at most; it ends earlier if the upstream says so or "
        "closes such connections earlier.",
        source="docs/spec/operations.md#b",
        is_live=False,
    )
    keep_warm: bool = _setting(
        True,
        boolean(),
        "Keep a connection to each upstream of the last 10 minutes ready, so that no call waits for a TLS handshake.",
        source="docs/performance.md#warm-connections",
        is_live=False,
    )

    forward_headers: tuple[str, ...] = _setting(
        ("*",),
        header_patterns("a header's name, or its beginning followed by '*'", is_never_forwarded),
        "Custom headers of clients that are forwarded to the direct upstream they chose; [] for only those of the API.",
        source="docs/spec/operations.md#e4",
    )

    # -- what clients see
    discovery_prefix: str = _setting(
        "",
        free_text("a text with 'claude' or 'anthropic' in it, or an empty one", _is_in_picker),
        "Prefix of additional ids in /v1/models, for models that Claude Code's picker would hide.",
        source="docs/spec/design.md#discovery-prefix",
    )

    auto_mode: Mapping[str, Any] = _setting(
        {},
        replace(auto_mode_kind(), from_text=json_mapping("").from_text),
        "Who judges the actions of Claude Code's auto mode on translated entries (docs/auto-mode.md).",
        source="docs/spec/hints-and-modes.md#auto-mode-choice",
    )
    web_search: Mapping[str, Any] = _setting(
        {},
        replace(web_search_kind(), from_text=json_mapping("").from_text),
        "Which search engine answers Claude Code's WebSearch on translated entries (docs/web-search.md).",
        source="docs/spec/hints-and-modes.md#web-search-choice",
    )

    context_edits: bool = _setting(
        True,
        boolean(),
        "Make the edits that a request's ``context_management`` asks for (clearing old results of tools and old "
        "thinking) before it is translated, as Anthropic's servers do.",
        source="docs/spec/messages-api.md#context-edits",
    )
    images: Mapping[str, Any] = _setting(
        {},
        replace(images_kind(), from_text=json_mapping("").from_text),
        "Which entry describes images to translated models that see none (docs/images.md).",
        source="docs/spec/messages-to-chat.md#image-descriptions",
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
        "{isolation: process} runs hooks in a separate process, which is killed when one hangs.",
        source="docs/hooks.md",
    )
    hook_timeout_s: float = _timeout(5, "Seconds that one call of a hook may take.", "half of commit_s")
    ledger_days: int = _setting(
        90,
        whole_number(0, 36_500),
        "Days that usage is kept; 0 for ever.",
        source="a quarter",
    )
    record: str = _setting(
        "failures",
        choice("failures", "all", "off"),
        "Which calls are recorded, without prompts and responses (docs/observability.md).",
        source="docs/spec/design.md#recording",
    )
    record_max: int = _setting(
        50,
        whole_number(1, 10_000),
        "Calls whose recordings are kept; the oldest are deleted.",
        source="docs/spec/design.md#recording",
    )
    record_bodies: bool = _setting(
        False,
        boolean(),
        "Record prompts and responses, too, for 'claude-proxy replay'; warns at start.",
        source="docs/spec/design.md#recording, docs/spec/operations.md#e7",
    )

    # -- telemetry
    otel: Mapping[str, Any] = _setting(
        {},
        replace(otel_kind(), from_text=json_mapping("").from_text),
        "Where spans and metrics are sent by OpenTelemetry's protocol OTLP; nowhere if left out "
        "(docs/observability.md).",
        source="docs/spec/operations.md#f6",
        is_live=False,
    )

    #: The text of the rules that ``auto_mode`` names.
    auto_mode_rules: str = ""
    #: What ``tls`` says.
    tls_address: Tls | None = None
    #: What ``otel`` says.
    otel_target: Otel | None = None
    #: The key that ``web_search`` names.
    web_search_key: Credential | None = None
    #: Source of each value: flag, variable or ``FILE:LINE:COLUMN``; absent for defaults.
    origins: Mapping[str, str] = field(default_factory=dict)
    #: Suspicious environment variables, one line each.
    warnings: tuple[str, ...] = ()

    def origin_of(self, name: str) -> str:
        """Return the source of a value: ``--port``, ``PORT``, ``FILE:LINE:COLUMN`` or ``default``."""
        return self.origins.get(name, "default")

    def after_reload(self, new: Settings) -> tuple[Settings, tuple[str, ...]]:
        """Return `new` with the settings that need a restart unchanged, and the names of those that differ."""
        pending = tuple(
            name
            for name, row in TABLE.items()
            if not row.is_live and getattr(self, name) != getattr(new, name)
        )
        kept = {name: getattr(self, name) for name in pending}
        origins = {**new.origins, **{name: self.origin_of(name) for name in pending}}
        return replace(new, **kept, origins=origins), pending


def _build_table() -> dict[str, Setting]:
    rows = {}
    for each in fields(Settings):
        if "kind" in each.metadata:
            default = {} if each.default is MISSING else each.default
            row = dict(each.metadata)
            env = row.pop("env") or f"CLAUDE_PROXY_{each.name.upper()}"
            rows[each.name] = Setting(name=each.name, default=default, env=env, **row)
    return rows


#: All settings by name, in the order of `Settings`.
TABLE: Mapping[str, Setting] = _build_table()
