"""The setting ``otel``: where spans and metrics are sent by OTLP (docs/observability.md#opentelemetry).

What it leaves out comes from the variables that OpenTelemetry defines. They alone switch nothing on: Claude Code reads
the same ones for its own telemetry.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from proxyd.config.kinds import Kind, address, boolean, headers, number, table, text
from proxyd.config.secrets import read_credential
from proxyd.secret import Secret

__all__ = ["OTEL", "Header", "Otel", "otel_kind", "otel_of"]

#: Where a collector listens (OTLP specification, "OTLP/HTTP default port").
_ENDPOINT = "http://localhost:4318"
_SERVICE_NAME = "claude-proxy"
_INTERVAL_S = 60.0
#: Modules of the optional libraries.
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
#: The keys of the mapping.
OTEL: Mapping[str, tuple[Kind, str]] = {
    "enabled": (boolean(), "false keeps the other keys and sends nothing; true if left out."),
    "endpoint": (
        address(),
        "Base address of the collector, before /v1/traces and /v1/metrics; OTEL_EXPORTER_OTLP_ENDPOINT if left out, "
        f"else {_ENDPOINT}.",
    ),
    "headers": (
        headers(),
        "Headers for the collector: a literal, ${ENV_NAME} or ${file:PATH}, also after a word such as Bearer. Those of "
        "OTEL_EXPORTER_OTLP_HEADERS are added.",
    ),
    "service_name": (
        text("a name"),
        f"service.name of all data; OTEL_SERVICE_NAME if left out, else {_SERVICE_NAME}.",
    ),
    "sample": (
        number(0, 1, what="a share of all calls"),
        "Share of the calls that have spans, from 0 to 1; 1 if left out. A call whose client sends a traceparent "
        "follows the client's decision. Metrics count all calls.",
    ),
    "interval_s": (
        number(1, 3_600, what="a number of seconds"),
        f"Seconds between two transfers of the metrics; {_INTERVAL_S:g} if left out.",
    ),
    "content": (
        boolean(),
        "true adds prompts and responses to the spans, in plain text with keys masked; warns at start. false if left "
        "out.",
    ),
}


def otel_kind() -> Kind:
    """Kind of the mapping."""
    return table("a mapping such as {endpoint: http://127.0.0.1:4318}", OTEL)


@dataclass(frozen=True, slots=True)
class Header:
    """A header for the collector: its value is `prefix` and then the secret."""

    prefix: str
    secret: Secret

    def reveal(self) -> str:
        """Return the value."""
        return self.prefix + self.secret.reveal()


@dataclass(frozen=True, slots=True)
class Otel:
    """What is in force."""

    endpoint: str = _ENDPOINT
    headers: Mapping[str, Header] = field(default_factory=dict)
    service_name: str = _SERVICE_NAME
    sample: float = 1.0
    interval_s: float = _INTERVAL_S
    content: bool = False


def otel_of(values: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Otel | None:
    """Return what the mapping and the environment say; None where nothing is to be sent.

    Raises:
        ValueError: a library, an address or a key is missing; the message names the key or the variable, and holds no
            part of a header.
    """
    if (
        not values
        or not values.get("enabled", True)
        or environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    ):
        return None
    if not all(map(_is_installed, _NEEDED)):
        raise ValueError("OpenTelemetry needs its SDK and exporter: pip install 'claude-proxyd[otel]'")
    return Otel(
        endpoint=values.get("endpoint") or _endpoint_in(environ),
        headers=_headers(values.get("headers", {}), environ, folder),
        service_name=values.get("service_name") or environ.get("OTEL_SERVICE_NAME") or _SERVICE_NAME,
        sample=float(values.get("sample", 1.0)),
        interval_s=float(values.get("interval_s", _INTERVAL_S)),
        content=values.get("content", False),
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def _endpoint_in(environ: Mapping[str, str]) -> str:
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    value = environ.get(name, "").strip()
    if not value:
        return _ENDPOINT
    faults: list[str] = []
    found = address().read(value, lambda _, sentence, __: faults.append(sentence))
    if found is None:
        raise ValueError(f"endpoint: {name}: {faults[0]}; correct it, or set otel.endpoint")
    return str(found)


def _headers(values: Mapping[str, str], environ: Mapping[str, str], folder: Path) -> dict[str, Header]:
    found = {}
    # A list as in the header Baggage: name=value, percent-encoded.
    for pair in environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(","):
        name, mark, value = pair.partition("=")
        if mark and name.strip():
            prefix, _, secret = unquote(value.strip()).rpartition(" ")
            found[unquote(name.strip()).lower()] = Header(prefix and f"{prefix} ", Secret(secret))
    for name, value in values.items():
        cut = value.find("${") if "${" in value else value.rstrip().rfind(" ") + 1
        try:
            credential = read_credential(value[cut:], environ, folder)
        except ValueError as exc:
            raise ValueError(f"headers.{name}: {exc}") from None
        if credential.secret is None:
            raise ValueError(f"headers.{name}: {credential.missing}")
        found[name.lower()] = Header(value[:cut], credential.secret)
    return found
