"""WebSearch answered by the upstream's own search: how each vendor is asked, and what becomes of its sources."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from aiohttp import web

from proxyd.providers.profile import SEARCH_WAYS
from proxyd.providers.registry import PROFILES
from proxyd.providers.upstream_search import KIMI, UpstreamSearch, can_search, searching_route
from proxyd.telemetry import ledger_queries
from proxyd.telemetry.ledger_schema import FILE
from tests.support.harness import (
    Upstream,
    chunk,
    load_entries,
    running_proxy,
    running_upstream,
    sse,
    text_stream,
)

SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
NOTE = {"name": "note", "input_schema": {"type": "object"}}
QUESTION: list[Any] = [{"role": "user", "content": "Perform a web search for the query: rust news"}]
URL = "https://a.example/1"


def stream(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/event-stream")


def completed(call: dict[str, Any], text: dict[str, Any]) -> web.Response:
    """A stream of the Responses API with a search and a message."""
    event = {
        "type": "response.completed",
        "response": {
            "id": "r",
            "status": "completed",
            "output": [
                {"type": "web_search_call", "id": "ws_1", "status": "completed", **call},
                {"type": "message", "role": "assistant", "content": [text]},
            ],
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
    }
    return stream(b"event: response.completed\ndata: %b\n\n" % json.dumps(event).encode())


async def openrouter(_: web.Request) -> web.StreamResponse:
    citation = {"type": "url_citation", "url_citation": {"url": URL, "title": "One", "content": "The text."}}
    return stream(
        sse(chunk({"content": "It is 2.0."}), chunk({"annotations": [citation]}), chunk({}, "stop"))
    )


async def responses(_: web.Request) -> web.StreamResponse:
    annotation = {"type": "url_citation", "url": URL, "title": "One", "start_index": 0, "end_index": 2}
    text = {"type": "output_text", "text": "It is 2.0.", "annotations": [annotation]}
    return completed({"action": {"type": "search"}}, text)


async def glm(request: web.Request) -> web.StreamResponse:
    assert (await request.json())["stream"] is False
    message = {"role": "assistant", "content": "It is 2.0."}
    return web.json_response(
        {
            "id": "c",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "web_search": [{"link": URL, "title": "One", "content": "The text.", "publish_date": "2026"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        }
    )


async def gemini(_: web.Request) -> web.StreamResponse:
    candidate = {
        "content": {"role": "model", "parts": [{"text": "It is 2.0."}]},
        "finishReason": "STOP",
        "groundingMetadata": {"groundingChunks": [{"web": {"uri": URL, "title": "One"}}]},
    }
    return stream(b"data: %b\n\n" % json.dumps({"candidates": [candidate]}).encode())


async def dashscope(request: web.Request) -> web.StreamResponse:
    assert request.path == "/v1/responses"
    action = {"type": "search", "query": "rust news", "sources": [{"type": "url", "url": URL}]}
    text = {"type": "output_text", "text": "It is 2.0.", "annotations": []}
    return completed({"action": action}, text)


#: What Kimi's search puts out for the model alone.
ENCRYPTED = "----MOONSHOT ENCRYPTED BEGIN----abc----MOONSHOT ENCRYPTED END----"


def kimi(references: list[Any], words: str = f"It is 2.0, says [One]({URL}).") -> Callable[..., Any]:
    """Return an upstream with Kimi's official search."""

    async def respond(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/fibers"):
            assert request.headers["authorization"] == "Bearer any"
            assert await request.json() == {"name": "web_search", "arguments": '{"query":"rust news"}'}
            context = {"encrypted_output": ENCRYPTED, "references": references}
            return web.json_response({"id": "fiber-1", "status": "succeeded", "context": context})
        messages = (await request.json())["messages"]
        assert [each["role"] for each in messages] == ["user", "assistant", "tool"]
        assert messages[2]["content"] == ENCRYPTED
        return stream(text_stream(words))

    return respond


#: Way -> the keys of its entry, the upstream, and the tools that it is sent.
WAYS: dict[str, tuple[dict[str, Any], Callable[[web.Request], Any], list[Any]]] = {
    "openrouter": (
        {"provider": "openrouter"},
        openrouter,
        [
            {
                "type": "openrouter:web_search",
                "parameters": {"max_results": 8, "max_uses": 1, "allowed_domains": ["a.example"]},
            }
        ],
    ),
    "responses": (
        {"provider": "openai", "format": "openai-responses"},
        responses,
        [{"type": "web_search", "filters": {"allowed_domains": ["a.example"]}}],
    ),
    "glm": (
        {"provider": "zhipu"},
        glm,
        [
            {
                "type": "web_search",
                "web_search": {
                    "enable": True,
                    "search_engine": "search_std",
                    "search_result": True,
                    "search_intent": False,
                    "count": 8,
                    "search_domain_filter": "a.example",
                },
            }
        ],
    ),
    "gemini": ({"provider": "gemini", "format": "gemini"}, gemini, [{"googleSearch": {}}]),
    "dashscope": ({"provider": "dashscope"}, dashscope, [{"type": "web_search"}]),
}


@asynccontextmanager
async def setting(
    handler: Callable[[web.Request], Any], entry: Mapping[str, Any], **options: Any
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Upstream]]:
    async with running_upstream(handler) as upstream:
        whole = {
            "model_id": "m",
            "api_base": f"{upstream.base}/v1",
            "web_search": {"engine": "upstream"},
            **entry,
        }
        async with running_proxy([whole], max_retries=0, **options) as base:
            async with anthropic.AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as client:
                yield client, upstream


