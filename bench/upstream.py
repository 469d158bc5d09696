"""The scripted upstream: ``python -m bench.upstream PORT [--tls TLS_PORT CERTIFICATE KEY] [--idle-s SECONDS]``.

The model's name selects a response whose bytes were built before the first request, so that the upstream uses little
CPU on the machine it shares with the contender. ``bench-paced-R`` sends R chunks a second until ``POST /finish``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import ssl
from time import monotonic_ns

from bench.dialects import DIALECTS, NUMBER, Dialect
from bench.traffic import PACED, RESPONSES, STAMP_TEMPLATE

__all__ = ["main"]

_MODEL = re.compile(rb'"model": ?"bench-([a-z0-9-]+)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODEL_IN_TARGET = re.compile(rb"/bench-([a-z0-9-]+):")
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


def _chunked(data: bytes) -> bytes:
    # A chunk of no bytes would end the body.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class _Paced:
    """The bytes of paced streams in one protocol.

    Attributes:
        template: a chunk, with places for its number and the time.
    """

    def __init__(self, dialect: Dialect) -> None:
        stamp = STAMP_TEMPLATE % (0, 0)
        dialect.start()
        self.start = _HEAD + _chunked(dialect.begin("text"))
        frame = dialect.delta("text", stamp, NUMBER).replace(b"%", b"%%")
        # Some protocols number their chunks, or count tokens; the number has always the same length here.
        frame = frame.replace(str(NUMBER).encode(), b"%(number)09d")
        frame = frame.replace(stamp.encode(), b"<%(count)07d %(now)017d>")
        size = len(frame % self._values(0))
        self.template = b"%x\r\n%b\r\n" % (size, frame)
        self.end = _chunked(dialect.end("text", "") + dialect.finish([("text", "")])) + _LAST_CHUNK

    @staticmethod
    def _values(count: int) -> dict[bytes, int]:
        return {b"number": 100_000_000 + count, b"count": count, b"now": monotonic_ns()}

    def chunk(self, count: int) -> bytes:
        return self.template % self._values(count)


class _Library:
    """The bytes of all responses."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], bytes] = {}
        self.paced = {name: _Paced(dialect) for name, dialect in DIALECTS.items()}
        for name in RESPONSES:
            if not name.endswith(("00k", "40k")):  # large ones are built on first use
                for dialect in DIALECTS:
                    self.stream(name, dialect)

    def stream(self, name: str, dialect: str) -> bytes:
        key = name, dialect
        if key not in self._streams:
            frames = DIALECTS[dialect].frames(RESPONSES[name].deltas)
            self._streams[key] = _HEAD + b"".join(map(_chunked, frames)) + _LAST_CHUNK
        return self._streams[key]

    @staticmethod
    def message(name: str, dialect: str) -> bytes:
        body = DIALECTS[dialect].body(RESPONSES[name].expected().text)
        return _JSON_HEAD % len(body) + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests are not pipelined."""

    paced: set[_Connection] = set()  # noqa: RUF012 - shared: all finish together

    def __init__(self, library: _Library, idle_s: float = 0.0) -> None:
        self._library = library
        self._idle_s = idle_s
        self._idle_timer: asyncio.TimerHandle | None = None
        self._chunks: list[bytes] = []
        self._missing = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._await_request()

    def _await_request(self) -> None:
        """Close the connection if no request comes for the time that was set."""
        if self._idle_s:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self.paced.discard(self)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._chunks.append(data)
        if self._missing:
            self._missing -= len(data)
        else:
            received = b"".join(self._chunks)
            self._chunks = [received]
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(received, 0, end + 2)
            self._missing = end + 4 + (int(length[1]) if length else 0) - len(received)
        if self._missing <= 0:
            self._missing = 0
            received, self._chunks = b"".join(self._chunks), []
            self._respond(received)

    def _respond(self, received: bytes) -> None:
        target = received.split(b" ", 2)[1]
        if target == b"/finish":
            for each in list(self.paced):
                each.finish()
            self._transport.write(_JSON_HEAD % 2 + b"{}")
            return
        dialect = next((name for name, each in DIALECTS.items() if each.target.search(target)), "anthropic")
        model = _MODEL_IN_TARGET.search(target) or _MODEL.search(received)
        if model is None:
            body = b'{"error":{"message":"no such model","type":"invalid_request_error"}}'
            self._transport.write(_JSON_HEAD.replace(b"200 OK", b"400 Bad") % len(body) + body)
            return
        name = model[1].decode()
        if name.startswith(PACED):
            self._start_paced(dialect, int(name.removeprefix(PACED + "-")))
        elif DIALECTS[dialect].streams.search(received):
            self._transport.write(self._library.stream(name, dialect))
            self._await_request()
        else:
            self._transport.write(self._library.message(name, dialect))
            self._await_request()

    def _start_paced(self, dialect: str, rate: int) -> None:
        self._paced, self._interval_s, self._count = self._library.paced[dialect], 1 / rate, 0
        self._transport.write(self._paced.start)
        self.paced.add(self)
        self._next_at = asyncio.get_running_loop().time()
        self._tick()

    def _tick(self) -> None:
        self._transport.write(self._paced.chunk(self._count))
        self._count += 1
        self._next_at += self._interval_s
        self._timer = asyncio.get_running_loop().call_at(self._next_at, self._tick)

    def finish(self) -> None:
        self.paced.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._transport.write(self._paced.end)


async def _serve(port: int, tls_port: int, tls: ssl.SSLContext | None, idle_s: float) -> None:
    library = _Library()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(library, idle_s), "127.0.0.1", port, backlog=2048)
    if tls is not None:
        await loop.create_server(
            lambda: _Connection(library, idle_s), "127.0.0.1", tls_port, backlog=2048, ssl=tls
        )
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.upstream")
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", nargs=3, metavar=("TLS_PORT", "CERTIFICATE", "KEY"))
    parser.add_argument("--idle-s", type=float, default=0.0, help="close idle connections after so long")
    args = parser.parse_args()
    tls_port, tls = 0, None
    if args.tls:
        tls_port = int(args.tls[0])
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*args.tls[1:])
    asyncio.run(_serve(args.port, tls_port, tls, args.idle_s))


if __name__ == "__main__":
    main()
