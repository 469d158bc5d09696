"""The connection pool: bytes on the wire, reuse of connections, and notification of readers."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxyd.codecs.wire.http1_body import Body
from proxyd.transport.faults import InvalidAddress, NotHTTP
from proxyd.transport.pool import ConnectionPool
from proxyd.transport.response import Response
from proxyd.transport.timers import Timers
from tests.support.raw_sockets import Fault, Play, RawUpstream, no_leaks, until
from tests.support.servers import running_server

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def pool_to(play: Play, *, trust_env: bool = False) -> AsyncIterator[tuple[_Pool, RawUpstream]]:
    async with no_leaks(), RawUpstream(play).running() as upstream:
        pool = _Pool(trust_env=trust_env)
        try:
            yield pool, upstream
        finally:
            await pool.close()


class _Pool(ConnectionPool):
    """A pool whose calls have timers of their own."""

    async def request(
        self, method: str, url: str, headers: dict[str, str], body: bytes, **more: bool
    ) -> Response:
        timers = Timers(asyncio.get_running_loop())
        try:
            return await self.call(method, url, headers, body, timers=timers, **more)
        finally:
            timers.close()


async def body_of(response: Response) -> bytes:
    """All of the body, read as an attempt does: taken when notified of an arrival."""
    arrived = asyncio.Event()
    response.on_progress = arrived.set
    body = b""
    while True:
        arrived.clear()
        body += response.take()
        if response.is_over and not response.has_more:
            return body
        if not response.has_more:
            await asyncio.wait_for(arrived.wait(), 30)


async def test_request_bytes() -> None:
    async with pool_to(lambda _: [OK]) as (pool, upstream):
        response = await pool.request(
            "POST", f"{upstream.base}/v1/x?a=%20b", {"x-one": "1", "authorization": "Bearer key"}, b"{}"
        )
        assert (response.status, response.reason, response.content_type) == (200, "OK", "text/plain")
        assert await body_of(response) == b"hi"
        response.release()
        response = await pool.request("GET", f"{upstream.base}/v1/y", {"authorization": "Bearer key"}, b"")
        response.release()
    host = upstream.base.removeprefix("http://").encode()
    assert upstream.heads == [
        b"POST /v1/x?a=%20b HTTP/1.1\r\nHost: " + host + b"\r\nx-one: 1\r\nauthorization: Bearer key\r\n"
        b"content-length: 2\r\n\r\n",
        b"GET /v1/y HTTP/1.1\r\nHost: " + host + b"\r\nauthorization: Bearer key\r\n\r\n",
    ]
    assert upstream.bodies == [b"{}", b""]
    assert upstream.accepted == 1


async def test_header_bytes_that_are_not_utf8_are_forwarded_unchanged() -> None:
    async with pool_to(lambda _: [OK]) as (pool, upstream):
        value = b"na\xefve \xc3\xa9".decode("utf-8", "surrogateescape")
        (await pool.request("GET", f"{upstream.base}/", {"x": value}, b"")).release()
    assert b"\r\nx: na\xefve \xc3\xa9\r\n" in upstream.heads[0]


@pytest.mark.parametrize(
    "headers", [{"x": "a\r\ny: b"}, {"x": "a\nb"}, {"x": "a\0b"}, {"x y": "a"}, {"x:": "a"}, {"": "a"}]
)
async def test_header_injection_is_refused(headers: dict[str, str]) -> None:
    async with pool_to(lambda _: [OK]) as (pool, upstream):
        with pytest.raises(ValueError, match="a header's"):
            await pool.request("POST", f"{upstream.base}/", headers, b"{}")
    assert upstream.heads == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///x", "nonsense"])
async def test_invalid_address_is_refused(url: str) -> None:
    async with pool_to(lambda _: [OK]) as (pool, _):
        with pytest.raises(InvalidAddress):
            await pool.request("POST", url, {}, b"{}")


async def test_credentials_in_a_url_are_sent_as_basic_authentication() -> None:
    async with pool_to(lambda _: [OK]) as (pool, upstream):
        url = upstream.base.replace("http://", "http://user:word@")
        (await pool.request("GET", f"{url}/", {}, b"")).release()
        (await pool.request("GET", f"{url}/", {"authorization": "Bearer k"}, b"")).close()
    assert b"\r\nAuthorization: Basic " + base64.b64encode(b"user:word") + b"\r\n" in upstream.heads[0]
    assert upstream.heads[1].lower().count(b"authorization: ") == 1
    assert b"authorization: Bearer k" in upstream.heads[1]


async def test_interim_responses_are_skipped() -> None:
    async with pool_to(lambda _: [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", OK]) as (pool, up):
        response = await pool.request("GET", f"{up.base}/", {}, b"")
        assert (response.status, await body_of(response)) == (200, b"hi")
        response.release()


@pytest.mark.parametrize("auto_decompress", [True, False])
async def test_compressed_body_is_decompressed_on_request(auto_decompress: bool) -> None:
    compressed = gzip.compress(b"words " * 50_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
    async with pool_to(lambda _: [head, compressed]) as (pool, upstream):
        response = await pool.request("GET", f"{upstream.base}/", {}, b"", auto_decompress=auto_decompress)
        body = await asyncio.wait_for(body_of(response), 30)
        response.release()
    assert body == (b"words " * 50_000 if auto_decompress else compressed)


async def test_reader_is_notified_of_arrivals_the_end_and_a_lost_connection() -> None:
    gates = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
    steps = [CHUNKED, gates[0], chunk(b"one"), gates[1], chunk(b"two"), gates[2], Fault.RESET]
    async with pool_to(lambda _: steps) as (pool, upstream):
        response = await pool.request("GET", f"{upstream.base}/", {}, b"")
        reports: list[bytes] = []
        response.on_progress = lambda: reports.append(b"lost" if response.is_over else response.take())
        for gate, expected in zip(
            gates, ([b"one"], [b"one", b"two"], [b"one", b"two", b"lost"]), strict=True
        ):
            gate.set()
            await until(lambda: bool(reports) and reports[-1] == expected[-1], 30)  # noqa: B023
            assert reports == expected
        assert response.is_over
        response.close()


async def test_reading_pauses_until_the_body_is_taken() -> None:
    """A body larger than the buffer stays in the socket until there is room."""
    data = bytes(range(256)) * 4 * 2048
    chunks = [chunk(data[at : at + 5000]) for at in range(0, len(data), 5000)]
    async with pool_to(lambda _: [CHUNKED, *chunks, END]) as (pool, upstream):
        response = await pool.request("GET", f"{upstream.base}/", {}, b"")
        await asyncio.sleep(0.2)
        assert response._body.waiting_bytes < 256 * 1024
        assert await asyncio.wait_for(body_of(response), 30) == data
        response.release()
    assert upstream.accepted == 1


async def test_exception_in_data_received_closes_the_connection_and_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reports.append(str(what["exception"])))
    gate = asyncio.Event()
    async with pool_to(lambda n: [CHUNKED, gate, chunk(b"one"), END]) as (pool, upstream):
        response = await pool.request("GET", f"{upstream.base}/", {}, b"")
        with monkeypatch.context() as patch:
            patch.setattr(Body, "feed", lambda *_: 1 // 0)
            gate.set()
            await until(lambda: response.is_over, 30)
        assert reports == ["integer division or modulo by zero"]
        response.close()
        response = await pool.request("GET", f"{upstream.base}/", {}, b"")
        assert await body_of(response) == b"one"
        response.release()
    assert upstream.accepted == 2


async def test_connection_is_reused_only_after_its_body_was_read() -> None:
    async with pool_to(lambda _: [OK]) as (pool, upstream):
        for count, is_read in ((1, True), (1, False), (2, True)):
            response = await pool.request("GET", f"{upstream.base}/", {}, b"")
            assert upstream.accepted == count
            if is_read:
                await body_of(response)
                response.release()
            else:
                response.close()


async def test_response_before_the_whole_request_ends_the_connection() -> None:
    """The rest of the request would be read as the next request."""
    taken = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await taken.wait()
        writer.transport.abort()

    pool = _Pool()
    async with running_server(refuse, limit=1024) as port:
        try:
            response = await pool.request("POST", f"http://127.0.0.1:{port}/", {}, b"x" * (64 << 20))
            assert response.status == 413
            protocol = response._protocol
            response.release()
            await until(lambda: not protocol.is_connected, 30)
        finally:
            taken.set()
            await pool.close()


async def test_response_that_is_not_http() -> None:
    async with pool_to(lambda _: [b"SSH-2.0-OpenSSH_9.2\r\n", Fault.CLOSE]) as (pool, upstream):
        with pytest.raises(NotHTTP):
            await pool.request("GET", f"{upstream.base}/", {}, b"")


async def test_proxy_and_netrc_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine upstream.invalid login me password word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("no_proxy", raising=False)
    async with pool_to(lambda _: [OK], trust_env=True) as (pool, upstream):
        monkeypatch.setenv("http_proxy", upstream.base.replace("http://", "http://p:q@"))
        (await pool.request("GET", "http://upstream.invalid/v1/x?y=1", {}, b"")).release()
    head = upstream.heads[0]
    assert head.startswith(b"GET http://upstream.invalid/v1/x?y=1 HTTP/1.1\r\nHost: upstream.invalid\r\n")
    assert b"\r\nAuthorization: Basic " + base64.b64encode(b"me:word") in head
    assert b"\r\nProxy-Authorization: Basic " + base64.b64encode(b"p:q") in head


async def test_missing_head_is_a_timeout() -> None:
    async with pool_to(lambda _: [Fault.STALL]) as (pool, upstream):
        timers = Timers(asyncio.get_running_loop())
        with pytest.raises(asyncio.TimeoutError):
            await pool.call("GET", f"{upstream.base}/", {}, b"", timers=timers, first_byte_s=0.05)
        timers.close()
        await until(lambda: not upstream.open_connections, 30)
