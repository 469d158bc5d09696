"""Which of a client's headers go on to a direct upstream, and which of its headers come back, by their names.

What Claude Code and the SDKs send for the API goes on to every upstream. What a client sends of its own
(``ANTHROPIC_CUSTOM_HEADERS``) goes on to the upstream it has chosen, as far as the setting ``forward_headers`` says.
What belongs to a connection, carries a credential or tells who asks is never passed on as it came.

Of an upstream's headers those come back that are neither of its connection nor orders to a browser about our origin.
"""

from __future__ import annotations

import functools
import re

from proxyd.errors import BadReply

__all__ = ["HOP_BY_HOP", "forwarded_names", "is_never_forwarded", "is_returned"]

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

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_NOT_RETURNED = HOP_BY_HOP | {"clear-site-data", "content-length", "refresh", "set-cookie"}
_NOT_RETURNED_PREFIXES = ("access-control-", "x-claude-proxy-")


@functools.lru_cache(maxsize=64)  # a client's requests have the same headers, in the same order
def forwarded_names(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """For each header of a request the name by which it goes on, in lower case, or "" where it does not.

    Args:
        patterns: which of those go on that are not sent to every upstream.
    """
    lowered = [name.lower() for name in names]
    return tuple(name if _goes_on(name, patterns) else "" for name in lowered)


def _goes_on(name: str, patterns: tuple[str, ...]) -> bool:
    if name in _NEVER or name.startswith(_NEVER_PREFIXES):
        return False
    return name in _USUAL or name.startswith(_USUAL_PREFIXES) or _is_forwarded(name, patterns)


def _is_forwarded(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of `patterns`, a name or the beginning of one with ``*`` behind it, takes the header `name`, which is
    in lower case.
    """
    return any(
        name.startswith(pattern[:-1].lower()) if pattern.endswith("*") else name == pattern.lower()
        for pattern in patterns
    )


def is_never_forwarded(pattern: str) -> bool:
    """Whether no header that `pattern` takes may go on."""
    lowered = pattern.lower()
    return lowered in _NEVER or lowered.startswith(_NEVER_PREFIXES)


@functools.lru_cache(maxsize=512)  # an upstream's responses have the same headers
def is_returned(name: str) -> bool:
    """Whether the header `name` of an upstream's response goes back to the client.

    Raises:
        BadReply: it is no name of a header. Others would refuse the response, or read another one.
    """
    if not _TOKEN.match(name):
        raise BadReply("the upstream answered with a header whose name holds characters that none may hold")
    lowered = name.lower()
    return lowered not in _NOT_RETURNED and not lowered.startswith(_NOT_RETURNED_PREFIXES)
