"""What a provider makes of a client's request, and whose key goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from proxyd.config.routes import ModelRoute
from proxyd.errors import BadCredential
from proxyd.secret import Secret

__all__ = ["CallTimeouts", "ClientKeys", "UpstreamRequest", "missing_key"]


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """How long to wait for an upstream, in seconds; 0 is for ever (docs/spec/operations.md#b)."""

    connect_s: float = 10
    first_byte_s: float = 600
    idle_s: float = 300
    total_s: float = 0


@dataclass(slots=True)
class UpstreamRequest:
    """One call as it will go out. Its ``repr`` shows neither keys nor prompts."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeouts: CallTimeouts = CallTimeouts()
    method: str = "POST"


#: The clients' keys of the calls that are not over. They bring the same ones again and again, and a log line looks for
#: each object.
_client_keys: WeakValueDictionary[str, Secret] = WeakValueDictionary()


def _client_key(value: str) -> Secret:
    key = _client_keys.get(value)
    if key is None:
        key = _client_keys[value] = Secret(value, is_configured=False)
    return key


@dataclass(slots=True)
class ClientKeys:
    """The credentials that came with a request, each in the header it came in."""

    api_key: Secret | None = None
    bearer: Secret | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> ClientKeys:
        """Read ``x-api-key`` and ``Authorization: Bearer``; empty ones count as missing."""
        api_key = headers.get("x-api-key", "").strip()
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        return cls(_client_key(api_key) if api_key else None, _client_key(token) if token else None)

    @property
    def any(self) -> Secret | None:
        """The one to use where only one can go on: ``x-api-key`` first (docs/spec/messages-api.md#credentials)."""
        return self.api_key or self.bearer

    @property
    def all(self) -> tuple[Secret, ...]:
        """Those that there are."""
        return tuple(key for key in (self.api_key, self.bearer) if key is not None)

    def without(self, token: Secret) -> ClientKeys:
        """These keys less the one that is our own access token, which no upstream may see."""
        return ClientKeys(
            None if self.api_key == token else self.api_key, None if self.bearer == token else self.bearer
        )


def missing_key(route: ModelRoute) -> BadCredential:
    """No key at hand for a route whose upstream needs one."""
    return BadCredential(
        route.missing_key
        or f"no API key came with the request for model {route.model_id!r}: set ANTHROPIC_AUTH_TOKEN (or "
        "ANTHROPIC_API_KEY) for Claude Code to the key of that provider, or give the entry an api_key in models.yaml"
    )
