"""Each way in which a client can misbehave, in each phase of its call, in both modes
(docs/spec/operations.md#a7, #e8, #e9).

The tables are the specification. Every case also checks that no task and no descriptor is left, that nothing crashed,
that the upstream's connection is released, and that the next client is served.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.faults import MODES, entry
from tests.support.harness import running_proxy
from tests.support.raw_sockets import (
    Fault,
    RawClient,
    RawUpstream,
    Step,
    Trickle,
    complaints,
    no_leaks,
    post,
    until,
)
from tests.support.streams import CHUNKED, HELLO, as_chunks, judge

Leave = Callable[[RawClient], Awaitable[None]]


async def _reset(client: RawClient) -> None:
    client.reset()


async def _close(client: RawClient) -> None:
    client.writer.close()


async def _close_unread(client: RawClient) -> None:
    """Close as a killed process does: the kernel resets the connection if received bytes were not read."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0.01)
    client.writer.transport.abort()


LEAVES: dict[str, Leave] = {"reset": _reset, "close": _close, "close_unread": _close_unread}


def phases(mode: str) -> dict[str, tuple[Step, ...]]:
    """How far the upstream is when the client leaves; the role alone begins no response in translated mode."""
    events = list(MODES[mode].values())
    return {
        "before_the_head": (),
        "in_the_head": (CHUNKED[:30],),
        "after_the_head": (CHUNKED,),
        "in_the_first_event": (CHUNKED, as_chunks(events[0][:20])),
        "in_the_stream": (CHUNKED, as_chunks(*events[:4])),
        "in_an_event": (CHUNKED, as_chunks(*events[:4], events[4][:30])),
        "in_a_tool_call": (CHUNKED, as_chunks(*events[:7])),
        "before_the_last_event": (CHUNKED, as_chunks(*events[:9] if mode == "direct" else events[:8])),
    }


PHASES = list(phases("direct"))


@asynccontextmanager
async def proxy(upstream: RawUpstream, mode: str, **settings: Any) -> AsyncIterator[tuple[str, list[Any]]]:
    """A proxy that works afterwards: the next client is served, nothing has crashed, nothing has leaked."""
    with capture_logs() as lines:
        async with no_leaks(), upstream.running():
            async with running_proxy([entry(upstream, mode)], **settings) as base:
                yield base, lines
                upstream.play = lambda _: [CHUNKED, as_chunks(*MODES[mode].values()), b"0\r\n\r\n"]
                async with RawClient.to(base) as client:
                    await client.send(post(HELLO))
                    assert judge((await client.response()).events()) == "message_stop"
    assert complaints(lines) == []


@pytest.mark.statement("A7")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_client_that_leaves(mode: str, phase: str, how: str, stream: bool) -> None:
    steps = (*phases(mode)[phase], Fault.STALL)
    upstream = RawUpstream(lambda _: steps)
    async with proxy(upstream, mode) as (base, lines):
        async with RawClient.to(base) as client:
            await client.send(post({**HELLO, "stream": stream}))
            await until(lambda: len(upstream.heads) == 1)
            await asyncio.sleep(0.005)
            await LEAVES[how](client)
            await until(lambda: upstream.open_connections == 0)
            await until(lambda: any(line["event"] == "call.finished" for line in lines))
        (line,) = [line for line in lines if line["event"] == "call.finished"]
        assert (line["outcome"], line["client_gone"]) == ("client_gone", True)


@pytest.mark.statement("A7")
@pytest.mark.parametrize("mode", MODES)
async def test_client_that_leaves_while_its_call_waits_for_a_retry(mode: str) -> None:
    upstream = RawUpstream(lambda _: [Fault.CLOSE])
    async with proxy(upstream, mode, circuit_failures=0) as (base, lines):
        async with RawClient.to(base) as client:
            await client.send(post(HELLO))
            await until(lambda: len(upstream.heads) == 2)  # at once; the next try is after half a second
            await asyncio.sleep(0.01)
            client.reset()
            await until(lambda: any(line["event"] == "call.finished" for line in lines))
        assert len(upstream.heads) == 2
        (line,) = [line for line in lines if line["event"] == "call.finished"]
        assert line["outcome"] == "client_gone"


