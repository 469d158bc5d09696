"""An upstream and a client that see every byte: plain sockets, no HTTP library between a test and the wire."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.servers import running_server

__all__ = [
    "RawUpstream",
    "Reply",
    "exchange",
    "headers_of",
    "plain_reply",
    "post",
    "running_raw",
    "stream_reply",
    "unchunked",
]

WAIT_S = 20


@dataclass
class Reply:
    """What the upstream writes: a head, and a body in the pieces it is cut into."""

    head: bytes
    pieces: Sequence[bytes]


@dataclass
class RawUpstream:
    """Answers each connection's requests; `heads` and `bodies` are what came."""

    base: str = ""
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


def stream_reply(body: bytes, cuts: Sequence[int] = (), more: bytes = b"") -> Reply:
    """An event stream in chunked encoding, cut at `cuts`."""
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    chunks = [body[a:b] for a, b in itertools.pairwise(edges)]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        + more
        + b"\r\n"
    )
    return Reply(head, [*(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"])


def plain_reply(body: bytes, status: bytes = b"200 OK", more: bytes = b"") -> Reply:
    """A body with its length."""
    return Reply(b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n" % (status, more, len(body)), [body])


@asynccontextmanager
async def running_raw(response: Callable[[bytes, bytes], Reply]) -> AsyncIterator[RawUpstream]:
    """Serve on a free port; `answer` is given the head and the body of each request."""
    upstream = RawUpstream()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                upstream.heads.append(head)
                upstream.bodies.append(body)
                reply = response(head, body)
                writer.write(reply.head)
                for chunk in reply.pieces:
                    writer.write(chunk)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with running_server(serve) as port:
        upstream.base = f"http://127.0.0.1:{port}"
        yield upstream


async def exchange(base: str, request: bytes) -> tuple[bytes, bytes]:
    """Send `request`, which must close the connection; return head and body of the response, without chunks."""
    host, port = base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        response = await asyncio.wait_for(reader.read(), WAIT_S)
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = response.partition(b"\r\n\r\n")
    return head, unchunked(body) if b"transfer-encoding: chunked" in head.lower() else body


def unchunked(data: bytes) -> bytes:
    """The content of a chunked body."""
    content = bytearray()
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        content += rest[:length]
        data = rest[length + 2 :]
    return bytes(content)


def post(body: bytes, *headers: bytes, path: bytes = b"/v1/messages") -> bytes:
    """A request with `body`; the connection closes behind its response."""
    head = (
        b"POST %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
        % path
    )
    return (
        head
        + b"".join(line + b"\r\n" for line in headers)
        + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


def headers_of(head: bytes) -> dict[str, str]:
    """The headers by lower-case name; a name that stands twice fails."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
    found = [(name.strip().lower().decode(), value.strip().decode()) for name, _, value in lines]
    assert len(dict(found)) == len(found), found
    return dict(found)


def _length(head: bytes) -> int:
    return int(headers_of(head).get("content-length", "0"))
