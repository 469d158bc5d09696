"""Responses of the proxy's own: each part at once, and an error where the source fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    MessageDelta,
    MessageStop,
    StreamEvent,
    message_start,
)
from proxyd.errors import Overloaded
from proxyd.proxy import driver_translated
from tests.support.harness import running_proxy
from tests.support.sse_reader import read_events

REQUEST = {
    "model": "m",
    "max_tokens": 0,  # is answered without the upstream
    "messages": [{"role": "user", "content": "hi"}],
}
BEGIN: list[StreamEvent] = [
    message_start("msg_1", "m", {"input_tokens": 0, "output_tokens": 0}),
    BlockStart(0, {"type": "text", "text": ""}),
]
END: list[StreamEvent] = [
    BlockStop(0),
    MessageDelta({"stop_reason": "end_turn", "stop_sequence": None}, {"output_tokens": 0}),
    MessageStop(),
]


@asynccontextmanager
async def proxy_that_responds(
    parts: AsyncIterator[Sequence[StreamEvent]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    monkeypatch.setattr(driver_translated, "at_once", lambda events: parts)
    async with running_proxy([{"model_id": "m", "api_base": "http://127.0.0.1:9/v1"}]) as base:
        yield f"{base}/v1/messages"


@pytest.mark.parametrize("wants_stream", [True, False])
async def test_parts_are_sent_as_they_come(wants_stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = asyncio.Event()

    async def parts() -> AsyncIterator[Sequence[StreamEvent]]:
        yield BEGIN
        await goes_on.wait()
        yield END

    async with proxy_that_responds(parts(), monkeypatch) as url, aiohttp.ClientSession() as client:
        if not wants_stream:
            goes_on.set()
        async with client.post(url, json={**REQUEST, "stream": wants_stream}) as response:
            if wants_stream:
                first = await asyncio.wait_for(response.content.readany(), 30)
                assert [name for name, _ in read_events(first)] == ["message_start", "content_block_start"]
                goes_on.set()
                rest = await response.read()
                names = [name for name, _ in read_events(rest)]
                assert names == ["content_block_stop", "message_delta", "message_stop"]
            else:
                message = await response.json()
                assert (message["content"], message["stop_reason"]) == (
                    [{"type": "text", "text": ""}],
                    "end_turn",
                )


@pytest.mark.parametrize("begins", [True, False])
async def test_a_failure_is_a_status_or_an_error_event(begins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def parts() -> AsyncIterator[Sequence[StreamEvent]]:
        if begins:
            yield BEGIN
        raise Overloaded("the search engine is down")

    async with proxy_that_responds(parts(), monkeypatch) as url, aiohttp.ClientSession() as client:
        async with client.post(url, json={**REQUEST, "stream": True}) as response:
            body: Any = await response.read()
    if begins:
        assert response.status == 200
        name, data = read_events(body)[-1]
        assert name == "error"
        assert json.loads(data)["error"]["message"] == "the search engine is down"
    else:
        assert response.status == 529
