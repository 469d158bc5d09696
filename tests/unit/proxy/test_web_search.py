"""One search by each engine, from a server with recorded responses, and everything that an engine does wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from proxyd.config.web_search import ENGINES, WebSearch
from proxyd.proxy.web_search import search
from proxyd.secret import Secret
from proxyd.server_tools.web_search.engines import SearchFailed
from proxyd.server_tools.web_search.side_call import SearchCall
from tests.support.harness import running_upstream
from tests.support.search_engines import RESPONSES

KEY = "search-engine-key-1"
CALL = SearchCall("a secret question")


async def searched(
    engine: str, response: web.StreamResponse, call: SearchCall = CALL, **more: Any
) -> tuple[list[str], Any]:
    async def respond(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.path))
        return response

    seen: list[Any] = []
    async with running_upstream(respond) as server:
        found = await search(WebSearch(engine, server.base, Secret(KEY), **more), call)
    assert KEY in str(server.headers)
    return [result.url for result in found], seen


@pytest.mark.parametrize("engine", ENGINES)
async def test_each_engine_is_asked_and_its_results_are_read(engine: str) -> None:
    urls, seen = await searched(engine, web.json_response(RESPONSES[engine]))
    assert urls == ["https://a.example/1", "https://b.example/2"]
    method = "GET" if engine in ("searxng", "brave") else "POST"
    assert seen == [(method, "/search" if engine == "searxng" else "/")]


async def test_results_beyond_the_limit_are_left_out() -> None:
    urls, _ = await searched("tavily", web.json_response(RESPONSES["tavily"]), max_results=1)
    assert urls == ["https://a.example/1"]


async def test_results_outside_the_domains_are_left_out() -> None:
    call = SearchCall("q", allowed=("b.example",))
    assert (await searched("tavily", web.json_response(RESPONSES["tavily"]), call))[0] == [
        "https://b.example/2"
    ]


@pytest.mark.parametrize(
    ("engine", "response", "code", "words"),
    [
        ("tavily", {"status": 429}, "too_many_requests", "limit"),
        ("tavily", {"status": 401}, "unavailable", "check web_search.api_key"),
        ("searxng", {"status": 403}, "unavailable", "allow the format json"),
        (
            "searxng",
            {"status": 302, "headers": {"Location": "http://10.0.0.1/"}},
            "unavailable",
            "redirect",
        ),
        ("tavily", {"status": 500}, "unavailable", "status 500"),
        ("tavily", {"text": "<html>no</html>"}, "unavailable", "something else than results"),
        ("tavily", {"text": '{"detail": "x"}'}, "unavailable", "something else than results"),
        ("tavily", {"body": b"[" + b"1," * (3 << 20) + b"1]"}, "unavailable", "more than 2 MiB"),
    ],
)
async def test_what_goes_wrong_is_said_with_the_address_and_without_the_query(
    engine: str, response: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(SearchFailed) as caught:
        await searched(engine, web.Response(**response))
    message = str(caught.value)
    assert caught.value.code == code
    assert words in message
    assert f"{engine} (http://127.0.0.1:" in message
    assert "secret" not in message
    assert KEY not in message


async def test_an_engine_that_does_not_respond_in_time_is_given_up() -> None:
    async def respond(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with running_upstream(respond) as server:
        with pytest.raises(SearchFailed, match=r"did not respond within 0\.2 s"):
            await search(WebSearch("searxng", server.base, timeout_s=0.2), CALL)


async def test_an_engine_that_is_off_is_named() -> None:
    with pytest.raises(SearchFailed, match=r"searxng \(http://127\.0\.0\.1:9\) could not be reached"):
        await search(WebSearch("searxng", "http://127.0.0.1:9"), CALL)
