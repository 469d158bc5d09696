"""A response goes to the request that it is for, whatever an upstream sends and when (H3 of the security tests)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxyd.codecs.formats import FORMATS
from proxyd.transport.faults import UnexpectedResponse
from proxyd.transport.pool import ConnectionPool
from proxyd.transport.response import Response
from proxyd.transport.timers import Timers
from proxyd.transport.tls import TLSContext
from tests.support.certificates import make_certificate, server_context
from tests.support.harness import running_proxy
from tests.support.raw_sockets import Fault, Play, RawClient, RawUpstream, no_leaks, post, until
from tests.support.servers import running_server
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks


def response(text: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


OWN, UNASKED = response(b"own"), response(b"unasked")


@pytest.fixture(scope="module", params=["plain", "tls"])
def certificate(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path] | None:
    return make_certificate(tmp_path_factory.mktemp("certificate")) if request.param == "tls" else None


class Calls:
    """Calls through an pool, which nothing limits in time."""

    def __init__(self, pool: ConnectionPool, base: str) -> None:
        self._pool = pool
        self._url = f"{base}/v1/messages"

    async def ask(self, body: bytes = b"{}", key: str = "one") -> tuple[int, bytes]:
        """Status and body of one call, whose connection is released as after any whole response."""
        timers = Timers(asyncio.get_running_loop())
        try:
            found = await asyncio.wait_for(
                self._pool.call("POST", self._url, {"x-api-key": key}, body, timers=timers), 10
            )
        finally:
            timers.close()
        return found.status, await _body(found)


async def _body(found: Response) -> bytes:
    body = b""
    while not found.at_end:
        body += found.take()
        assert not found.is_over or found.has_more or found.at_end, "the body is cut"
        await asyncio.sleep(0)
    found.release()
    return body


@asynccontextmanager
async def calls_to(
    play: Play, certificate: tuple[Path, Path] | None = None
) -> AsyncIterator[tuple[Calls, RawUpstream]]:
    tls = server_context(*certificate) if certificate else None
    async with no_leaks(), RawUpstream(play, tls=tls).running() as upstream:
        pool = ConnectionPool(context=TLSContext(str(certificate[1])) if certificate else None)
        try:
            yield Calls(pool, upstream.base), upstream
        finally:
            await pool.close()


@pytest.mark.statement("D table")
@pytest.mark.parametrize(
    "unasked",
    [UNASKED, response(b"", b"408 Request Timeout"), b"x", None],
    ids=["response", "farewell", "byte", "end"],
)
async def test_what_lies_unread_on_an_idle_connection_is_no_response(
    certificate: tuple[Path, Path] | None, unasked: bytes | None
) -> None:
    """The loop has no turn between the upstream's write and the next call, as when it is busy with others."""
    async with calls_to(lambda _: [OWN], certificate) as (calls, upstream):
        assert await calls.ask() == (200, b"own")
        await asyncio.sleep(0.05)  # what TLS says after its handshake has been read
        if unasked is not None:
            upstream.writers[0].write(unasked)
        else:
            end = upstream.writers[0].get_extra_info("socket").dup()
            end.shutdown(socket.SHUT_WR)
            end.close()
        assert await calls.ask() == (200, b"own")
        assert upstream.accepted == 2
        assert len(upstream.heads) == 2


async def test_a_sound_connection_serves_again(certificate: tuple[Path, Path] | None) -> None:
    async with calls_to(lambda _: [OWN], certificate) as (calls, upstream):
        for _ in range(5):
            assert await calls.ask() == (200, b"own")
        assert upstream.accepted == 1


async def test_one_that_speaks_while_it_idles_is_closed_at_once(
    certificate: tuple[Path, Path] | None,
) -> None:
    async with calls_to(lambda _: [OWN], certificate) as (calls, upstream):
        await calls.ask()
        upstream.writers[0].write(UNASKED)
        await until(lambda: not upstream.open_connections, 30)


@pytest.mark.statement("D table")
@pytest.mark.parametrize(
    "second",
    [response(b"", b"408 Request Timeout"), UNASKED + OWN, UNASKED + b"rubbish"],
    ids=["farewell", "two responses", "rubbish"],
)
async def test_what_cannot_be_the_response_on_a_reused_connection_is_asked_again(second: bytes) -> None:
    async with calls_to(lambda n: [second if n == 1 else OWN]) as (calls, upstream):
        assert [await calls.ask() for _ in range(2)] == [(200, b"own")] * 2
        assert upstream.accepted == 2
        assert len(upstream.heads) == 3


async def test_what_a_new_connection_brings_is_taken_as_it_is() -> None:
    """Nothing was asked on it before: 408 is the upstream's word."""
    farewell = response(b"", b"408 Request Timeout")
    async with calls_to(lambda _: [farewell, Fault.CLOSE]) as (calls, upstream):
        assert (await calls.ask())[0] == 408
        assert len(upstream.heads) == 1