# -- before there is a call

_REQUEST = post(HELLO)
_HEAD, _, _BODY = _REQUEST.partition(b"\r\n\r\n")
_HEAD += b"\r\n\r\n"
#: How much of the request has come when the client stops sending.
CUTS = {
    "nothing": b"",
    "half_a_line": _REQUEST[:9],
    "half_a_header": _HEAD[:60],
    "no_end_of_the_head": _HEAD[:-2],
    "no_body": _HEAD,
    "half_a_body": _REQUEST[:-30],
    "half_a_chunk": _HEAD.replace(b"Content-Length: %d" % len(_BODY), b"Transfer-Encoding: chunked")
    + b"%x\r\n%s" % (len(_BODY), _BODY[:20]),
    "no_last_chunk": _HEAD.replace(b"Content-Length: %d" % len(_BODY), b"Transfer-Encoding: chunked")
    + as_chunks(_BODY),
}


@pytest.mark.statement("E9")
@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("cut", CUTS)
async def test_client_that_leaves_within_its_request(cut: str, how: str) -> None:
    """An incomplete request is no call: no upstream is called, and nothing is logged as an error."""
    upstream = RawUpstream(lambda _: ())
    async with proxy(upstream, "translated") as (base, lines):
        async with RawClient.to(base) as client:
            await client.send(CUTS[cut])
            await asyncio.sleep(0.01)
            await LEAVES[how](client)
        await asyncio.sleep(0.02)
        assert upstream.heads == []
        assert not [line for line in lines if line["log_level"] in ("warning", "error")]


@pytest.mark.statement("B keepalive_s")
@pytest.mark.statement("B body_idle_s")
@pytest.mark.statement("E9")
@pytest.mark.parametrize("cut", CUTS)
async def test_client_that_stops_within_its_request_times_out(cut: str) -> None:
    """A client that sends less than it announced: the connection is closed in a head, 408 in a body."""
    upstream = RawUpstream(lambda _: ())
    async with proxy(upstream, "translated", keepalive_s=0.15, body_idle_s=0.15) as (base, _):
        async with RawClient.to(base) as client:
            await client.send(CUTS[cut])
            if _HEAD.rstrip() in CUTS[cut] or b"chunked" in CUTS[cut]:
                if cut == "no_end_of_the_head":
                    assert await client.is_closed()
                else:
                    response = await client.response()
                    assert (response.status, response.error()[0]) == (408, "invalid_request_error")
                    assert await client.is_closed()
            else:
                assert await client.is_closed()
        assert upstream.heads == []


async def _trickle(client: RawClient, data: bytes, pause_s: float) -> None:
    for at in range(len(data)):
        await client.send(data[at : at + 1])
        await asyncio.sleep(pause_s)


@pytest.mark.statement("B keepalive_s")
@pytest.mark.statement("E9")
async def test_timeout_of_a_head_is_not_extended_by_single_bytes() -> None:
    upstream = RawUpstream(lambda _: ())
    async with proxy(upstream, "translated", keepalive_s=0.3) as (base, _), RawClient.to(base) as client:
        dribbling = asyncio.ensure_future(_trickle(client, _HEAD * 20, 0.01))
        assert await client.is_closed()
        dribbling.cancel()
        await asyncio.gather(dribbling, return_exceptions=True)


@pytest.mark.statement("B keepalive_s")
async def test_idle_client_connection_is_closed() -> None:
    upstream = RawUpstream(lambda _: ())
    async with proxy(upstream, "translated", keepalive_s=0.15) as (base, _), RawClient.to(base) as client:
        for _ in range(2):
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.response()).status == 200
        assert await client.is_closed()


