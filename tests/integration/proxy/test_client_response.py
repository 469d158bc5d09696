"""How a response is framed and how its connection ends, for every kind of client (RFC 9112)."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxyd.daemon.server import Daemon
from tests.support.faults import CHUNKED, HELLO, MODES, as_chunks, entry
from tests.support.harness import load_entries, running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, post, until

JSON = json.dumps({"type": "model", "id": "m"}).encode()


def stream(mode: str) -> bytes:
    return CHUNKED + as_chunks(b"".join(MODES[mode].values())) + b"0\r\n\r\n"


async def received(base: str, request: bytes) -> bytes:
    """All bytes of the response to one request, until the connection closes."""
    async with RawClient.to(base) as client:
        await client.send(request)
        return await asyncio.wait_for(client.reader.read(-1), 30)


@pytest.mark.parametrize("mode", MODES)
async def test_http_1_0_client_reads_until_the_end(mode: str) -> None:
    upstream = RawUpstream(lambda _: [stream(mode)])
    async with upstream.running(), running_proxy([entry(upstream, mode)]) as base:
        head, _, body = (await received(base, post(HELLO).replace(b"HTTP/1.1", b"HTTP/1.0"))).partition(
            b"\r\n\r\n"
        )
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body.startswith(b"event: message_start\n")
    assert b"event: message_stop\n" in body
    assert body.endswith(b"}\n\n")


@pytest.mark.parametrize("mode", MODES)
async def test_connection_close_is_respected(mode: str) -> None:
    upstream = RawUpstream(lambda _: [stream(mode)])
    async with upstream.running(), running_proxy([entry(upstream, mode)]) as base:
        head, _, body = (await received(base, post(HELLO, "Connection: close"))).partition(b"\r\n\r\n")
    assert head.lower().count(b"connection: close") == 1
    assert b"transfer-encoding: chunked" in head.lower()
    assert body.endswith(b"\r\n0\r\n\r\n")


async def test_head_request_has_a_head_only() -> None:
    """Its content-length is that of a GET: no body follows, and the next response is complete."""
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(JSON)
    upstream = RawUpstream(lambda number: [response if not number % 2 else response + JSON])
    async with upstream.running(), running_proxy([entry(upstream, "direct")], idle_s=2) as base:
        asked = b"%s /v1/models/m HTTP/1.1\r\nHost: localhost\r\nx-api-key: key\r\n%s\r\n"
        seen = await received(base, asked % (b"HEAD", b"") + asked % (b"GET", b"Connection: close\r\n"))
    first, _, rest = seen.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: %d" % len(JSON) in first.lower()
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"\r\n\r\n" + JSON)
    assert [head.partition(b" ")[0] for head in upstream.heads] == [b"HEAD", b"GET"]


async def test_response_without_a_body_ends_with_its_head() -> None:
    upstream = RawUpstream(lambda number: [b"HTTP/1.1 204 No Content\r\n\r\n"])
    async with upstream.running(), running_proxy([entry(upstream, "direct")], idle_s=2) as base:
        seen = await received(base, post(HELLO) + post(HELLO, "Connection: close"))
    first, second, nothing = seen.split(b"\r\n\r\n")
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"transfer-encoding" not in head.lower()
    assert nothing == b""


@pytest.mark.statement("A2")
@pytest.mark.parametrize("mode", MODES)
async def test_response_begun_while_draining_closes_its_connection(mode: str) -> None:
    go_on = asyncio.Event()
    upstream = RawUpstream(lambda _: [go_on, stream(mode)])
    async with upstream.running():
        daemon = Daemon(load_entries([entry(upstream, mode)]))
        await daemon.start()
        base = f"http://127.0.0.1:{daemon.addresses[0][1]}"
        async with RawClient.to(base) as client:
            await client.send(post(HELLO))
            await until(lambda: bool(upstream.heads))
            drained = asyncio.ensure_future(daemon.drain())
            await asyncio.sleep(0.05)
            go_on.set()
            seen = await asyncio.wait_for(client.reader.read(-1), 30)
        await drained
        await daemon.close()
    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b"message_stop" in body