class EarlyUpstream:
    """A server that responds when it has read the head of a request, and reads its body then.

    Args:
        early: the response for the n-th request; None where it waits for the body first.
        receive_bytes: how much its system takes of what it does not read.
    """

    def __init__(self, *early: bytes | None, receive_bytes: int | None = None) -> None:
        self.heads = 0
        self.accepted = 0
        self.port = 0
        self._early = early
        self._receive_bytes = receive_bytes

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EarlyUpstream]:
        listening = socket.create_server(("127.0.0.1", 0))
        if self._receive_bytes:  # inherited by what is accepted
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        self.port = listening.getsockname()[1]
        async with running_server(self._serve, sock=listening, limit=1024):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                early = self._early[self.heads]
                self.heads += 1
                if early is not None:
                    writer.write(early)
                    await asyncio.Event().wait()  # until the upstream ends
                    return
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                writer.write(OWN)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


@pytest.mark.statement("D table")
@pytest.mark.parametrize("status", [b"200 OK", b"413 Too Large"])
@pytest.mark.parametrize(
    ("size", "receive_bytes"),
    [
        (32 << 20, None),
        pytest.param(
            200_000,
            4096,
            marks=pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell"),
        ),
    ],
    ids=["unwritten", "unreceived"],
)
async def test_a_response_ahead_of_its_whole_request_is_not_its_own(
    size: int, receive_bytes: int | None, status: bytes
) -> None:
    """On a connection that has served before: the request goes once more, on a new one."""
    async with EarlyUpstream(
        None, response(b"unasked", status), None, receive_bytes=receive_bytes
    ).running() as up:
        pool = ConnectionPool()
        try:
            calls = Calls(pool, up.base)
            assert await calls.ask() == (200, b"own")
            assert await calls.ask(b"x" * size) == (200, b"own")
            assert (up.accepted, up.heads) == (2, 3)
        finally:
            await pool.close()


async def test_a_success_ahead_of_the_whole_request_is_believed_from_nobody() -> None:
    async with EarlyUpstream(UNASKED, UNASKED).running() as up:
        pool = ConnectionPool()
        try:
            with pytest.raises(UnexpectedResponse):
                await Calls(pool, up.base).ask(b"x" * (32 << 20))
            assert up.accepted == 2
        finally:
            await pool.close()


async def test_a_server_that_speaks_first_is_not_believed() -> None:
    greetings = 0

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greetings
        greetings += 1
        writer.write(UNASKED)
        writer.close()

    async with running_server(greet) as port:
        entry = {"model_id": "m", "api_base": f"http://127.0.0.1:{port}"}
        async with running_proxy([entry], max_retries=0) as proxy, RawClient.to(proxy) as client:
            await client.send(post({**HELLO, "stream": False}))
            response = await client.response()
    assert response.status == 502


async def test_calls_with_other_keys_have_connections_of_their_own() -> None:
    """What an upstream sends twice, so late that nobody can tell it from the next response, stays with its key."""
    async with calls_to(lambda _: [OWN]) as (calls, upstream):
        for key in ("one", "two", "one", "two"):
            await calls.ask(key=key)
        assert upstream.accepted == 2


@pytest.mark.parametrize(("asks_stream", "accepted"), [(True, 2), (False, 1)])
@pytest.mark.parametrize("chosen", ["anthropic", *FORMATS])
async def test_a_connection_that_brings_no_stream_where_one_was_asked_for_serves_once(
    chosen: str, asks_stream: bool, accepted: int
) -> None:
    """A translated route asks for a stream whatever its client wants, unless its model can't."""
    direct = chosen == "anthropic"
    text = b'{"id": "m", "type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn", '
    text += b'"usage": {"input_tokens": 1, "output_tokens": 1}, "choices": [{"index": 0, "finish_reason": "stop", '
    text += b'"message": {"role": "assistant", "content": "x"}}], "output": [], "status": "completed", '
    text += b'"candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": "x"}]}}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text)
    async with no_leaks(), RawUpstream(lambda _: [head + text]).running() as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, "format": chosen}
        if not direct:
            entry["can_stream"] = asks_stream
        async with running_proxy([entry], max_retries=0) as base, RawClient.to(base) as client:
            for _ in range(2):
                await client.send(post({**HELLO, "stream": asks_stream}))
                assert (await client.response()).status == 200
        assert upstream.accepted == accepted


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "translated"])
async def test_streams_share_a_connection(direct: bool) -> None:
    stream = CHUNKED + as_chunks(*(DIRECT if direct else TRANSLATED).values()) + b"0\r\n\r\n"
    async with no_leaks(), RawUpstream(lambda _: [stream]).running() as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, "direct": direct}
        async with running_proxy([entry]) as base, RawClient.to(base) as client:
            for _ in range(3):
                await client.send(post(HELLO))
                assert (await client.response()).status == 200
        assert upstream.accepted == 1
