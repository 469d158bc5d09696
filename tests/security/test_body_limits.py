"""What request bodies and upstreams' answers may take: bytes that are held at once, and values in one JSON text."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd import jsonio
from tests.support.harness import chunk, running_proxy, running_upstream, sse, text_stream
from tests.support.hooked import anthropic_stream
from tests.support.raw_sockets import until
from tests.support.streams import HELLO

HEADERS = {"x-api-key": "k", "content-type": "application/json"}
KIB = 1024


def body(size: int, **more: Any) -> bytes:
    """A request of about `size` bytes, nearly all of it one text."""
    return json.dumps({**HELLO, **more, "messages": [{"role": "user", "content": "x" * size}]}).encode()


class Upstream:
    """Answers when it is told to: `begin` lets the first event go, `end` the rest."""

    def __init__(self, *, is_direct: bool) -> None:
        self.begin, self.end = asyncio.Event(), asyncio.Event()
        self.calls = 0
        self._stream = anthropic_stream("a") if is_direct else text_stream("a")

    async def respond(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        await self.begin.wait()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        middle = self._stream.index(b"\n\n", len(self._stream) // 3) + 2
        await response.write(self._stream[:middle])
        await self.end.wait()
        await response.write(self._stream[middle:])
        return response


@pytest.mark.parametrize("is_direct", [False, True], ids=["translated", "direct"])
async def test_bodies_that_wait_for_their_upstreams_are_bounded_together(is_direct: bool) -> None:
    upstream = Upstream(is_direct=is_direct)
    async with running_upstream(upstream.respond) as raw:
        base = raw.base if is_direct else f"{raw.base}/v1"
        entry = {"model_id": "m", "api_base": base, "direct": is_direct}
        async with (
            running_proxy([entry], max_parsing_bytes=1000 * KIB) as proxy,
            aiohttp.ClientSession(headers=HEADERS) as session,
        ):

            async def ask(data: bytes) -> tuple[int, bytes, str | None]:
                async with session.post(f"{proxy}/v1/messages", data=io.BytesIO(data)) as response:
                    return response.status, await response.read(), response.headers.get("retry-after")

            async def begin(data: bytes) -> tuple[aiohttp.ClientResponse, bytes]:
                response = await session.post(f"{proxy}/v1/messages", data=io.BytesIO(data))
                return response, await response.content.readany()

            first = asyncio.ensure_future(begin(body(1500 * KIB, stream=True)))
            await until(lambda: upstream.calls == 1, 30)  # larger than all may be, and alone
            status, said, retry_after = await ask(body(100 * KIB, stream=True))
            assert (status, retry_after) == (529, "1")
            error = json.loads(said)["error"]
            assert error["type"] == "overloaded_error"
            assert "max_parsing_bytes" in error["message"]
            upstream.begin.set()
            response, beginning = await asyncio.wait_for(first, 30)
            assert beginning  # its stream has begun, so its request is not held any more
            upstream.begin.clear()
            others = [asyncio.ensure_future(ask(body(400 * KIB, stream=True))) for _ in range(2)]
            await until(lambda: upstream.calls == 3, 30)
            assert (await ask(body(400 * KIB, stream=True)))[0] == 529
            small = asyncio.ensure_future(ask(body(10 * KIB, stream=True)))
            await until(lambda: upstream.calls == 4, 30)
            upstream.begin.set()
            upstream.end.set()
            for each in (*others, small):
                assert (await asyncio.wait_for(each, 30))[0] == 200
            assert await response.read()
            for _ in range(5):  # what was refused or failed holds nothing
                assert (await ask(b"{" * 600 * KIB))[0] == 400
            assert (await ask(body(900 * KIB, stream=True)))[0] == 200


async def test_a_client_that_sends_slowly_holds_only_what_it_has_sent() -> None:
    upstream = Upstream(is_direct=True)
    upstream.begin.set()
    upstream.end.set()
    async with (
        running_upstream(upstream.respond) as raw,
        running_proxy(
            [{"model_id": "m", "api_base": raw.base, "direct": True}], max_parsing_bytes=1000 * KIB
        ) as proxy,
        aiohttp.ClientSession(headers=HEADERS) as session,
    ):
        host, _, port = proxy.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\n\r\n{"
        )
        await writer.drain()
        async with session.post(
            f"{proxy}/v1/messages", data=io.BytesIO(body(900 * KIB, stream=True))
        ) as response:
            assert response.status == 200
        writer.close()


@pytest.mark.parametrize("is_direct", [False, True], ids=["translated", "direct"])
async def test_a_request_of_too_many_values_is_refused(is_direct: bool) -> None:
    upstream = Upstream(is_direct=is_direct)
    async with (
        running_upstream(upstream.respond) as raw,
        running_proxy([{"model_id": "m", "api_base": raw.base, "direct": is_direct}]) as proxy,
        aiohttp.ClientSession(headers=HEADERS) as session,
    ):
        members = {f"k{number}": 1 for number in range(jsonio.MAX_REQUEST_VALUES + 1)}
        data = body(10, stream=True, metadata=members)
        async with session.post(f"{proxy}/v1/messages", data=io.BytesIO(data)) as response:
            assert response.status == 400
            message = (await response.json())["error"]["message"]
        assert message.startswith("the request body has more than 200000 values, which is the limit")
        assert upstream.calls == 0


async def test_a_response_of_too_many_values_is_a_bad_one() -> None:
    async def respond(request: web.Request) -> web.Response:
        completion = chunk({"content": "a"}, "stop", more=[0] * (jsonio.MAX_VALUES + 1))
        if (await request.json()).get("stream"):
            return web.Response(body=sse(completion), content_type="text/event-stream")
        return web.Response(body=json.dumps(completion).encode(), content_type="application/json")

    async with (
        running_upstream(respond) as raw,
        running_proxy([{"model_id": "m", "api_base": f"{raw.base}/v1"}], max_retries=0) as proxy,
        aiohttp.ClientSession(headers=HEADERS) as session,
    ):
        async with session.post(f"{proxy}/v1/messages", data=body(10)) as response:
            assert response.status == 502
            assert "more than 50000 values" in (await response.json())["error"]["message"]
