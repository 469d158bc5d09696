"""Both ends of the proxy as bare sockets, so that they can break every rule of HTTP.

`RawUpstream` plays steps at each connection: bytes are written unchanged, other steps are faults.
`RawClient` writes bytes and reads with a parser of its own, which reports how the response ended.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.servers import stop_accepting

__all__ = [
    "Fault",
    "Pause",
    "Play",
    "RawClient",
    "RawResponse",
    "RawUpstream",
    "Trickle",
    "ask",
    "complaints",
    "deaf_client",
    "no_leaks",
    "post",
    "until",
]

#: Nothing here takes longer unless it hangs.
BOUND_S = 30.0


class Fault(enum.Enum):
    """How an upstream breaks a response off."""

    RESET = "TCP reset"
    CLOSE = "close"
    STALL = "silence until the peer leaves"


@dataclass(frozen=True)
class Trickle:
    """Bytes sent one at a time, each with a write of its own."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """A pause of an upstream, for tests in which time passes anyway."""

    seconds: float


Step = bytes | Fault | Trickle | Pause | asyncio.Event
#: What to play at the n-th request (from 0) that asks for `head`.
Play = Callable[[int], Iterable[Step]]


@dataclass
class RawUpstream:
    """A listening socket whose responses are written by hand.

    Attributes:
        heads, bodies: what was received, in order.
        open_connections: how many the peer has not closed yet.
        accepted: how many connections there have been.
        writers: of all connections, in order.
        tls: serve TLS, as localhost.
    """

    play: Play
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    open_connections: int = 0
    accepted: int = 0
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def base(self) -> str:
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[RawUpstream]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await stop_accepting(*server.sockets)
            server.close()
            for _ in range(20):  # both ends share this loop: it has not read yet that the peer has left
                if not self._tasks:
                    break
                await asyncio.sleep(0)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self.writers:
                writer.transport.abort()  # one that is closed waits until its peer has read all
            self.writers.clear()
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        self.accepted += 1
        self.writers.append(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the peer has closed the connection
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            body = await reader.readexactly(length)
            self.heads.append(head)  # together with the body, so that both lists have the same length
            self.bodies.append(body)
            for step in self.play(len(self.heads) - 1):
                if isinstance(step, Fault):
                    await self._fail(step, reader, writer)
                    return
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Trickle):
                    for at in range(len(step.data)):
                        await self._write(writer, step.data[at : at + 1], turns=1)
                else:
                    await self._write(writer, step, turns=5)

    @staticmethod
    async def _write(writer: asyncio.StreamWriter, data: bytes, turns: int) -> None:
        """Write once, and yield to the loop often enough that the peer reads this write alone."""
        writer.write(data)
        await writer.drain()
        for _ in range(turns):
            await asyncio.sleep(0)

    @staticmethod
    async def _fail(fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault is Fault.RESET:
            # Without lingering a close is a reset. What was written before must have been read first.
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.transport.abort()
        elif fault is Fault.CLOSE and writer.can_write_eof():
            writer.write_eof()
        elif fault is Fault.CLOSE:  # TLS has no half of a connection
            writer.close()
        while await reader.read(65536):
            pass


@dataclass
class RawResponse:
    """A response that a client has read.

    Attributes:
        is_whole: the body ended as its framing says; False if it was truncated.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    def error(self) -> tuple[str, str]:
        """Type and message of an error body."""
        error = json.loads(self.body)["error"]
        return error["type"], error["message"]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """The event stream, pings and all."""
        found = []
        for frame in self.body.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in frame.split("\n") if ": " in line)
            if fields:
                found.append((fields.get("event", ""), json.loads(fields["data"])))
        return found


class RawClient:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def to(cls, base: str) -> AsyncIterator[RawClient]:
        host, _, port = base.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Reset the connection."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.writer.transport.abort()

    async def response(self, within_s: float = BOUND_S) -> RawResponse:
        """Read one whole response: its head `within_s`, and the rest `within_s`."""
        return await self.rest(*await self.head(within_s), within_s)

    async def rest(self, status: int, headers: dict[str, str], within_s: float = BOUND_S) -> RawResponse:
        """Read what follows a `head` that was read before."""
        return await asyncio.wait_for(self._rest(status, headers), within_s)

    async def head(self, within_s: float = BOUND_S) -> tuple[int, dict[str, str]]:
        """Read status and headers."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), within_s)
        first, *lines = raw.decode("latin-1").strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def is_closed(self) -> bool:
        """Whether the proxy closes the connection now, without another byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), BOUND_S) == b""
        except ConnectionError:
            return True

    async def _rest(self, status: int, headers: dict[str, str]) -> RawResponse:
        body, is_whole = b"", False
        try:
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            else:
                body = await self.reader.readexactly(int(headers["content-length"]))
            is_whole = True
        except asyncio.IncompleteReadError as exc:
            body += exc.partial
        except ConnectionError:
            pass
        return RawResponse(status, headers, body, is_whole)


async def ask(base: str, request: bytes) -> RawResponse:
    """Send one request on a connection of its own; return the response."""
    async with RawClient.to(base) as client:
        await client.send(request)
        return await client.response()


def post(payload: Any, *more: str, path: str = "/v1/messages", host: str = "127.0.0.1") -> bytes:
    """A request as bytes; `more` are header lines."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def complaints(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the log lines that report an internal error. asyncio's debug lines about slow steps do not count: a busy
    machine causes them, or a hook of an earlier test that still blocks.
    """
    events = ("request.crashed", "library.log", "loop.exception")
    return [
        line
        for line in lines
        if line["event"] in events and not str(line.get("message", "")).startswith("Executing ")
    ]


async def until(condition: Callable[[], bool], within_s: float = BOUND_S) -> None:
    """Wait until a condition of this process is true.

    Raises:
        AssertionError: it was not true within `within_s`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not condition():
        assert loop.time() < deadline, f"not within {within_s:g} s"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Check that tasks and descriptors are afterwards what they were before."""
    tasks, files = asyncio.all_tasks(), _open_files()
    yield
    await until(lambda: asyncio.all_tasks() <= tasks)
    await until(lambda: _open_files() <= files)


def _open_files() -> int:
    gc.collect(0)
    return len(os.listdir("/dev/fd"))


@asynccontextmanager
async def deaf_client(base: str, payload: dict[str, Any]) -> AsyncIterator[RawClient]:
    """A client with a small receive buffer that has sent a request and does not read."""
    host, port = base.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # As over a network; for the segments of loopback, 64 KB each, the system takes 2.5 MB from the peer.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1200)
    sock.connect((host, int(port)))
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    try:
        await RawClient(reader, writer).send(post(payload))
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
