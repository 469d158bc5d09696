"""The search engines: for each, the request of one search, and the results in its response.

An engine is a pair of functions without I/O. Domains go into the query as ``site:`` where an engine has no parameter
for them; results are checked against them afterwards in any case.

Sources: docs.searxng.org/dev/search_api.html; api-dashboard.search.brave.com (Web Search API);
docs.tavily.com/documentation/api-reference/endpoint/search; serper.dev; docs.exa.ai/reference/search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.config.web_search import WebSearch
from proxyd.server_tools.web_search.side_call import SearchCall

__all__ = ["ENGINES", "Engine", "EngineRequest", "Result", "SearchFailed"]

#: Brave refuses a longer query, or one of more words.
_MAX_BRAVE_CHARS, _MAX_BRAVE_WORDS = 400, 50
#: Domains that a query names; more would make it too long for the engines.
_MAX_SITES = 8
#: Characters of a page's text that Exa is asked for.
_EXA_CHARS = 600
_SAFE_LEVEL = {"off": 0, "moderate": 1, "strict": 2}


class SearchFailed(Exception):
    """The engine gave no results. The message says why, without the query and the key.

    Args:
        code: an error code of Anthropic's search.
    """

    def __init__(self, message: str, code: str = "unavailable") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """The request of one search: GET with `query`, or POST with `body` as JSON."""

    query: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One result. `age` is the page's date, in the engine's words."""

    title: str
    url: str
    text: str = ""
    age: str | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """How one engine is asked, and where the results stand.

    Attributes:
        mark: a member that each response of the engine has, whatever was found.
        results: the path to the list in the response; absent where nothing was found.
        fields: names of title, address, text and date of one result.
    """

    request: Callable[[SearchCall, WebSearch], EngineRequest]
    mark: str
    results: tuple[str, ...]
    fields: tuple[str, str, str, str]

    def read(self, response: Any) -> list[Result] | None:
        """Return the results of a parsed response; None if it is none of this engine's."""
        if not isinstance(response, dict) or self.mark not in response:
            return None
        found: Any = response
        for name in self.results:
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, list):
            return []
        return [result for each in found if (result := self._result(each)) is not None]

    def _result(self, item: Any) -> Result | None:
        if not isinstance(item, dict):
            return None
        title, url, text, age = (item.get(name) for name in self.fields)
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            return None
        return Result(
            title=title if isinstance(title, str) and title.strip() else url,
            url=url,
            text=text if isinstance(text, str) else "",
            age=age if isinstance(age, str) and age else None,
        )


def _searxng(call: SearchCall, config: WebSearch) -> EngineRequest:
    return EngineRequest(
        query={
            "q": _with_sites(call),
            "format": "json",
            "safesearch": str(_SAFE_LEVEL[config.safe]),
        },
        headers=_bearer(config),
    )


def _brave(call: SearchCall, config: WebSearch) -> EngineRequest:
    query = " ".join(_with_sites(call).split()[:_MAX_BRAVE_WORDS])[:_MAX_BRAVE_CHARS]
    return EngineRequest(
        query={"q": query, "count": str(config.max_results), "safesearch": config.safe},
        headers={"X-Subscription-Token": _key(config)},
    )


def _tavily(call: SearchCall, config: WebSearch) -> EngineRequest:
    body: dict[str, Any] = {"query": call.query, "max_results": config.max_results}
    _add_domains(body, call, "include_domains", "exclude_domains")
    return EngineRequest(body=body, headers=_bearer(config))


def _serper(call: SearchCall, config: WebSearch) -> EngineRequest:
    body: dict[str, Any] = {"q": _with_sites(call), "num": config.max_results}
    if config.safe != "off":
        body["safe"] = "active"
    return EngineRequest(body=body, headers={"X-API-KEY": _key(config)})


def _exa(call: SearchCall, config: WebSearch) -> EngineRequest:
    body: dict[str, Any] = {
        "query": call.query,
        "numResults": config.max_results,
        "contents": {"text": {"maxCharacters": _EXA_CHARS}},
    }
    if config.safe != "off":
        body["moderation"] = True
    _add_domains(body, call, "includeDomains", "excludeDomains")
    return EngineRequest(body=body, headers={"x-api-key": _key(config)})


def _kimi_code(call: SearchCall, config: WebSearch) -> EngineRequest:
    body = {
        "text_query": call.query,
        "limit": config.max_results,
        "enable_page_crawling": False,
        "timeout_seconds": min(30, int(config.timeout_s) or 1),
    }
    return EngineRequest(body=body, headers=_bearer(config))


ENGINES: Mapping[str, Engine] = {
    "searxng": Engine(_searxng, "results", ("results",), ("title", "url", "content", "publishedDate")),
    "brave": Engine(_brave, "type", ("web", "results"), ("title", "url", "description", "age")),
    "tavily": Engine(_tavily, "results", ("results",), ("title", "url", "content", "published_date")),
    "serper": Engine(_serper, "searchParameters", ("organic",), ("title", "link", "snippet", "date")),
    "exa": Engine(_exa, "results", ("results",), ("title", "url", "text", "publishedDate")),
    # The search of an upstream (`proxyd.server_tools.web_search.kimi`); models.yaml cannot name it.
    "kimi-code": Engine(
        _kimi_code, "search_results", ("search_results",), ("title", "url", "snippet", "date")
    ),
}


def _with_sites(call: SearchCall) -> str:
    allowed = " OR ".join(f"site:{domain}" for domain in call.allowed[:_MAX_SITES])
    parts: Iterable[str] = (
        call.query,
        f"({allowed})" if " OR " in allowed else allowed,
        *(f"-site:{domain}" for domain in call.blocked[:_MAX_SITES]),
    )
    return " ".join(part for part in parts if part)


def _add_domains(body: dict[str, Any], call: SearchCall, include: str, exclude: str) -> None:
    if call.allowed:
        body[include] = list(call.allowed)
    if call.blocked:
        body[exclude] = list(call.blocked)


def _key(config: WebSearch) -> str:
    return config.key.reveal() if config.key is not None else ""


def _bearer(config: WebSearch) -> dict[str, str]:
    return {"Authorization": f"Bearer {config.key.reveal()}"} if config.key is not None else {}
