"""Recognise Claude Code's WebSearch call, and read what it asks for.

Claude Code's WebSearch makes one call of its own that offers nothing but Anthropic's search tool. The query stands in
the text of its only message, the domains in the tool (docs/spec/hints-and-modes.md#web-search-call). Calls that offer
the search among other tools come from other clients; the translation leaves the search tool out there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["SearchCall", "is_search_call"]

_TYPE_PREFIX = "web_search_"
#: How Claude Code begins the only message of the call.
_QUERY = re.compile(r"Perform a web search for the query:\s{0,8}")
_MAX_QUERY_CHARS = 2000
#: Domains that are read of one list; Anthropic names no limit.
_MAX_DOMAINS = 100


@dataclass(frozen=True, slots=True)
class SearchCall:
    """What one call asks for.

    Attributes:
        allowed: domains that results may have, with their subdomains; all if empty. An entry may end in a path.
        blocked: domains that results may not have.
        is_exhausted: the client allows no search at all (``max_uses: 0``).
    """

    query: str
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    is_exhausted: bool = False

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> SearchCall:
        """Read a request for which `is_search_call` is true."""
        return cls.by(payload["tools"][0], _query_of(payload))

    @classmethod
    def by(cls, tool: Mapping[str, Any], query: str) -> SearchCall:
        """Return the search for a query within the limits of Anthropic's tool."""
        return cls(
            query,
            _domains(tool.get("allowed_domains")),
            _domains(tool.get("blocked_domains")),
            is_exhausted=tool.get("max_uses") == 0,
        )

    def allows(self, url: str) -> bool:
        """Whether a result with this address may be shown."""
        try:
            parts = urlsplit(url)
            place = (parts.hostname or "").lower() + parts.path
        except ValueError:
            return False
        if self.allowed and not any(_is_within(place, domain) for domain in self.allowed):
            return False
        return not any(_is_within(place, domain) for domain in self.blocked)


def is_search_tool(tool: Any) -> bool:
    """Whether a tool is Anthropic's web search."""
    return isinstance(tool, Mapping) and str(tool.get("type", "")).startswith(_TYPE_PREFIX)


def is_search_call(payload: Mapping[str, Any]) -> bool:
    """Whether the request offers Anthropic's web search and no other tool."""
    tools = payload.get("tools")
    return isinstance(tools, list) and bool(tools) and all(map(is_search_tool, tools))


def _query_of(payload: Mapping[str, Any]) -> str:
    """Return the query of the last message, or its text where it is not in Claude Code's form."""
    messages = payload.get("messages")
    content = messages[-1].get("content") if isinstance(messages, list) and messages else None
    if isinstance(content, list):
        content = " ".join(
            str(block.get("text", ""))
            for block in content
            if isinstance(block, Mapping) and block.get("type") == "text"
        )
    text = content if isinstance(content, str) else ""
    found = _QUERY.search(text)
    return " ".join(text[found.end() if found else 0 :][:_MAX_QUERY_CHARS].split())


def _domains(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    names = (each.strip().lower() for each in value[:_MAX_DOMAINS] if isinstance(each, str))
    return tuple(name.removeprefix("https://").removeprefix("http://").rstrip("/") for name in names if name)


def _is_within(place: str, domain: str) -> bool:
    """Whether a host with its path is the domain (and path), or below it."""
    host, slash, path = domain.partition("/")
    seen_host, _, seen_path = place.partition("/")
    if seen_host != host and not seen_host.endswith(f".{host}"):
        return False
    return not slash or seen_path == path or seen_path.startswith(f"{path}/")
