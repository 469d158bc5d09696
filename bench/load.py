"""The load generator: connections that ask, keep every byte of the answer, and know when it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic_ns

from bench.traffic import HEADERS

__all__ = ["Client", "Reply", "raw_request"]

_LAST = b"\r\n0\r\n\r\n"


def raw_request(port: int, body: bytes, path: str = "/v1/messages?beta=true", method: str = "POST") -> bytes:
    """A request as it goes over the wire."""
    headers = {"host": f"127.0.0.1:{port}", **HEADERS, "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Reply:
    """One answer; `done` is set when it is whole."""

    def __init__(self, on_data: Callable[[bytes, int], None] | None) -> None:
        self.pieces: list[bytes] = []
        self.done = asyncio.get_running_loop().create_future()
        self.begun = asyncio.get_running_loop().create_future()
        self.on_data = on_data
        self._head_end = 0
        self._missing: int | None = None
        self._tail = b""

    def take(self, data: bytes) -> bool:
        """Take what was received; True at the end of the answer."""
        if self.on_data is not None:
            self.on_data(data, monotonic_ns())
        self.pieces.append(data)
        if not self._head_end:
            received = b"".join(self.pieces)
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head_end = end + 4
            head = received[:end].lower()
            if b"\r\ncontent-length:" in head:
                length = head.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]
                self._missing = self._head_end + int(length)
            data = received[self._head_end - 2 :]
        if not self.begun.done() and sum(map(len, self.pieces)) > self._head_end:
            self.begun.set_result(None)
        if self._missing is not None:
            return sum(map(len, self.pieces)) >= self._missing
        self._tail = (self._tail + data)[-len(_LAST) :]
        return self._tail == _LAST

    @property
    def status(self) -> int:
        return int(self.pieces[0].split(b" ", 2)[1])

    def body(self) -> bytes:
        """The body without its transfer coding."""
        received = b"".join(self.pieces)
        if self._missing is not None:
            return received[self._head_end :]
        parts: list[bytes] = []
        at = self._head_end
        while True:
            end = received.index(b"\r\n", at)
            size = int(received[at:end], 16)
            if not size:
                return b"".join(parts)
            parts.append(received[end + 2 : end + 2 + size])
            at = end + 4 + size


class Client(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        self._reply: Reply | None = None

    @classmethod
    async def connect(cls, port: int) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, raw: bytes, on_data: Callable[[bytes, int], None] | None = None) -> Reply:
        """Ask; the reply fills itself."""
        self._reply = Reply(on_data)
        self._transport.write(raw)
        return self._reply

    async def ask(self, raw: bytes) -> Reply:
        """Ask, and wait for the whole answer."""
        reply = self.send(raw)
        await reply.done
        return reply

    def data_received(self, data: bytes) -> None:
        if self._reply is not None and self._reply.take(data):
            reply, self._reply = self._reply, None
            reply.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        reply, self._reply = self._reply, None
        for future in (reply.begun, reply.done) if reply else ():
            if not future.done():
                future.set_exception(ConnectionError("the connection was closed before the answer was whole"))
                future.exception()

    def close(self) -> None:
        self._transport.close()
