"""The load generator: client connections that keep every byte of a response and its time of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic_ns

from bench.traffic import HEADERS

__all__ = ["Client", "Response", "raw_request"]

_LAST_CHUNK = b"\r\n0\r\n\r\n"


def raw_request(
    port: int,
    body: bytes,
    path: str = "/v1/messages?beta=true",
    method: str = "POST",
    more: Mapping[str, str] | None = None,
) -> bytes:
    """Build the bytes of a request, with `more` headers."""
    headers = {
        "host": f"127.0.0.1:{port}",
        **HEADERS,
        **(more or {}),
        "content-length": str(len(body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Response:
    """One response as it arrives; `started` and `done` are set with its first body bytes and at its end."""

    def __init__(self, on_data: Callable[[bytes, int], None] | None) -> None:
        self.chunks: list[bytes] = []
        self.done = asyncio.get_running_loop().create_future()
        self.started = asyncio.get_running_loop().create_future()
        self.on_data = on_data
        self._head_end = 0
        self._missing: int | None = None
        self._tail = b""

    def feed(self, data: bytes) -> bool:
        """Add received bytes; return True at the end of the response."""
        if self.on_data is not None:
            self.on_data(data, monotonic_ns())
        self.chunks.append(data)
        if not self._head_end:
            received = b"".join(self.chunks)
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head_end = end + 4
            head = received[:end].lower()
            if b"\r\ncontent-length:" in head:
                length = head.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]
                self._missing = self._head_end + int(length)
            data = received[self._head_end - 2 :]
        if not self.started.done() and sum(map(len, self.chunks)) > self._head_end:
            self.started.set_result(None)
        if self._missing is not None:
            return sum(map(len, self.chunks)) >= self._missing
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        return self._tail == _LAST_CHUNK

    @property
    def status(self) -> int:
        return int(self.chunks[0].split(b" ", 2)[1])

    def body(self) -> bytes:
        """Return the body without its transfer coding."""
        received = b"".join(self.chunks)
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
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._response: Response | None = None

    @classmethod
    async def connect(cls, port: int) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, raw: bytes, on_data: Callable[[bytes, int], None] | None = None) -> Response:
        """Send a request; its response is filled as bytes arrive."""
        self._response = Response(on_data)
        self._transport.write(raw)
        return self._response

    async def request(self, raw: bytes) -> Response:
        """Send a request and wait for the end of its response."""
        response = self.send(raw)
        await response.done
        return response

    def data_received(self, data: bytes) -> None:
        if self._response is not None and self._response.feed(data):
            response, self._response = self._response, None
            response.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        response, self._response = self._response, None
        for future in (response.started, response.done) if response else ():
            if not future.done():
                future.set_exception(
                    ConnectionError("the connection was closed before the response was complete")
                )
                future.exception()

    def close(self) -> None:
        self._transport.close()
