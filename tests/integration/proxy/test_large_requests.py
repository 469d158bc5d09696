"""A large request reaches the upstream as a small one does, and the event loop does none of the long work on it."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import Any

import aiohttp
import pytest
import ujson
from aiohttp import web

from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.hooked import anthropic_stream
from tests.support.streams import HELLO

HEADERS = {"x-api-key": "k", "content-type": "application/json", "x-claude-code-session-id": "s"}
MIB = 1 << 20


def tool(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "d",
        "input_schema": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20)}},
    }


SHAPES: dict[str, dict[str, Any]] = {
    "a long text": {"messages": [{"role": "user", "content": 'x\n"\\\u20ac' * MIB}]},
    "many messages": {"messages": [{"role": "user", "content": "some words"}] * 15_000},
    "many blocks": {"messages": [{"role": "user", "content": [{"type": "text", "text": "word"}] * 15_000}]},
    "many tools": {"tools": [tool(f"t{number}") for number in range(600)]},
    "many unknown members": {f"unknown_{number}": 1 for number in range(25_000)},
    "many system blocks": {"system": [{"type": "text", "text": "some words"}] * 12_000},
}


class Loop:
    """Sizes of the calls into the JSON library in the thread of the event loop."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.others = 0
        self._thread = threading.get_ident()
        for name in ("loads", "dumps"):
            patched.setattr(ujson, name, self._counted(getattr(ujson, name)))

    def _counted(self, function: Any) -> Any:
        def counted(value: Any, *args: Any, **kwargs: Any) -> Any:
            result = function(value, *args, **kwargs)
            text = result if isinstance(result, str) else value
            if threading.get_ident() == self._thread:
                self.sizes.append(len(text))
            else:
                self.others += 1
            return result

        return counted


@pytest.mark.statement("A8")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "translated"])
async def test_large_requests_are_prepared_beside_the_event_loop(
    shape: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []

    async def respond(request: web.Request) -> web.Response:
        received.append(await request.read())
        stream = anthropic_stream("a") if is_direct else text_stream("a")
        return web.Response(body=stream, content_type="text/event-stream")

    body = {**HELLO, "model": "m", **SHAPES[shape]}
    data = json.dumps(body).encode()
    assert len(data) > 256 * 1024
    async with running_upstream(respond) as upstream:
        base = upstream.base if is_direct else f"{upstream.base}/v1"
        entry = {"model_id": "m", "api_base": base, "direct": is_direct, "model_name": "theirs", "top_p": 0.5}
        async with (
            running_proxy([entry], max_retries=0) as proxy,
            aiohttp.ClientSession(headers=HEADERS) as session,
        ):
            loop = Loop(monkeypatch)
            async with session.post(f"{proxy}/v1/messages", data=io.BytesIO(data)) as response:
                assert response.status == 200, await response.read()
                assert await response.read()
            monkeypatch.undo()
    assert max(loop.sizes, default=0) < 10_000
    assert loop.others > 0
    (sent,) = received
    request = json.loads(sent)
    assert (request["model"], request["top_p"]) == ("theirs", 0.5)
    if is_direct:
        assert request == {**body, "model": "theirs", "top_p": 0.5}
    else:
        assert "some words" in sent.decode() or shape not in ("many messages", "many system blocks")
        assert len(request.get("tools", [])) <= 600


async def test_a_large_request_that_is_no_json_is_refused() -> None:
    data = json.dumps({**HELLO, "messages": [{"role": "user", "content": "x" * 3 * MIB}]}).encode()
    async with (
        running_proxy([{"model_id": "m", "api_base": "http://127.0.0.1:9/v1"}]) as proxy,
        aiohttp.ClientSession(headers=HEADERS) as session,
    ):
        for broken in (data[:-1], data + b"}", data.replace(b'"role"', b'"role', 1), b"[" + data + b"]"):
            async with session.post(f"{proxy}/v1/messages", data=io.BytesIO(broken)) as response:
                error = (await response.json())["error"]
                assert (response.status, error["type"]) == (400, "invalid_request_error")


async def test_large_requests_wait_for_each_other() -> None:
    """Many of them at once all get their own responses."""

    async def respond(request: web.Request) -> web.Response:
        body = await request.json()
        text = body["messages"][0]["content"][:8]
        return web.Response(body=anthropic_stream(text), content_type="text/event-stream")

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, "direct": True, "top_p": 0.5}
        async with running_proxy([entry]) as proxy, aiohttp.ClientSession(headers=HEADERS) as session:

            async def call(number: int) -> bytes:
                content = f"mark{number:04}" + "x" * 3 * MIB
                body = {**HELLO, "messages": [{"role": "user", "content": content}]}
                async with session.post(
                    f"{proxy}/v1/messages", data=io.BytesIO(json.dumps(body).encode())
                ) as response:
                    return await response.read()

            responses = await asyncio.gather(*map(call, range(6)))
    for number, response in enumerate(responses):
        assert b"mark%04d" % number in response
