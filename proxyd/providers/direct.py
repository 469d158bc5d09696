"""Direct routes: what goes to an upstream that speaks the Anthropic API (protocol.md 5.1, 5.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from proxyd.codecs.splice import splice
from proxyd.providers.base import ClientKeys, Clocks, UpstreamRequest, is_loopback_url, missing_key
from proxyd.providers.quirks import profile_for
from proxyd.routes import ModelRoute

__all__ = ["direct_url", "prepare", "response_headers"]

#: Request headers that go on, besides those of the patterns below (operations.md E4).
_FORWARDED = frozenset({"accept", "content-type", "traceparent", "tracestate", "user-agent", "x-app"})
_FORWARDED_PREFIXES = ("anthropic-", "x-claude-code-", "x-stainless-")

#: Headers that belong to one connection (RFC 9110, 7.6.1), and those that the server sets anew.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_RETURNED = _HOP_BY_HOP | {"content-length", "date", "server", "set-cookie"}

#: Sent where the client named no version (protocol.md 1.2).
_DEFAULT_VERSION = "2023-06-01"


def direct_url(api_base: str, path: str, query: str) -> str:
    """`path` below `api_base`; a ``/v1`` at the end of the base is not doubled. `query` keeps its raw form."""
    base = api_base.rstrip("/")
    if base.endswith("/v1") and path.startswith("/v1/"):
        base = base[: -len("/v1")]
    return f"{base}{path}?{query}" if query else f"{base}{path}"


def prepare(
    route: ModelRoute,
    *,
    path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    payload: Mapping[str, Any],
    keys: ClientKeys,
    clocks: Clocks,
    method: str = "POST",
) -> UpstreamRequest:
    """The client's request, for `route`.

    Args:
        headers: the client's, in order.
        body: the client's bytes; they go on as they are but for what the entry sets.
        payload: `body`, parsed.

    Raises:
        BadCredential: the upstream needs a key and none is there.
    """
    return UpstreamRequest(
        url=direct_url(route.api_base, path, query),
        headers=_request_headers(route, list(headers), keys),
        body=_request_body(route, body, payload) if body else body,
        clocks=clocks,
        method=method,
    )


def _request_body(route: ModelRoute, body: bytes, payload: Mapping[str, Any]) -> bytes:
    replace: dict[str, Any] = {}
    if payload.get("model") != route.model_name:
        replace["model"] = route.model_name
    asked = payload.get("max_tokens")
    if route.max_tokens is not None and isinstance(asked, int) and asked > route.max_tokens:
        replace["max_tokens"] = route.max_tokens
    for name in ("temperature", "top_p"):
        value = getattr(route, name)
        if value is not None and "max_tokens" in payload:  # count_tokens takes neither
            replace[name] = value
    for name, value in route.extra_body.items():
        replace[name] = _merged(payload.get(name), value)
    omit = {*profile_for(route.api_base, route.provider).omit, *route.omit}
    return splice(body, replace, {name for name in omit if name in payload and name not in replace})


def _merged(old: Any, new: Any) -> Any:
    """`new` over `old`, mappings joined at every level (``extra_body`` has the last word)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return new


def _request_headers(route: ModelRoute, headers: list[tuple[str, str]], keys: ClientKeys) -> dict[str, str]:
    named_in_connection = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for token in value.split(",")
    }
    sent: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name in named_in_connection or name in _HOP_BY_HOP:
            continue
        if name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES):
            sent[name] = f"{sent[name]}, {value}" if name in sent else value
    sent.setdefault("content-type", "application/json")
    sent.setdefault("anthropic-version", _DEFAULT_VERSION)
    sent["accept-encoding"] = "identity"
    _add_credentials(route, sent, keys)
    for name, value in route.extra_headers.items():
        sent[name.lower()] = value
    return sent


def _add_credentials(route: ModelRoute, sent: dict[str, str], keys: ClientKeys) -> None:
    """The client's keys in the form they came in, or the entry's key alone in that form."""
    if route.api_key is not None:
        value = route.api_key.reveal()
        if keys.bearer is not None and keys.api_key is None:
            sent["authorization"] = f"Bearer {value}"
        else:
            sent["x-api-key"] = value
        return
    if route.missing_key or (keys.any is None and not is_loopback_url(route.api_base)):
        raise missing_key(route)
    if keys.api_key is not None:
        sent["x-api-key"] = keys.api_key.reveal()
    if keys.bearer is not None:
        sent["authorization"] = f"Bearer {keys.bearer.reveal()}"


def response_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The upstream's response headers that go back to the client."""
    return [(name, value) for name, value in headers if name.lower() not in _NOT_RETURNED]
