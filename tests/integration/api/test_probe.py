"""A probe through a daemon: what it says of good and bad upstreams."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from proxyd.api import probe as module
from proxyd.api.probe import ONE_WORD, STREAM, TOOL_CALL, Question, probe
from tests.support.harness import chunk, running_proxy, running_upstream, sse, text_stream

_CALL = {"index": 0, "id": "c", "function": {"name": "report", "arguments": '{"word": "ok"}'}}
CALLED = sse(chunk({"tool_calls": [_CALL]}), chunk({}, "tool_calls"))
#: What the upstream sends, and what the probe says: its error, and the tools that were called.
CASES: dict[str, tuple[int, bytes, Question, str | None, tuple[str, ...]]] = {
    "word": (200, text_stream("yes"), ONE_WORD, None, ()),
    "stream": (200, text_stream("ok"), STREAM, None, ()),
    "tool": (200, CALLED, TOOL_CALL, None, ("report",)),
    "no tool": (200, text_stream("ok"), TOOL_CALL, None, ()),
    "refused": (401, b'{"error": {"message": "no such key"}}', STREAM, "no such key", ()),
    "cut": (
        200,
        sse(chunk({"content": "o"}), done=False),
        STREAM,
        "the stream did not end well: the upstream",
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_came_of_it(name: str) -> None:
    status, body, question, error, tools = CASES[name]

    async def respond(_: web.Request) -> web.StreamResponse:
        kind = "text/event-stream" if status == 200 else "application/json"
        return web.Response(status=status, body=body, content_type=kind)

    async with running_upstream(respond) as upstream:
        entry: dict[str, Any] = {"model_id": "m", "api_base": f"{upstream.base}/v1"}
        async with running_proxy([entry], max_retries=0) as base:
            parts = urlsplit(base)
            headers = {"authorization": "Bearer sk-a-key-of-the-user"}
            result = await asyncio.to_thread(probe, parts.hostname, parts.port, "m", question, headers)
    assert (result.status, result.tools, result.is_ok) == (status, tools, error is None)
    assert (result.error or "").startswith(error or "")
    assert upstream.headers[0]["authorization"] == "Bearer sk-a-key-of-the-user"
    assert json.dumps(question.text) in json.dumps(upstream.requests[0])


async def test_nobody_listens() -> None:
    result = await asyncio.to_thread(probe, "127.0.0.1", 1, "m", ONE_WORD)
    assert (result.status, result.error) == (None, "no response: connection refused")


async def test_a_server_whose_response_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program on the daemon's port, say: each read returns in time, and there is always another one."""
    monkeypatch.setattr(module, "_TOTAL_S", 0.2)

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"{}")
            await asyncio.sleep(0.01)

    async with running_upstream(respond) as upstream:
        parts = urlsplit(upstream.base)
        result = await asyncio.to_thread(probe, parts.hostname, parts.port, "m", ONE_WORD)
    assert (result.status, result.error) == (None, "the response did not end within 0.2 s")
