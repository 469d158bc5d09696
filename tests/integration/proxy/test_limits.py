"""Timeouts, limits and memory, from the client's side (docs/spec/operations.md#b, #c, #e9)."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.daemon import listener
from proxyd.daemon.loop_lag import LoopLag
from tests.support.harness import running_proxy
from tests.support.raw_sockets import (
    Fault,
    Pause,
    RawClient,
    RawUpstream,
    ask,
    deaf_client,
    no_leaks,
    post,
    until,
)
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge

MODES = {"translated": TRANSLATED, "direct": DIRECT}
STALLED = (CHUNKED, as_chunks(*list(TRANSLATED.values())[:3]), Fault.STALL)


class Sockets:
    """Sockets that are closed at the end."""

    def __init__(self) -> None:
        self._all: list[socket.socket] = []

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._all:
            each.close()

    def add(self, each: socket.socket) -> socket.socket:
        self._all.append(each)
        return each


@asynccontextmanager
async def proxy(upstream: RawUpstream, mode: str = "translated", **settings: Any) -> AsyncIterator[str]:
    async with no_leaks(), upstream.running():
        more = {"api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        entries = [{"model_id": name, **more} for name in ("m", "other")]
        async with running_proxy(entries, **settings) as base:
            yield base


# -- B: clocks


@pytest.mark.statement("B keepalive_s")
@pytest.mark.parametrize("sent", [b"", b"POST /v1/mess", post(b"")[:60]], ids=["silent", "line", "headers"])
async def test_connection_without_a_request_is_closed(sent: bytes) -> None:
    async with proxy(RawUpstream(lambda _: ()), keepalive_s=0.1) as base, RawClient.to(base) as client:
        await client.send(sent)
        assert await client.is_closed()


@pytest.mark.statement("B body_idle_s")
async def test_body_that_stops_is_408() -> None:
    async with proxy(RawUpstream(lambda _: ()), body_idle_s=0.1) as base, RawClient.to(base) as client:
        await client.send(post(HELLO)[:-20])
        response = await client.response()
        assert (response.status, response.error()[0]) == (408, "invalid_request_error")
        assert response.headers["connection"] == "close"


@pytest.mark.statement("B body_total_s")
async def test_body_in_single_bytes_is_408() -> None:
    request = post({**HELLO, "x": "y" * 100_000})

    async def dribble(client: RawClient) -> None:
        for at in range(1000, 1010):
            await client.send(request[at : at + 1])
            await asyncio.sleep(0.01)

    async with proxy(RawUpstream(lambda _: ()), body_total_s=0.2, body_idle_s=5) as base:
        # A byte that meets the closed connection has it reset, and the response can be lost.
        for _ in range(10):
            async with RawClient.to(base) as client:
                await client.send(request[:1000])
                dribbling = asyncio.ensure_future(dribble(client))
                try:
                    response = await client.response()
                except (ConnectionError, asyncio.IncompleteReadError):
                    continue
                finally:
                    dribbling.cancel()
                    await asyncio.gather(dribbling, return_exceptions=True)
            if response.is_whole:
                break
    assert (response.status, response.error()[0]) == (408, "invalid_request_error")


@pytest.mark.statement("B connect_s")
async def test_connection_timeout_is_502() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with Sockets() as fillers:  # a full queue drops further connections without a word
            for _ in range(4):
                filler = fillers.add(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            entries = [{"model_id": "m", "api_base": f"http://127.0.0.1:{port}/v1"}]
            async with running_proxy(entries, connect_s=0.1, max_retries=0) as base:
                response = await ask(base, post(HELLO))
    assert (response.status, response.error()[0]) == (502, "api_error")
    assert "in time" in response.error()[1]


@pytest.mark.statement("B first_byte_s")
@pytest.mark.statement("B idle_s")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clock", ["first_byte_s", "idle_s"])
async def test_timeouts_of_a_route(clock: str, mode: str) -> None:
    steps = (Fault.STALL,) if clock == "first_byte_s" else (CHUNKED, Fault.STALL)
    upstream = RawUpstream(lambda _: steps)
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        async with running_proxy([{**entry, "timeouts": {clock: 0.05}}]) as base:
            response = await ask(base, post(HELLO))
    assert (response.status, response.error()[0]) == (504, "timeout_error")


@pytest.mark.statement("B total_s")
@pytest.mark.parametrize("mode", MODES)
async def test_total_timeout_ends_an_endless_stream(mode: str) -> None:
    steps = (CHUNKED, as_chunks(*list(MODES[mode].values())[:4]), Fault.STALL)
    async with proxy(RawUpstream(lambda _: steps), mode, total_s=1.0) as base:
        response = await ask(base, post(HELLO))
    assert judge(response.events()) == "error"
    assert response.events()[-1][1]["error"]["type"] == "timeout_error"


@pytest.mark.statement("B ping_s")
@pytest.mark.parametrize("mode", MODES)
async def test_pings_are_sent_between_frames(mode: str) -> None:
    frames = list(MODES[mode].values())
    half = frames[4][: len(frames[4]) // 2]
    steps = (CHUNKED, as_chunks(*frames[:4], half), Fault.STALL)
    async with proxy(RawUpstream(lambda _: steps), mode, ping_s=0.05, idle_s=1.0) as base:
        response = await ask(base, post(HELLO))
    names = [name for name, _ in response.events()]
    assert judge(response.events()) == "error"
    assert 3 <= names.count("ping") <= 20
    assert names[-2:] == ["ping", "error"]


@pytest.mark.statement("B ping_s")
@pytest.mark.parametrize("mode", MODES)
async def test_no_ping_follows_the_last_event(mode: str) -> None:
    """However late the end of the upstream's body arrives."""
    steps = (CHUNKED, as_chunks(*MODES[mode].values()), Pause(0.3), b"0\r\n\r\n")
    async with proxy(RawUpstream(lambda _: steps), mode, ping_s=0.03) as base:
        response = await ask(base, post(HELLO))
    assert response.is_whole
    assert judge(response.events()) == "message_stop"
    assert "ping" not in [name for name, _ in response.events()]


