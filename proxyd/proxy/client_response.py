"""The client's side of one call: the response, its pings, and a client that stops reading.

aiohttp parses the request and keeps the connection. The response is written here, head and framing, straight to the
transport: the head goes out with the first bytes of the body, and a piece of a stream is one write.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from time import monotonic

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11

from proxyd.codecs.anthropic.events import PING
from proxyd.codecs.wire.http1_body import chunk_of
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.timers import TICK_S, Timers

__all__ = ["SSE_HEADERS", "ClientGone", "ResponseWriter"]

SSE_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)

#: How often within `write_stall_s` a client that takes nothing is looked at.
_STALL_LOOKS = 4


class ClientGone(Exception):
    """The client has closed its connection, or has not read for too long."""


#: What a write may bring without filling an empty transport to its high-water mark (asyncio's is 64 KiB).
_SMALL_BYTES = 32 * 1024

#: Statuses whose responses have no body, whatever their heads say (RFC 9112, 6.3). A 205 has the one that it is framed
#: with.
_BODILESS = frozenset({204, 304})
#: Characters that would end a header, or that no header may hold (RFC 9110, 5.5; docs/spec/operations.md#e9).
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _Written(web.StreamResponse):
    """What aiohttp is given for a response that has been written: it has nothing left to do."""

    _eof_sent = True


class _WrittenLast(_Written):
    """And closes the connection."""

    _keep_alive = False


class _WrittenNotLast(_Written):
    _keep_alive = True


#: One of each will do: nothing is written into them.
_LAST, _NOT_LAST = _WrittenLast(), _WrittenNotLast()


class ResponseWriter:
    """Writes whole frames to the client.

    The response is committed by the first write, or by silence (docs/spec/design.md#p2, `commit_after`). From there
    on a silence of `ping_s` is filled with a ping. Both happen between two writes, and a write is always whole
    frames, so neither can cut one.

    Args:
        record: is told of all that is written, but by `push`.
        ping_s: silence after which a ping is sent, 0 for never.
        write_stall_s: how long a client may take no byte before its connection is aborted.
        is_last: whether the connection is to close behind this response.

    Attributes:
        status: of the response.
    """

    def __init__(
        self,
        request: web.Request,
        deadlines: Timers,
        record: CallRecord,
        *,
        ping_s: float,
        write_stall_s: float,
        is_last: Callable[[], bool] = bool,
    ) -> None:
        self._request = request
        self._deadlines = deadlines
        self._record = record
        self._ping_s = ping_s
        self._write_stall_s = write_stall_s
        self._is_last = is_last
        self._opening: Callable[[], bytes] | None = None
        self._aside: asyncio.Task[None] | None = None  # a write that nobody awaits yet
        self._is_writing = False
        self._unsent_bytes = 0  # what the transport held at the last look
        self._looks_in_vain = 0
        self.status = 200
        self._headers: list[tuple[str, str]] = []
        self._is_begun = False  # the head has gone out
        self._keeps_alive = False
        self._has_body = True
        self._left_bytes: int | None = None  # of a body that was given its length
        self._chunks_to: asyncio.Transport | None = None  # once begun, where each piece has its length ahead
        self.on_sent: Callable[[bytes], None] | None = None  # is told of what the client has been sent

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns: all of it has been written, or nobody is there who would read it."""
        return _NOT_LAST if self._keeps_alive else _LAST

    @property
    def is_committed(self) -> bool:
        """The client has been promised this response, or is being."""
        return self._is_begun or self._aside is not None

    def set_head(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        *,
        is_stream: bool,
    ) -> None:
        """Say what the head will be; no pings where the body is no event stream."""
        self.status, self._headers = status, list(headers)
        if not is_stream:
            self._ping_s = 0

    def commit_after(self, delay_s: float, opening: Callable[[], bytes]) -> None:
        """Commit in `delay_s` seconds, with what `opening` gives, unless a write comes first."""
        self._opening = opening
        self._deadlines.set(self._silence_is_over, delay_s)

    def stay_uncommitted(self) -> None:
        """Take `commit_after` back: the attempt whose message it would have begun is over."""
        self._deadlines.clear(self._silence_is_over)

    def is_writable(self) -> bool:
        """The client has taken all that was written of its stream: one more piece can be, without waiting."""
        transport = self._chunks_to
        return (
            transport is not None
            and self._aside is None
            and not transport.get_write_buffer_size()
            and not transport.is_closing()
        )

    def push(self, data: bytes) -> None:
        """Send whole frames to a client that `is_writable`. The record is for the caller to tell."""
        assert self._chunks_to is not None, "it keeps up"
        self._chunks_to.write(chunk_of(data))
        if self.on_sent is not None:
            self.on_sent(data)

    async def write(self, data: bytes) -> None:
        """Send whole frames; returns when the client has taken enough of them.

        Raises:
            ClientGone: nobody is reading any more.
        """
        if self._aside is not None:
            await self._join()
        if data and self.is_writable():
            self.push(data)
            self._record.on_written(data)
        else:
            await self._write(data)

    def stay_silent(self) -> None:
        """The client has the last event: no ping may follow it, however long the end of the body takes."""
        self._ping_s = 0
        self._deadlines.clear(self._ping)

    async def finish(self, data: bytes = b"") -> None:
        """Send the last frames and end the body, in one write.

        Raises:
            ClientGone: nobody is reading any more.
        """
        if self._aside is not None:
            await self._join()
        await self._write(data, is_last=True)
        self._deadlines.clear(self._ping)

    def abort(self) -> None:
        """Close the connection at once, whatever is still in its buffers."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def close(self) -> None:
        """Let go of a write that may still be under way."""
        aside, self._aside = self._aside, None
        if aside is not None:
            aside.cancel()
            await asyncio.gather(aside, return_exceptions=True)

    async def _write(self, data: bytes, *, is_last: bool = False) -> None:
        self._is_writing = True
        transport = self._request.transport
        if len(data) > _SMALL_BYTES or transport is None or transport.get_write_buffer_size():
            self._watch_stall()  # else it cannot wait
        try:
            begun, head = self._is_begun, b"" if self._is_begun else self._begin()
            if transport is None or transport.is_closing():
                raise ClientGone
            transport.write(head + self._framed(data, is_last=is_last))
            if not begun:
                self._deadlines.clear(self._silence_is_over)
                self._deadlines.set(self._ping, self._ping_s)
            await self._request.writer.drain()
        except ConnectionError:
            raise ClientGone from None
        finally:
            self._is_writing = False
            self._deadlines.clear(self._stalled)
        self._note_sent(data)

    def _begin(self) -> bytes:
        """The head of the response.

        Raises:
            ValueError: a value would begin another header.
        """
        request, lines = self._request, [_status_line(self.status)]
        length, has_date = None, False
        for name, value in self._headers:
            lines.append(f"{name}: {value}")
            lowered = name.lower()
            if lowered == "content-length":
                length = int(value)
            elif lowered == "date":
                has_date = True
        self._has_body = request.method != "HEAD" and self.status not in _BODILESS
        is_chunked = self._has_body and length is None and request.version >= HttpVersion11
        self._left_bytes = length
        if is_chunked:
            lines.append("transfer-encoding: chunked")
        has_end = is_chunked or length is not None or not self._has_body
        self._keeps_alive = (
            has_end and request.version >= HttpVersion11 and request.keep_alive and not self._is_last()
        )
        if not has_date:
            lines.append(f"date: {rfc822_formatted_time()}")
        if not self._keeps_alive:
            lines.append("connection: close")
        lines += ("", "")
        head = "\r\n".join(lines)
        ends = len(lines) - 1
        if head.count("\n") != ends or head.count("\r") != ends or _FORBIDDEN.search(head):
            raise ValueError("a header's value holds a character that no header may hold")
        self._is_begun = True
        if is_chunked:
            self._chunks_to = request.transport
        # What an upstream sent that is no UTF-8 was read with surrogates in its place.
        return head.encode("utf-8", "surrogateescape")

    def _framed(self, data: bytes, *, is_last: bool) -> bytes:
        if not self._has_body:
            return b""
        if self._chunks_to is not None:
            if is_last:
                return chunk_of(data) + b"0\r\n\r\n" if data else b"0\r\n\r\n"
            return chunk_of(data) if data else b""
        if self._left_bytes is not None:
            data = data[: self._left_bytes]
            self._left_bytes -= len(data)
            if is_last and self._left_bytes:
                self._keeps_alive = False  # it is shorter than was said, which only a closed connection tells
        return data

    def _note_sent(self, data: bytes) -> None:
        if self.on_sent is not None:
            self.on_sent(data)
        self._record.on_written(data)

    async def _join(self) -> None:
        aside, self._aside = self._aside, None
        if aside is not None:
            await aside

    def _write_aside(self, data: bytes) -> None:
        if self._is_writing or (self._aside is not None and not self._aside.done()):
            return  # the client is busy reading: that is no silence
        self._aside = asyncio.ensure_future(self._write(data))
        self._aside.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _silence_is_over(self) -> None:
        if self._opening is not None:
            self._write_aside(self._opening())

    def _ping(self) -> None:
        """Due `ping_s` after the last write: most often there was a later one, and this is put off."""
        self._record.add_up()
        silence_s = monotonic() - self._record.written_at
        if silence_s >= self._ping_s - TICK_S:
            self._write_aside(PING)
            silence_s = 0
        self._deadlines.set(self._ping, self._ping_s - silence_s)

    def _watch_stall(self) -> None:
        self._unsent_bytes = self._looks_in_vain = 0
        self._deadlines.set(self._stalled, self._write_stall_s / _STALL_LOOKS)

    def _stalled(self) -> None:
        """Look whether the client has taken anything; one that reads slowly may take as long as it likes."""
        transport = self._request.transport
        unsent_bytes = 0 if transport is None else transport.get_write_buffer_size()
        self._looks_in_vain = self._looks_in_vain + 1 if unsent_bytes >= self._unsent_bytes else 0
        self._unsent_bytes = unsent_bytes
        if self._looks_in_vain >= _STALL_LOOKS:
            self.abort()
        else:
            self._deadlines.set(self._stalled, self._write_stall_s / _STALL_LOOKS)


@functools.lru_cache(maxsize=256)
def _status_line(status: int) -> str:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    return f"HTTP/1.1 {status} {reason}"
