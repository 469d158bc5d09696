"""Header policy of direct routes: which request headers are forwarded, and which response headers are returned.

Headers that Claude Code and the SDKs send for the API are forwarded to every upstream. A client's own headers
(``ANTHROPIC_CUSTOM_HEADERS``) are forwarded as far as the setting ``forward_headers`` allows. Headers that belong to a
connection, contain a credential or identify the sender are never forwarded.

Response headers are returned unless they belong to the connection or instruct a browser about the proxy's origin.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from proxyd.errors import BadReply

__all__ = ["HOP_BY_HOP", "forwarded_names", "is_from_claude_code", "is_never_forwarded", "is_returned"]

_FORWARDED = frozenset({"accept", "content-type", "traceparent", "tracestate", "user-agent", "x-app"})
_FORWARDED_PREFIXES = ("anthropic-", "x-claude-code-", "x-stainless-")

#: Headers that belong to one connection (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
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
#: Headers in which Claude Code describes the call and the user's work to a gateway: for the proxy, not for vendors
#: (docs/spec/hints-and-modes.md#hint-headers).
_HINTS = {
    f"x-claude-code-{name}"
    for name in (
        "agent-type",
        "auxiliary-type",
        "compaction",
        "context-compacted",
        "managed-settings-checksum",
        "parent-agent-id",
        "prev-tool-durations",
        "prompt-id",
        "request-class",
    )
}
#: Headers that the upstream request sets itself, and those that browsers and other proxies add.
_NEVER_FORWARDED = (
    HOP_BY_HOP
    | {
        "accept-encoding",
        "authorization",
        "content-encoding",
        "content-length",
        "cookie",
        "cookie2",
        "expect",
        "forwarded",
        "host",
        "origin",
        "referer",
        "via",
        "x-api-key",
        "x-real-ip",
    }
    | _HINTS
)
_NEVER_FORWARDED_PREFIXES = ("sec-", "x-claude-1p-", "x-claude-proxy-", "x-forwarded-")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_NOT_RETURNED = HOP_BY_HOP | {"clear-site-data", "content-length", "refresh", "set-cookie"}
_NOT_RETURNED_PREFIXES = ("access-control-", "x-claude-proxy-")


@functools.lru_cache(maxsize=64)  # all requests of a client have the same header names in the same order
def forwarded_names(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return for each request header its name in lower case, or "" if it is not forwarded.

    Args:
        patterns: names of further headers to forward: the setting ``forward_headers``.
    """
    lowered = [name.lower() for name in names]
    return tuple(name if _is_forwarded(name, patterns) else "" for name in lowered)


def _is_forwarded(name: str, patterns: tuple[str, ...]) -> bool:
    if is_never_forwarded(name):
        return False
    return name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES) or _matches(name, patterns)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether one of `patterns`, a name or a prefix with ``*``, matches `name`, which is in lower case."""
    return any(
        name.startswith(pattern[:-1].lower()) if pattern.endswith("*") else name == pattern.lower()
        for pattern in patterns
    )


def is_from_claude_code(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from Claude Code, which acts on some errors in its own way."""
    return headers.get("user-agent", "").startswith("claude-cli/")


def is_never_forwarded(pattern: str) -> bool:
    """Return whether all headers that `pattern` matches are withheld from every upstream."""
    lowered = pattern.lower()
    return lowered in _NEVER_FORWARDED or lowered.startswith(_NEVER_FORWARDED_PREFIXES)


@functools.lru_cache(maxsize=512)  # all responses of an upstream have the same header names
def is_returned(name: str) -> bool:
    """Return whether the response header `name` of an upstream is returned to the client.

    Raises:
        BadReply: `name` is not a valid header name; clients would refuse or misread the response.
    """
    if not _TOKEN.match(name):
        raise BadReply("the upstream sent a header with an invalid name")
    lowered = name.lower()
    return lowered not in _NOT_RETURNED and not lowered.startswith(_NOT_RETURNED_PREFIXES)
