"""How an upstream is asked to search the web itself, where its profile knows it (`Profile.searches`).

Sources: openrouter.ai/docs/guides/features/server-tools/web-search; developers.openai.com/api/docs/guides/
tools-web-search; docs.bigmodel.cn, chat completions, tools; ai.google.dev/gemini-api/docs/google-search;
alibabacloud.com/help/en/model-studio/web-search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyd.codecs.citations import Citations
from proxyd.config.routes import ModelRoute
from proxyd.providers.profile import SEARCH_WAYS
from proxyd.providers.registry import format_for, profile_for

__all__ = ["UpstreamSearch", "can_search", "search_fields"]


@dataclass(frozen=True, slots=True)
class UpstreamSearch:
    """A search that an upstream is to make within a call.

    Attributes:
        allowed, blocked: domains.
        citations: gets the sources of the response.
    """

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    max_results: int = 8
    citations: Citations = field(default_factory=Citations)


def can_search(route: ModelRoute) -> bool:
    """Whether the upstream of a translated route is known to search."""
    return _way_of(route) is not None


def search_fields(route: ModelRoute, search: UpstreamSearch) -> dict[str, Any] | None:
    """Return the fields of the request with which its upstream searches; None where none are known."""
    way = _way_of(route)
    return None if way is None else _WAYS[way](search)


def _way_of(route: ModelRoute) -> str | None:
    if route.direct:
        return None
    return profile_for(route.api_base, route.provider).searches.get(format_for(route)[0].name)


def _openrouter(search: UpstreamSearch) -> dict[str, Any]:
    parameters: dict[str, Any] = {"max_results": min(search.max_results, 10), "max_uses": 1}
    if search.allowed:
        parameters["allowed_domains"] = list(search.allowed)
    elif search.blocked:
        parameters["excluded_domains"] = list(search.blocked)
    return {"tools": [{"type": "openrouter:web_search", "parameters": parameters}]}


def _responses(search: UpstreamSearch) -> dict[str, Any]:
    tool: dict[str, Any] = {"type": "web_search"}
    if search.allowed:
        tool["filters"] = {"allowed_domains": list(search.allowed)}
    return {"tools": [tool]}


def _glm(search: UpstreamSearch) -> dict[str, Any]:
    tool: dict[str, Any] = {
        "enable": True,
        "search_engine": "search_std",
        "search_result": True,
        "search_intent": False,
        "count": search.max_results,
    }
    if len(search.allowed) == 1:  # it takes one
        tool["search_domain_filter"] = search.allowed[0]
    return {"tools": [{"type": "web_search", "web_search": tool}], "stream": False}


def _gemini(search: UpstreamSearch) -> dict[str, Any]:
    return {"tools": [{"googleSearch": {}}]}


_WAYS: Mapping[str, Callable[[UpstreamSearch], dict[str, Any]]] = dict(
    zip(SEARCH_WAYS, (_openrouter, _responses, _glm, _gemini), strict=True)
)