async def ask(client: anthropic.AsyncAnthropic, *tools: Any) -> Any:
    request: Any = {"model": "m", "max_tokens": 100, "messages": QUESTION, "tools": list(tools)}
    async with client.messages.stream(**request) as streamed:
        return await streamed.get_final_message()


def test_every_way_is_tried() -> None:
    assert (*WAYS, KIMI) == SEARCH_WAYS


@pytest.mark.parametrize("way", WAYS)
async def test_sources_become_results(way: str) -> None:
    entry, handler, tools = WAYS[way]
    async with setting(handler, entry) as (client, upstream):
        message = await ask(client, {**SEARCH, "allowed_domains": ["a.example"]})
    use, found, text = message.content
    assert (use.type, use.input) == ("server_tool_use", {"query": "rust news"})
    title = URL if way == "dashscope" else "One"
    assert [(each.title, each.url) for each in found.content] == [(title, URL)]
    assert text.text.startswith(f"It is 2.0.\n\nSources:\n1. {title}")
    assert message.usage.server_tool_use is None
    (sent,) = upstream.requests
    assert sent["tools"] == tools
    assert "Perform a web search for the query: rust news" in json.dumps(sent)


async def test_results_outside_of_the_domains_are_left_out() -> None:
    async with setting(openrouter, {"provider": "openrouter"}) as (client, _):
        message = await ask(client, {**SEARCH, "blocked_domains": ["a.example"]})
    assert message.content[1].content.error_code == "unavailable"


async def words(_: web.Request) -> web.StreamResponse:
    return stream(text_stream("Rust 9 is out, I believe."))


async def refuse(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no such key"}}, status=401)


@pytest.mark.parametrize(
    ("handler", "entry", "why"),
    [
        (words, {"provider": "openrouter"}, "named no source"),
        (refuse, {"provider": "openrouter"}, "no such key"),
        (words, {"provider": "deepseek"}, "is not known to search the web"),
    ],
)
async def test_without_a_source_nothing_is_made_up(
    handler: Callable[[web.Request], Any], entry: Mapping[str, Any], why: str
) -> None:
    async with setting(handler, entry) as (client, _):
        message = await ask(client, SEARCH)
    _, found, text = message.content
    assert found.content.error_code == "unavailable"
    assert why in text.text
    assert "Rust 9" not in text.text


async def test_among_other_tools_the_upstream_searches_in_a_call_of_its_own() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "web_search", "arguments": '{"query": "q"}'}}

    async def model(request: web.Request) -> web.StreamResponse:
        tools = (await request.json())["tools"]
        if any(tool["type"] != "function" for tool in tools):
            return await openrouter(request)
        if "The text." in (await request.text()):
            return stream(text_stream("So it is 2.0."))
        return stream(sse(chunk({"tool_calls": [call]}), chunk({}, "tool_calls")))

    async with setting(model, {"provider": "openrouter"}) as (client, upstream):
        message = await ask(client, NOTE, SEARCH)
    assert [block.type for block in message.content] == ["server_tool_use", "web_search_tool_result", "text"]
    assert message.content[-1].text == "So it is 2.0."
    assert len(upstream.requests) == 3


async def test_the_call_is_in_the_ledger(tmp_path: Path) -> None:
    async with setting(openrouter, {"provider": "openrouter"}, state_folder=tmp_path) as (client, _):
        await ask(client, SEARCH)
    database = ledger_queries.open_ledger(tmp_path / FILE)
    kinds = [call["kind"] for call in ledger_queries.last_calls(database, 0)]
    database.close()
    assert kinds == ["search", "search"]


