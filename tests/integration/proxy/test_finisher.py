"""The end of a message waits for a finisher; everything before it does not."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.daemon import server
from proxyd.proxy.relay import Relay
from tests.support.harness import chunk, running_proxy, running_upstream, sse
from tests.support.sse_reader import message_of, read_events

CALL = chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "Bash", "arguments": '{"a":1}'}}]})
STREAM = sse(CALL, chunk({}, "tool_calls"))
TOOLS = [{"name": "Bash", "input_schema": {"type": "object"}}]
REQUEST = {
    "model": "m",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
    "tools": TOOLS,
}


@asynccontextmanager
async def proxy_with(
    finisher: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    **settings: Any,
) -> AsyncIterator[str]:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(body=STREAM, content_type="text/event-stream")

    patched = functools.partial(Relay, finisher_for=lambda route, call: finisher)
    monkeypatch.setattr(server, "Relay", patched)
    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1"}
        async with running_proxy([entry], **settings) as base:
            yield f"{base}/v1/messages"


async def _results(message: dict[str, Any]) -> dict[str, Any]:
    (call,) = [block for block in message["content"] if block["type"] == "tool_use"]
    return {"safeguard_results": [{"id": call["id"], "input": call["input"], "saw": message["stop_reason"]}]}


@pytest.mark.parametrize("wants_stream", [True, False])
async def test_its_result_is_in_the_end_of_the_message(
    wants_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy_with(_results, monkeypatch) as url, aiohttp.ClientSession() as client:
        async with client.post(url, json={**REQUEST, "stream": wants_stream}) as response:
            body = await response.read()
    if wants_stream:
        (delta,) = [json.loads(data) for name, data in read_events(body) if name == "message_delta"]
        message, found = message_of(body), delta["delta"]
    else:
        message = found = json.loads(body)
    (call,) = message["content"]
    assert found["stop_reason"] == "tool_use"
    assert found["safeguard_results"] == [{"id": call["id"], "input": {"a": 1}, "saw": "tool_use"}]


async def test_tool_blocks_and_pings_are_sent_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = asyncio.Event()

    async def wait(message: dict[str, Any]) -> dict[str, Any]:
        await may_end.wait()
        return {}

    async with proxy_with(wait, monkeypatch, ping_s=0.05) as url, aiohttp.ClientSession() as client:
        async with client.post(url, json={**REQUEST, "stream": True}) as response:
            seen = b""
            while b"content_block_stop" not in seen or b"event: ping" not in seen:
                seen += await asyncio.wait_for(response.content.readany(), 30)
            assert b"message_delta" not in seen
            may_end.set()
            seen += await response.read()
    assert [name for name, _ in read_events(seen) if name != "ping"][-2:] == ["message_delta", "message_stop"]


async def test_it_is_cancelled_when_the_client_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    was_cancelled = asyncio.Event()

    async def wait(message: dict[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            was_cancelled.set()
            raise
        return {}

    async with proxy_with(wait, monkeypatch) as url:
        async with aiohttp.ClientSession() as client:
            async with client.post(url, json={**REQUEST, "stream": True}) as response:
                await response.content.readany()
        await asyncio.wait_for(was_cancelled.wait(), 30)


@pytest.mark.parametrize("wants_stream", [True, False])
async def test_the_end_is_unchanged_where_it_fails(
    wants_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(message: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("a bug")

    async with proxy_with(fail, monkeypatch) as url, aiohttp.ClientSession() as client:
        async with client.post(url, json={**REQUEST, "stream": wants_stream}) as response:
            body = await response.read()
    message = message_of(body) if wants_stream else json.loads(body)
    assert message["stop_reason"] == "tool_use" if not wants_stream else b'"stop_reason":"tool_use"' in body
    assert b"safeguard_results" not in body