@pytest.mark.parametrize("mode", MODES)
async def test_client_that_sends_byte_by_byte_is_served(mode: str) -> None:
    upstream = RawUpstream(lambda _: [CHUNKED, Trickle(as_chunks(*MODES[mode].values())), b"0\r\n\r\n"])
    async with proxy(upstream, mode) as (base, _), RawClient.to(base) as client:
        await _trickle(client, _REQUEST, 0)
        assert judge((await client.response()).events()) == "message_stop"


# -- lies about its length


@dataclass(frozen=True)
class Lie:
    """A request whose length is not what it says.

    Attributes:
        status: of its response.
        asked: how many calls reach the upstream.
    """

    request: bytes
    status: int
    asked: int = 0


def _says(length: int, body: bytes = _BODY) -> bytes:
    return _HEAD.replace(b"Content-Length: %d" % len(_BODY), b"Content-Length: %d" % length) + body


LIES = {
    "shorter_by_one": Lie(_says(len(_BODY) - 1), 400),
    "half": Lie(_says(len(_BODY) // 2), 400),
    "none": Lie(_says(0), 400),
    "longer": Lie(_says(len(_BODY) + 50), 408),
    "much_longer_than_allowed": Lie(_says(1 << 40, b""), 413),
    "negative": Lie(_says(-1), 400),
    "more_than_a_number_holds": Lie(
        _HEAD.replace(b"Content-Length: ", b"Content-Length: 99999999999999999999"), 400
    ),
    "hexadecimal": Lie(_HEAD.replace(b"Content-Length: ", b"Content-Length: 0x"), 400),
    "in_a_chunk_longer": Lie(
        _HEAD.replace(b"Content-Length: %d" % len(_BODY), b"Transfer-Encoding: chunked")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(_BODY) + 9, _BODY),
        408,
    ),
    "in_a_chunk_shorter": Lie(
        _HEAD.replace(b"Content-Length: %d" % len(_BODY), b"Transfer-Encoding: chunked")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(_BODY) - 9, _BODY),
        400,
    ),
    "true_and_a_second_request": Lie(_REQUEST + post({**HELLO, "model": "nobody"}), 200, asked=1),
}


@pytest.mark.statement("E8")
@pytest.mark.statement("C1")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LIES)
async def test_wrong_content_length_of_a_request(name: str, mode: str) -> None:
    lie = LIES[name]
    upstream = RawUpstream(lambda _: [CHUNKED, as_chunks(*MODES[mode].values()), b"0\r\n\r\n"])
    async with proxy(upstream, mode, body_idle_s=0.15) as (base, _), RawClient.to(base) as client:
        await client.send(lie.request)
        status, headers = await client.head()
        assert status == lie.status
        assert len(upstream.heads) == lie.asked
        if "json" in headers.get("content-type", ""):
            body = await client.reader.readexactly(int(headers["content-length"]))
            assert json.loads(body)["type"] == "error"
        if not lie.asked:
            # What is left of the body is no next request: nothing that could be smuggled in it is answered.
            assert b"HTTP/1.1 200" not in await asyncio.wait_for(client.reader.read(), 30)
    assert len(upstream.heads) == lie.asked + 1, "and the call that shows that the proxy is sound"


# -- slow readers


@pytest.mark.parametrize("mode", MODES)
async def test_client_that_reads_byte_by_byte_is_served(mode: str) -> None:
    events = list(MODES[mode].values())
    upstream = RawUpstream(lambda _: [CHUNKED, as_chunks(*events), b"0\r\n\r\n"])
    async with proxy(upstream, mode) as (base, _), RawClient.to(base) as client:
        await client.send(post(HELLO, "Connection: close"))
        seen = b""
        while byte := await asyncio.wait_for(client.reader.read(1), 30):
            seen += byte
            await asyncio.sleep(0)
    assert seen.endswith(b"0\r\n\r\n")
    assert b"message_stop" in seen
