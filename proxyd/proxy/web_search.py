"""Answer Claude Code's WebSearch by the search engine of the entry, without asking a model; searches among other tools
are made for the model (`proxyd.proxy.search_rounds`).

The engine's address is the only one that is called: redirects are not followed, and no result is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp import web

from proxyd import jsonio
from proxyd.codecs.anthropic.events import StreamEvent
from proxyd.config.routes import ModelRoute
from proxyd.config.settings import Settings
from proxyd.config.web_search import UPSTREAM, WebSearch
from proxyd.errors import ProxyError
from proxyd.logs.setup import get_logger
from proxyd.providers.translated_request import key_for
from proxyd.providers.upstream_search import KIMI, UpstreamSearch, can_search, way_of
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.local_response import respond_locally
from proxyd.proxy.on_behalf import InnerCall
from proxyd.proxy.search_rounds import SearchRounds
from proxyd.server_tools.web_search import kimi
from proxyd.server_tools.web_search.among_tools import OfferedSearch
from proxyd.server_tools.web_search.blocks import beginning, ending_with_error, ending_with_results
from proxyd.server_tools.web_search.engines import ENGINES, EngineRequest, Result, SearchFailed
from proxyd.server_tools.web_search.side_call import SearchCall, is_search_call
from proxyd.telemetry.call_record import new_id
from proxyd.urls import address_of

__all__ = ["WebSearches", "search"]

log = get_logger("web_search")

#: Most bytes of an engine's response: eight results with their texts are some 20 kB.
_MAX_RESPONSE_BYTES = 2 << 20
#: Output of an upstream that searches itself, its thinking included.
_MAX_TOKENS = 4096
#: What the main model is to do where nothing was searched.
_ADVICE = "Answer without it, and say that nothing was searched."


class WebSearches:
    """Answers the calls that search.

    Args:
        make_call: makes a call of the proxy's own.
        settings: returns those in force.
    """

    def __init__(
        self, make_call: Callable[[InnerCall], Awaitable[dict[str, Any]]], settings: Callable[[], Settings]
    ) -> None:
        self._make_call = make_call
        self._settings = settings

    async def respond(self, route: ModelRoute, call: ActiveCall) -> web.StreamResponse | None:
        """Respond to a call that searches; None for any other call, and where the upstream searches by itself."""
        settings = self._settings()
        config = WebSearch.of(
            settings.web_search,
            settings.web_search_key,
            route.web_search,
            route.web_search_key,
            is_direct=route.direct,
        )
        if config is None or not call.request.is_message:
            return None
        can_search_for_model = bool(config.engine) and not route.direct
        offered = OfferedSearch.among_tools(call.request.payload) if can_search_for_model else None
        if offered is not None:
            return await self._respond_in_rounds(offered, config, route, call)
        if not is_search_call(call.request.payload):
            return None
        wanted = SearchCall.of(call.request.payload)
        return await respond_locally(call, self._events(config, wanted, route, call))

    async def _respond_in_rounds(
        self, offered: OfferedSearch, config: WebSearch, route: ModelRoute, call: ActiveCall
    ) -> web.StreamResponse:
        async def make_search(wanted: SearchCall) -> list[Result]:
            results, answer = await self._results(config, wanted, route, call)
            if answer and results and not any(result.text for result in results):
                results[0] = replace(results[0], text=answer)
            return results

        rounds = SearchRounds(offered, make_search, self._make_call, route, call, self._settings().commit_s)
        async with aclosing(rounds.events()) as events:
            return await respond_locally(call, events)

    async def _events(
        self, config: WebSearch, wanted: SearchCall, route: ModelRoute, call: ActiveCall
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        message_id = new_id("msg_", 22)
        yield beginning(message_id, call.request.model, wanted.query)
        try:
            results, answer = await self._results(config, wanted, route, call)
            yield ending_with_results(message_id, wanted.query, results, answer)
        except SearchFailed as exc:
            yield ending_with_error(message_id, exc.code, f"No web search was made: {exc}. {_ADVICE}")

    async def _results(
        self, config: WebSearch, wanted: SearchCall, route: ModelRoute, call: ActiveCall
    ) -> tuple[list[Result], str]:
        """Make a search for a call, and log why it failed if it did; return what the upstream says to it as well.

        Raises:
            SearchFailed: there are no results.
        """
        try:
            if config.engine == UPSTREAM:
                _check_query(wanted)
                return await self._ask_upstream(config, wanted, route, call)
            return await _checked_results(config, wanted, route), ""
        except SearchFailed as exc:
            if config.engine:
                log.warning(
                    "web_search.failed",
                    request_id=call.record.request_id,
                    route=route.model_id,
                    engine=config.engine,
                    why=str(exc),
                )
            raise

    async def _ask_upstream(
        self, config: WebSearch, wanted: SearchCall, route: ModelRoute, call: ActiveCall
    ) -> tuple[list[Result], str]:
        """Have the entry's upstream search; return its sources, and its words.

        Raises:
            SearchFailed: it cannot search, failed, or named no source: its words may be made up then.
        """
        if not can_search(route):
            raise SearchFailed(
                f"the upstream of model {route.model_id!r} is not known to search the web; set web_search: "
                "{engine: searxng, url: ADDRESS}, or another engine with its api_key"
            )
        if way_of(route) == KIMI:
            return await self._ask_kimi(config, wanted, route, call)
        search = UpstreamSearch(wanted.allowed, wanted.blocked, config.max_results)
        text = f"Perform a web search for the query: {wanted.query}\n\nThen say briefly what the results say."
        payload = {
            "model": route.model_id,
            "max_tokens": _MAX_TOKENS,
            "stream": False,
            "messages": [{"role": "user", "content": text}],
        }
        answer = await self._answer(payload, config, call, search)
        found = search.citations.found.values()
        results = [Result(each.title or each.url, each.url, each.text, each.date) for each in found]
        return _allowed(results, wanted, config), answer

    async def _ask_kimi(
        self, config: WebSearch, wanted: SearchCall, route: ModelRoute, call: ActiveCall
    ) -> tuple[list[Result], str]:
        """Have Kimi search (`proxyd.server_tools.web_search.kimi`).

        Raises:
            SearchFailed: it failed, or named no source.
        """
        try:
            key = key_for(route, route.api_base, call.keys)
        except ProxyError as exc:
            raise SearchFailed(f"the upstream's own search failed: {call.log_message(exc)}") from None
        asked = replace(
            config, engine=kimi.MEMBERSHIP, url=kimi.membership_url(route.api_base) or "", key=key
        )
        if asked.url:
            return await search(asked, wanted, route.extra_headers), ""
        place = f"Kimi's search ({address_of(route.api_base)})"
        headers = {"Authorization": f"Bearer {key.reveal()}"} if key is not None else {}
        request = EngineRequest(
            body=kimi.fiber_request(wanted.query), headers={**headers, **route.extra_headers}
        )
        status, body = await _fetch(request, kimi.fiber_url(route.api_base), place, config.timeout_s)
        if status != 200:
            raise _refusal(asked, place, status)
        try:
            output, urls = kimi.read_fiber(jsonio.loads(body))
        except jsonio.JSONError:
            raise SearchFailed(f"{place} responded with something else than JSON") from None
        payload = kimi.answer_request(route.model_id, wanted.query, output, _MAX_TOKENS)
        answer = await self._answer(payload, config, call)
        links = {each.url: each for each in kimi.links_in(answer)}
        results = [links.pop(url, Result(url, url)) for url in dict.fromkeys(urls)]
        return _allowed([*results, *links.values()], wanted, config), answer

    async def _answer(
        self,
        payload: dict[str, Any],
        config: WebSearch,
        call: ActiveCall,
        search: UpstreamSearch | None = None,
    ) -> str:
        """Make a call to the entry's own model for a search, and return its words."""
        inner = InnerCall(payload, "search", call.record, call.keys, {}, config.timeout_s, search=search)
        try:
            message = await self._make_call(inner)
        except ProxyError as exc:
            raise SearchFailed(f"the upstream's own search failed: {call.log_message(exc)}") from None
        blocks = [block for block in message["content"] if isinstance(block, dict)]
        return "\n".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")


