"""Upstream requests and the credentials that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from multidict import MultiMapping

from proxyd.config.routes import ModelRoute
from proxyd.errors import BadCredential
from proxyd.secret import Secret

__all__ = ["CallTimeouts", "ClientKeys", "UpstreamRequest", "missing_key"]


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """Timeouts of one call in seconds; 0 is no limit (docs/spec/operations.md#b)."""

    connect_s: float = 10
    first_byte_s: float = 600
    idle_s: float = 300
    total_s: float = 0


@dataclass(slots=True)
class UpstreamRequest:
    """One HTTP request to an upstream. Its ``repr`` shows neither keys nor prompts."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeouts: CallTimeouts = CallTimeouts()
    method: str = "POST"


#: Keys of clients whose calls are open. One `Secret` for each key, because redaction of a log line tries each object.
_client_keys: WeakValueDictionary[str, Secret] = WeakValueDictionary()


def _client_key(value: str) -> Secret:
    key = _client_keys.get(value)
    if key is None:
        key = _client_keys[value] = Secret(value, is_configured=False)
    return key


@dataclass(slots=True)
class ClientKeys:
    """Credentials of a client's request, by the header that carried them.

    Attributes:
        is_login: an ``oauth-`` beta came with them, as Claude Code sends it with a login of claude.ai.
    """

    api_key: Secret | None = None
    bearer: Secret | None = None
    is_login: bool = False

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> ClientKeys:
        """Read ``x-api-key`` and ``Authorization: Bearer``; empty ones count as missing."""
        api_key = headers.get("x-api-key", "").strip()
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if isinstance(headers, MultiMapping):
            betas = headers.getall("anthropic-beta", [])
        else:
            betas = [headers.get("anthropic-beta", "")]
        return cls(
            _client_key(api_key) if api_key else None,
            _client_key(token) if token else None,
            is_login=any(beta.strip().startswith("oauth-") for line in betas for beta in line.split(",")),
        )

    @property
    def any(self) -> Secret | None:
        """The key to use where only one can be sent: ``x-api-key`` first (docs/spec/messages-api.md#credentials)."""
        return self.api_key or self.bearer

    @property
    def all(self) -> tuple[Secret, ...]:
        """Every key that is present."""
        return tuple(key for key in (self.api_key, self.bearer) if key is not None)

    def without(self, token: Secret) -> ClientKeys:
        """Return these keys without `token`, the proxy's own access token, which no upstream may see."""
        return ClientKeys(
            None if self.api_key == token else self.api_key,
            None if self.bearer == token else self.bearer,
            self.is_login,
        )


def missing_key(route: ModelRoute) -> BadCredential:
    """Build the error for a call without a key to an upstream that needs one."""
    return BadCredential(
        route.missing_key
        or f"no API key came with the request for model {route.model_id!r}: set ANTHROPIC_AUTH_TOKEN (or "
        "ANTHROPIC_API_KEY) for Claude Code to the key of that provider, or give the entry an api_key in models.yaml"
    )
