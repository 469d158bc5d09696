"""A large request is written in slices, as fast as its upstream reads, and is whole in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proxyd.transport.connection import ReadBuffer, UpstreamConnection
from tests.support.servers import running_server

#: More than the sockets of both ends hold.
BODY = bytes(range(256)) * (64 * 1024)
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the sizes of what is written from now on."""
    sizes: list[int] = []
    made = UpstreamConnection.connection_made

    def connection_made(self: UpstreamConnection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        assert isinstance(transport, asyncio.Transport)
        write = transport.write

        def recorded(data: bytes) -> None:
            sizes.append(len(data))
            write(data)

        monkeypatch.setattr(transport, "write", recorded, raising=True)

    monkeypatch.setattr(UpstreamConnection, "connection_made", connection_made)
    return sizes


async def _connected(port: int) -> UpstreamConnection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: UpstreamConnection(ReadBuffer()), "127.0.0.1", port)
    return connection


@asynccontextmanager
async def _serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve one connection; the port. All is closed at the end."""
    has_ended = asyncio.Event()

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass
        finally:
            has_ended.set()

    async with running_server(serve_and_close, limit=1024) as port:
        try:
            yield port
        finally:
            await asyncio.wait_for(has_ended.wait(), 20)


async def test_a_large_body_is_written_in_slices(slices: list[int]) -> None:
    received = bytearray()
    may_read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        while len(received) < len(HEAD) + len(BODY):
            received.extend(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with _serving(serve) as port:
        connection = await _connected(port)
        head = connection.send_request(HEAD, BODY, decodes=False, has_body=True)
        assert not connection.is_fully_sent
        assert sum(slices) < len(BODY), "the rest waits until the upstream reads"
        may_read.set()
        assert (await asyncio.wait_for(head, 20)).status == 204
        assert bytes(received) == HEAD + BODY
        assert connection.is_fully_sent
        assert max(slices) <= 512 * 1024
        connection.close()


async def test_a_connection_that_is_closed_writes_no_more(slices: list[int]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with _serving(serve) as port:
        connection = await _connected(port)
        connection.send_request(HEAD, BODY, decodes=False, has_body=True).add_done_callback(
            lambda done: done.exception()
        )
        connection.close()
        written = sum(slices)
        connection.resume_writing()
        assert sum(slices) == written < len(BODY)
