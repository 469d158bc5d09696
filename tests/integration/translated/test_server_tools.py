"""What Anthropic's servers do beside the model, on routes whose upstreams do not: answered here, without a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.support.harness import Upstream, running_proxy, running_upstream
from tests.support.search_engines import RESPONSES

SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
MODES = ("translated", "direct")


@asynccontextmanager
async def upstream_that_is_not_called(mode: str, **entry: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "the upstream was called"}}, status=500)

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct", **entry}
        async with running_proxy([entry]) as base:
            async with anthropic.AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as client:
                yield client
        assert upstream.requests == []


@pytest.mark.parametrize("choice", [{"type": "auto"}, {"type": "tool", "name": "web_search"}])
async def test_a_web_search_is_said_to_be_unavailable(choice: Any) -> None:
    question = [{"role": "user", "content": "Perform a web search for the query: rust 2026"}]
    async with upstream_that_is_not_called("translated") as client:
        whole = await client.messages.create(
            model="m", max_tokens=100, messages=question, tools=[SEARCH], tool_choice=choice
        )
        async with client.messages.stream(
            model="m", max_tokens=100, messages=question, tools=[SEARCH], tool_choice=choice
        ) as stream:
            streamed = await stream.get_final_message()
    for message in (whole, streamed):
        use, result, text = message.content
        assert (use.type, use.input) == ("server_tool_use", {"query": "rust 2026"})
        assert (result.tool_use_id, result.content.error_code) == (use.id, "unavailable")
        assert "No web search was made" in text.text
        assert message.stop_reason == "end_turn"


QUESTION = [{"role": "user", "content": "Perform a web search for the query: rust news"}]


@asynccontextmanager
async def engine_and_model(
    mode: str, *, status: int = 200
) -> AsyncIterator[tuple[Upstream, anthropic.AsyncAnthropic]]:
    """A search engine, and a proxy with a model whose upstream must not be called."""

    async def search(_: web.Request) -> web.StreamResponse:
        return web.json_response(RESPONSES["searxng"], status=status)

    async with running_upstream(search) as engine:
        async with upstream_that_is_not_called(
            mode, web_search={"engine": "searxng", "url": engine.base}
        ) as client:
            yield engine, client


@pytest.mark.parametrize("mode", MODES)
async def test_a_web_search_is_answered_by_the_engine(mode: str) -> None:
    tools = [{**SEARCH, "allowed_domains": ["a.example"]}]
    async with engine_and_model(mode) as (engine, client):
        whole = await client.messages.create(model="m", max_tokens=100, messages=QUESTION, tools=tools)
        async with client.messages.stream(
            model="m", max_tokens=100, messages=QUESTION, tools=tools
        ) as stream:
            streamed = await stream.get_final_message()
    for message in (whole, streamed):
        use, found, text = message.content
        assert (use.type, use.input) == ("server_tool_use", {"query": "rust news"})
        assert [(each.title, each.url) for each in found.content] == [("First", "https://a.example/1")]
        assert "The first text." in text.text
        assert message.usage.server_tool_use is None  # it would be billed
    assert len(engine.requests) == 2


async def test_the_model_reads_why_an_engine_failed_and_the_log_has_no_query() -> None:
    with capture_logs() as lines:
        async with engine_and_model("translated", status=403) as (_, client):
            message = await client.messages.create(
                model="m", max_tokens=100, messages=QUESTION, tools=[SEARCH]
            )
    _, result, text = message.content
    assert result.content.error_code == "unavailable"
    assert "allow the format json" in text.text
    (line,) = [line for line in lines if line["event"] == "web_search.failed"]
    assert "rust news" not in str(line)


async def test_the_query_is_streamed_before_the_search_has_ended() -> None:
    may_end = asyncio.Event()

    async def search(_: web.Request) -> web.StreamResponse:
        await may_end.wait()
        return web.json_response(RESPONSES["searxng"])

    async with running_upstream(search) as engine:
        config = {"engine": "searxng", "url": engine.base}
        async with upstream_that_is_not_called("translated", web_search=config) as client:
            async with client.messages.stream(
                model="m", max_tokens=100, messages=QUESTION, tools=[SEARCH]
            ) as stream:
                async for event in stream:
                    if event.type == "input_json":
                        break
                assert event.partial_json == '{"query":"rust news"}'
                may_end.set()
                message = await stream.get_final_message()
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("filler", [0, 300_000])
@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}])
async def test_a_thread_is_refused_as_the_sdks_expect(mode: str, thread: Any, filler: int) -> None:
    async with upstream_that_is_not_called(mode) as client:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await client.messages.create(
                model="m",
                max_tokens=100,
                messages=[{"role": "user", "content": "hi " + "x" * filler}],
                extra_body={"thread": thread},
                extra_headers={"x-claude-code-session-id": "s1"},
            )
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