@pytest.mark.parametrize(
    ("references", "words", "found"),
    [
        ([], f"It is 2.0, says [One]({URL}), or [so](https://b.example/2).", [("One", URL)]),
        ([{"url": URL}, "https://a.example/3"], "It is 2.0.", [(URL, URL), ("https://a.example/3",) * 2]),
        ([URL], f"It is 2.0, says [One]({URL}).", [("One", URL)]),
    ],
)
async def test_kimi_searches_by_its_official_tool(
    references: list[Any], words: str, found: list[tuple[str, str]]
) -> None:
    async with setting(kimi(references, words), {"provider": "moonshot"}) as (client, upstream):
        message = await ask(client, {**SEARCH, "allowed_domains": ["a.example"]})
    assert [(each.title, each.url) for each in message.content[1].content] == found
    assert message.content[2].text.startswith(words)
    assert len(upstream.requests) == 2


async def test_a_membership_of_kimi_has_a_search_with_results() -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.path == "/coding/v1/search"
        assert (request.headers["authorization"], request.headers["x-a"]) == ("Bearer any", "b")
        assert (await request.json())["text_query"] == "rust news"
        found = {"site_name": "A", "title": "One", "url": URL, "snippet": "The text.", "date": "2026-05-01"}
        return web.json_response({"search_results": [found]})

    async with running_upstream(respond) as upstream:
        entry = {
            "model_id": "m",
            "api_base": f"{upstream.base}/coding/v1",
            "provider": "moonshot",
            "extra_headers": {"x-a": "b"},
            "web_search": {"engine": "upstream"},
        }
        async with running_proxy([entry]) as base:
            async with anthropic.AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as client:
                message = await ask(client, SEARCH)
    assert [(each.title, each.url, each.page_age) for each in message.content[1].content] == [
        ("One", URL, "2026-05-01")
    ]
    assert "The text." in message.content[2].text
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("response", "why"),
    [
        ({"status": 401, "text": "{}"}, "responded with status 401; check api_key of the entry"),
        (
            {"status": 302, "headers": {"Location": "http://10.0.0.1/"}},
            "write the right api_base of the entry",
        ),
        ({"text": "<html>"}, "something else than JSON"),
        ({"text": '{"status": "failed", "context": {"error": "x"}}'}, "did not succeed"),
        ({"text": '{"status": "succeeded", "context": {"output": " "}}'}, "returned nothing"),
        ({"text": "[]"}, "did not succeed"),
    ],
)
async def test_what_is_wrong_with_kimis_search_is_said(response: dict[str, Any], why: str) -> None:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(**response)

    async with setting(respond, {"provider": "moonshot"}) as (client, upstream):
        message = await ask(client, SEARCH)
    assert message.content[1].content.error_code == "unavailable"
    assert why in message.content[2].text
    assert len(upstream.requests) == 1


async def test_kimis_words_without_a_source_are_not_shown() -> None:
    async with setting(kimi([], "Rust 9 is out."), {"provider": "moonshot"}) as (client, _):
        message = await ask(client, SEARCH)
    assert "named no source" in message.content[2].text
    assert "Rust 9" not in message.content[2].text


async def test_an_anthropic_key_does_not_go_to_kimis_search() -> None:
    async with running_upstream(kimi([])) as upstream:
        entry = {
            "model_id": "m",
            "api_base": f"{upstream.base}/v1",
            "provider": "moonshot",
            "web_search": {"engine": "upstream"},
        }
        async with running_proxy([entry]) as base:
            key = "sk-ant-api03-0123456789"
            async with anthropic.AsyncAnthropic(base_url=base, api_key=key, max_retries=0) as client:
                message = await ask(client, SEARCH)
    assert upstream.requests == []
    assert message.content[1].content.error_code == "unavailable"


@pytest.mark.parametrize("provider", PROFILES)
def test_profiles_name_known_ways(provider: str) -> None:
    for format_name, way in PROFILES[provider].searches.items():
        (route,) = load_entries(
            [{"model_id": "m", "api_base": "http://h/v1", "provider": provider, "format": format_name}]
        ).config.table.routes
        assert way in SEARCH_WAYS
        assert can_search(route)
        searching = searching_route(route, UpstreamSearch())
        assert (searching is None) is (way == KIMI)
        assert searching is None or "tools" in searching.extra_body
