"""How an upstream is asked to search the web itself, where its profile knows it (`Profile.searches`).

Most search within a call of the model. DashScope names the sources over Responses only, which is at the same address as
its Chat Completions. Kimi's search is a request of its own (`proxyd.server_tools.web_search.kimi`).

Sources: openrouter.ai/docs/guides/features/server-tools/web-search; developers.openai.com/api/docs/guides/
tools-web-search; docs.bigmodel.cn, chat completions, tools; ai.google.dev/gemini-api/docs/google-search;
alibabacloud.com/help/en/model-studio/web-search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxyd.codecs.citations import Citations
from proxyd.codecs.translation.translated import merge
from proxyd.config.routes import ModelRoute
from proxyd.providers.registry import format_for, profile_for

__all__ = ["KIMI", "UpstreamSearch", "can_search", "searching_route", "way_of"]

#: The way that is no part of a call.
KIMI = "kimi"


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
    return way_of(route) is not None


def way_of(route: ModelRoute) -> str | None:
    """Return how the upstream of a route is asked to search, one of `SEARCH_WAYS`; None where none is known."""
    if route.direct:
        return None
    return profile_for(route.api_base, route.provider).searches.get(format_for(route)[0].name)


def searching_route(route: ModelRoute, search: UpstreamSearch) -> ModelRoute | None:
    """Return a route whose requests ask its upstream to search; None where no request of a call does."""
    way = _WAYS.get(way_of(route) or "")
    if way is None:
        return None
    fields = way.fields(search)
    return replace(
        route,
        extra_body=merge(route.extra_body, fields),
        can_stream=route.can_stream and fields.get("stream", True),
        format=way.format or route.format,
    )


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


def _dashscope(search: UpstreamSearch) -> dict[str, Any]:
    return {"tools": [{"type": "web_search"}]}


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


@dataclass(frozen=True, slots=True)
class _Way:
    """One way.

    Attributes:
        fields: makes the fields of the request.
        format: the protocol of the call, where it is not the entry's own.
    """

    fields: Callable[[UpstreamSearch], dict[str, Any]]
    format: str | None = None


_WAYS: Mapping[str, _Way] = {
    "openrouter": _Way(_openrouter),
    "responses": _Way(_responses),
    "glm": _Way(_glm),
    "gemini": _Way(_gemini),
    "dashscope": _Way(_dashscope, "openai-responses"),
}
