"""Which of a client's headers go on to a direct upstream, by their names (operations.md E4).

What Claude Code and the SDKs send for the API goes on to every upstream. What a client sends of its own
(``ANTHROPIC_CUSTOM_HEADERS``) goes on to the upstream it has chosen, as far as the setting ``forward_headers`` says.
What belongs to a connection, carries a credential or tells who asks is never passed on as it came.
"""

from __future__ import annotations

import functools

__all__ = ["HOP_BY_HOP", "fate_of", "is_forwarded", "never_goes_on"]

_USUAL = frozenset({"accept", "content-type", "traceparent", "tracestate", "user-agent", "x-app"})
_USUAL_PREFIXES = ("anthropic-", "x-claude-code-", "x-stainless-")

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
#: Those that the new request has of its own, and what browsers and other proxies add.
_NEVER = HOP_BY_HOP | {
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
_NEVER_PREFIXES = ("sec-", "x-claude-proxy-", "x-forwarded-")


@functools.lru_cache(maxsize=1024)  # a client sends the same few dozen with each request
def fate_of(name: str) -> tuple[str, bool, bool]:
    """A header's name in lower case; whether it may go on, and whether it goes to every upstream."""
    name = name.lower()
    is_sent = not (name in _NEVER or name.startswith(_NEVER_PREFIXES))
    return name, is_sent, is_sent and (name in _USUAL or name.startswith(_USUAL_PREFIXES))


@functools.lru_cache(maxsize=1024)
def is_forwarded(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of `patterns`, a name or the beginning of one with ``*`` behind it, takes the header `name`, which is
    in lower case.
    """
    return any(
        name.startswith(pattern[:-1].lower()) if pattern.endswith("*") else name == pattern.lower()
        for pattern in patterns
    )


def never_goes_on(pattern: str) -> bool:
    """Whether no header that `pattern` takes may go on."""
    lowered = pattern.lower()
    return lowered in _NEVER or lowered.startswith(_NEVER_PREFIXES)