def _allowed(results: list[Result], wanted: SearchCall, config: WebSearch) -> list[Result]:
    """Return the results that the client's domains allow.

    Raises:
        SearchFailed: there are none: the model's words may be made up then.
    """
    allowed = [each for each in results if wanted.allows(each.url)]
    if not allowed:
        raise SearchFailed("the upstream's own search named no source")
    return allowed[: config.max_results]


async def search(
    config: WebSearch, call: SearchCall, headers: Mapping[str, str] | None = None
) -> list[Result]:
    """Make one search, and return at most `max_results` results that the client's domains allow.

    Args:
        headers: further ones.

    Raises:
        SearchFailed: the engine refused, did not respond in time, or responded with something else than results.
    """
    engine = ENGINES[config.engine]
    asked, place = engine.request(call, config), f"{config.engine} ({address_of(config.url)})"
    url = f"{config.url}/search" if config.engine == "searxng" else config.url
    if headers:
        asked = replace(asked, headers={**(asked.headers or {}), **headers})
    status, body = await _fetch(asked, url, place, config.timeout_s)
    if status != 200:
        raise _refusal(config, place, status)
    try:
        results = engine.read(jsonio.loads(body))
    except jsonio.JSONError:
        results = None
    if results is None:
        raise SearchFailed(
            f"{place} responded with something else than results; check {_keys_of(config.engine)[0]}"
        )
    return [result for result in results if call.allows(result.url)][: config.max_results]