@pytest.mark.statement("B commit_s")
async def test_error_after_a_committed_silence_ends_the_stream() -> None:
    upstream = RawUpstream(lambda _: (CHUNKED, Fault.STALL))
    async with proxy(upstream, commit_s=0.05, ping_s=0.05, idle_s=1.0) as base:
        response = await ask(base, post(HELLO))
    names = [name for name, _ in response.events()]
    assert (response.status, judge(response.events())) == (200, "error")
    assert names[:2] == ["message_start", "ping"]


def flood(mode: str, size: int) -> bytes:
    """Text events without end, some `size` bytes of them."""
    frames = list(MODES[mode].values())
    return as_chunks(*frames[:5]) + as_chunks(frames[4]) * (size // len(frames[4]))


@pytest.mark.statement("B write_stall_s")
@pytest.mark.parametrize("mode", MODES)
async def test_client_that_stops_reading_is_aborted_and_its_upstream_cancelled(mode: str) -> None:
    upstream = RawUpstream(lambda _: (CHUNKED, flood(mode, 30_000_000), Fault.STALL))
    with capture_logs() as lines:
        async with proxy(upstream, mode, write_stall_s=0.2) as base, deaf_client(base, HELLO):
            await until(lambda: any(line["event"] == "call.finished" for line in lines), 30)
            await until(lambda: upstream.open_connections == 0)
    (line,) = [line for line in lines if line["event"] == "call.finished"]
    assert line["outcome"] == "client_gone"


@pytest.mark.statement("B write_stall_s")
async def test_client_that_reads_slowly_is_served() -> None:
    # The kernel tells of room for more only when a third of its buffer, up to 4 MiB, is free: at the client's 3 MB a
    # second that takes some 0.4 s, so the stall must be longer, and the slow reading longer still.
    upstream = RawUpstream(lambda _: (CHUNKED, flood("translated", 14_000_000), b"0\r\n\r\n"))
    async with proxy(upstream, write_stall_s=3) as base, deaf_client(base, HELLO) as client:
        body, size, loop = b"", 0, asyncio.get_running_loop()
        begun = loop.time()
        while b"event: error" not in body[-3000:]:
            chunk = await asyncio.wait_for(client.reader.read(65536), 20)
            assert chunk, f"cut after {loop.time() - begun:.1f} s"
            body, size = (body + chunk)[-200_000:], size + len(chunk)
            if loop.time() - begun < 4:
                # the client's slowness is what is tested; on a busy machine it must not grow
                await asyncio.sleep(max(0.0, begun + size / 3_000_000 - loop.time()))


# -- a client that leaves


@pytest.mark.statement("A7")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", ["before_head", "after_head", "in_stream"])
@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_cancels_the_upstream(mode: str, phase: str, stream: bool) -> None:
    frames = list(MODES[mode].values())
    steps = {"before_head": (), "after_head": (CHUNKED,), "in_stream": (CHUNKED, as_chunks(*frames[:4]))}[
        phase
    ]
    upstream = RawUpstream(lambda _: (*steps, Fault.STALL))
    with capture_logs() as lines:
        async with proxy(upstream, mode) as base, RawClient.to(base) as client:
            await client.send(post({**HELLO, "stream": stream}))
            await until(lambda: len(upstream.heads) == 1)
            if phase == "in_stream" and stream:
                await client.head()
            client.reset()
            await until(lambda: upstream.open_connections == 0)
            await until(lambda: any(line["event"] == "call.finished" for line in lines))
    (line,) = [line for line in lines if line["event"] == "call.finished"]
    assert line["outcome"] == "client_gone"


# -- C: limits


BODIES = {
    "by_its_length": (post({**HELLO, "x": "y" * 5000}), 413, "request_too_large"),
    "chunked": (
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + as_chunks(*[b"x" * 1000] * 6),
        413,
        "request_too_large",
    ),
    "unpacked": (
        post(
            gzip.compress(json.dumps({**HELLO, "x": os.urandom(4000).hex()}).encode()),
            "Content-Encoding: gzip",
        ),
        413,
        "request_too_large",
    ),
    "not_gzip": (post(HELLO, "Content-Encoding: gzip"), 400, "invalid_request_error"),
    "cut_gzip": (
        post(gzip.compress(json.dumps(HELLO).encode())[:-12], "Content-Encoding: gzip"),
        400,
        "invalid_request_error",
    ),
    "compress": (post(HELLO, "Content-Encoding: compress"), 415, "invalid_request_error"),
}


@pytest.mark.statement("C1")
@pytest.mark.parametrize("name", BODIES)
async def test_bodies_are_limited(name: str) -> None:
    request, status, kind = BODIES[name]
    upstream = RawUpstream(lambda _: ())
    async with proxy(upstream, max_body_bytes=4096) as base:
        response = await ask(base, request)
    assert (response.status, response.error()[0]) == (status, kind)
    assert upstream.heads == []


@pytest.mark.statement("C1")
@pytest.mark.parametrize("chunked", [True, False])
async def test_decompression_bomb_is_recognised_by_its_ratio(chunked: bool) -> None:
    bomb = gzip.compress(b'{"x":"' + b"a" * (20 << 20) + b'"}')
    request = post(bomb, "Content-Encoding: gzip")
    if chunked:
        head = request[: request.index(b"\r\n\r\n")].replace(b"Content-Length: %d" % len(bomb), b"X: y")
        request = head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + as_chunks(bomb) + b"0\r\n\r\n"
    async with proxy(RawUpstream(lambda _: ())) as base:
        response = await ask(base, request)
    assert (response.status, response.error()[0]) == (413, "request_too_large")


@pytest.mark.statement("C2")
@pytest.mark.parametrize(
    "headers", [["X: " + "a" * 9000], [f"X-{n}: y" for n in range(200)]], ids=["long", "many"]
)
async def test_heads_are_limited(headers: list[str]) -> None:
    async with proxy(RawUpstream(lambda _: ())) as base:
        assert (await ask(base, post(HELLO, *headers))).status == 400


@pytest.mark.statement("C3")
async def test_nesting_is_limited() -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    async with proxy(RawUpstream(lambda _: ())) as base:
        response = await ask(base, post({**HELLO, "metadata": deep}))
    assert (response.status, response.error()[0]) == (400, "invalid_request_error")


@pytest.mark.statement("C7")
@pytest.mark.parametrize("setting", ["max_streams", "max_streams_per_route"])
async def test_calls_in_flight_are_limited(setting: str) -> None:
    upstream = RawUpstream(lambda _: STALLED)
    with capture_logs() as lines:
        async with proxy(upstream, **{setting: 3}) as base, AsyncExitStack() as stack:
            for _ in range(3):
                client = await stack.enter_async_context(RawClient.to(base))
                await client.send(post(HELLO))
                await client.head()
            refused = await ask(base, post(HELLO))
            assert (refused.status, refused.error()[0]) == (529, "overloaded_error")
            assert refused.headers["retry-after"] == "1"
            assert setting in refused.error()[1]
            async with RawClient.to(base) as other:
                await other.send(post({**HELLO, "model": "other"}))
                assert (await other.head())[0] == (529 if setting == "max_streams" else 200)
            client.reset()
            await until(lambda: sum(line["event"] == "call.finished" for line in lines) >= 3)
            async with RawClient.to(base) as again:
                await again.send(post(HELLO))
                assert (await again.head())[0] == 200
    refusals = [line for line in lines if line["event"] == "call.finished" and line["status"] == 529]
    assert refusals, "a refused call has its line in the log"


@pytest.mark.statement("E9")
async def test_connections_are_limited() -> None:
    async with proxy(RawUpstream(lambda _: ()), max_connections=5) as base, AsyncExitStack() as stack:
        for _ in range(5):
            client = await stack.enter_async_context(RawClient.to(base))
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.response()).status == 200
        async with RawClient.to(base) as refused:
            response = await refused.response()
            assert (response.status, response.error()[0]) == (529, "overloaded_error")
            assert await refused.is_closed()
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.response()).status == 200, "those that are there go on"


