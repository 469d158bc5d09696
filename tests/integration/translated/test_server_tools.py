"""What Anthropic's servers do beside the model, on routes whose upstreams do not: answered here, without a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from aiohttp import web

from tests.support.harness import running_proxy, running_upstream

SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
MODES = ("translated", "direct")


@asynccontextmanager
async def upstream_that_is_not_called(mode: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "the upstream was called"}}, status=500)

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
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