async def _fetch(asked: EngineRequest, url: str, place: str, timeout_s: float) -> tuple[int, bytes]:
    """Make one request; return status and body.

    Raises:
        SearchFailed: it failed, or the body is too large.
    """
    try:
        # Without a cookie jar and its own connections: a search is rare, and shares nothing with another.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            async with session.request(
                "GET" if asked.body is None else "POST",
                url,
                params=asked.query,
                json=asked.body,
                headers=asked.headers,
                allow_redirects=False,
            ) as response:
                return response.status, await _read(response, place)
    except asyncio.TimeoutError:
        raise SearchFailed(f"{place} did not respond within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError) as exc:
        raise SearchFailed(
            f"{place} could not be reached ({type(exc).__name__}); check its address"
        ) from None


async def _checked_results(config: WebSearch, wanted: SearchCall, route: ModelRoute) -> list[Result]:
    if not config.engine:
        raise SearchFailed(
            f"model {route.model_id!r} is served by an upstream that cannot search the web, and models.yaml names no "
            "search engine; to have one, set web_search: {engine: searxng, url: ADDRESS} under settings, or another "
            "engine with its api_key"
        )
    if config.missing_key is not None:
        raise SearchFailed(f"the search engine {config.engine} has no key: {config.missing_key}")
    _check_query(wanted)
    return await search(config, wanted)


def _check_query(wanted: SearchCall) -> None:
    if wanted.is_exhausted:
        raise SearchFailed("the request allows no search (max_uses: 0)", "max_uses_exceeded")
    if not wanted.query:
        raise SearchFailed("the request has no query", "invalid_tool_input")


async def _read(response: aiohttp.ClientResponse, place: str) -> bytes:
    body = bytearray()
    async for data in response.content.iter_chunked(1 << 16):
        body += data
        if len(body) > _MAX_RESPONSE_BYTES:
            raise SearchFailed(f"{place} responded with more than {_MAX_RESPONSE_BYTES >> 20} MiB")
    return bytes(body)


def _refusal(config: WebSearch, place: str, status: int) -> SearchFailed:
    message, code = f"{place} responded with status {status}", "unavailable"
    if status == 429:
        return SearchFailed(f"{message}: its limit is reached", "too_many_requests")
    if 300 <= status < 400:
        return SearchFailed(
            f"{message}, a redirect, which is not followed; write the right {_keys_of(config.engine)[0]}",
            code,
        )
    if status == 403 and config.engine == "searxng":
        return SearchFailed(f"{message}; allow the format json in its settings.yml (search: formats)", code)
    if status in (401, 403):
        return SearchFailed(f"{message}; check {_keys_of(config.engine)[1]}", code)
    return SearchFailed(message, code)


def _keys_of(engine: str) -> tuple[str, str]:
    """Return where models.yaml has the address of an engine, and its key."""
    if engine == kimi.MEMBERSHIP:
        return "api_base of the entry", "api_key of the entry"
    return "web_search.url", "web_search.api_key"