@pytest.mark.statement("E9")
async def test_idle_connections_of_one_peer_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "_GRACE_S", 0.0)
    upstream = RawUpstream(lambda _: STALLED)
    async with proxy(upstream, max_idle_per_peer=4) as base, AsyncExitStack() as stack:
        call = await stack.enter_async_context(RawClient.to(base))
        await call.send(post(HELLO))
        await call.head()
        idle = []
        for _ in range(10):
            idle.append(await stack.enter_async_context(RawClient.to(base)))
            await asyncio.sleep(0.01)
        for each in idle[:6]:
            assert await each.is_closed(), "the oldest make room"
        for each in idle[6:]:
            await each.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await each.response()).status == 200
        assert upstream.open_connections == 1


@pytest.mark.statement("A8")
async def test_blocked_loop_is_reported() -> None:
    beats: list[float] = []
    watch = LoopLag(on_beat=lambda: beats.append(watch.last_s))
    loop = asyncio.get_running_loop()
    with capture_logs() as lines:
        watch.start()
        try:
            handle = loop.call_later(0.4, _block, 0.7)
            await until(lambda: bool(beats), 20)
        finally:
            watch.stop()
            handle.cancel()
    assert beats[0] > 0.5
    (line,) = [line for line in lines if line["event"] == "loop.late"]
    assert line["lag_ms"] == round(beats[0] * 1000)


def _block(seconds: float) -> None:
    import time

    time.sleep(seconds)  # blocking is the point


@pytest.mark.statement("C8")
async def test_accepting_pauses_without_descriptors() -> None:
    upstream = RawUpstream(lambda _: ())
    async with proxy(upstream) as base:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == min(hard, 65_536) or soft >= 65_536, "the soft limit was raised at the start"
        with capture_logs() as lines, Sockets() as fillers:
            client = fillers.add(socket.socket())
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) - 1, hard))
            try:
                client.setblocking(False)
                host, port = base.removeprefix("http://").split(":")
                client.connect_ex((host, int(port)))
                await until(lambda: any(line["event"] == "server.out_of_files" for line in lines))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            reader, writer = await asyncio.open_connection(sock=client)
            late = RawClient(reader, writer)
            await late.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await late.response()).status == 200, "it is accepted when there is room again"
            writer.close()
        assert len([line for line in lines if line["event"] == "server.out_of_files"]) == 1
