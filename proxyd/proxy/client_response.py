"""The client's side of one call: the response, its pings, and a client that stops reading.

aiohttp parses the request and owns the connection. Head and framing of the response are written here, straight to the
transport: the head goes out with the first bytes of the body, and each chunk of a stream is one write.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic, time

from aiohttp import HttpVersion11, web

from proxyd.codecs.anthropic.events import PING
from proxyd.codecs.wire.http1_body import chunk_of
from proxyd.proxy.aiohttp_server import LAST_RESPONSE, WRITTEN_RESPONSE, drain
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.timers import TICK_S, Timers

__all__ = ["SSE_HEADERS", "ClientGone", "ResponseWriter"]

SSE_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)

#: How often within `write_stall_s` it is checked whether the client has read anything.
_STALL_CHECKS = 4


class ClientGone(Exception):
    """The client has closed its connection, or has not read for too long."""


#: Statuses whose responses have no body, whatever their heads say (RFC 9112, 6.3). A 205 has the body that its framing
#: says.
_BODILESS = frozenset({204, 304})
#: Characters that would end a header, or are not allowed in one (RFC 9110, 5.5; docs/spec/operations.md#e9).
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class ResponseWriter:
    """Writes whole frames to the client.

    The response is committed by the first write, or after a delay (docs/spec/design.md#p2, `commit_after`). From then
    on a ping is sent after each silence of `ping_s`. A write is always whole frames, so nothing can cut one.

    Args:
        record: updated with all that is written.
        ping_s: silence after which a ping is sent, 0 for never.
        write_stall_s: how long a client may read nothing before its connection is aborted.
        is_last: whether the connection is to be closed after this response.

    Attributes:
        status: of the response.
        is_committed: the head of the response has been sent.
    """

    def __init__(
        self,
        request: web.Request,
        timers: Timers,
        record: CallRecord,
        *,
        ping_s: float,
        write_stall_s: float,
        is_last: Callable[[], bool] = bool,
    ) -> None:
        self._request = request
        self._transport = request.transport  # it stays here when the connection is lost
        self._timers = timers
        self._record = record
        self._ping_s = ping_s
        self._write_stall_s = write_stall_s
        self._is_last = is_last
        self._opening: Callable[[], bytes] | None = None
        self._written_at = 0.0  # by the monotonic clock
        self._unsent_bytes = 0  # what the transport held at the last check
        self._stalled_checks = 0
        self.status = 200
        self._headers: list[tuple[str, str]] = []
        self.is_committed = False
        self._keeps_alive = False
        self._has_body = True
        self._is_chunked = False
        self._left_bytes: int | None = None  # of a body with content-length
        self.on_sent: Callable[[bytes], None] | None = None  # called with all bytes that were sent

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns: the response has been written, or its client is gone."""
        return WRITTEN_RESPONSE if self._keeps_alive else LAST_RESPONSE

    def set_head(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        *,
        is_stream: bool,
    ) -> None:
        """Set status and headers; pings are off where the body is no event stream."""
        self.status, self._headers = status, list(headers)
        if not is_stream:
            self._ping_s = 0

    def commit_after(self, delay_s: float, opening: Callable[[], bytes]) -> None:
        """Commit in `delay_s` seconds with the bytes of `opening`, unless a write comes first."""
        self._opening = opening
        self._timers.set(self._commit, delay_s)

    def stay_uncommitted(self) -> None:
        """Cancel `commit_after`: the attempt whose message it would have begun is over."""
        self._opening = None
        self._timers.clear(self._commit)

    @property
    def is_writable(self) -> bool:
        """Whether the client has taken all that was written, so that another write need not wait."""
        transport = self._transport
        return transport is not None and not transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send whole frames, after the head if it has not gone out. Does not wait.

        Raises:
            ClientGone: the connection is closed.
        """
        self._send(data)
        self._record.on_written(data)
        if self.on_sent is not None:
            self.on_sent(data)

    async def drained(self) -> None:
        """Return when the client has taken enough of what was written.

        Raises:
            ClientGone: the client does not read any more.
        """
        if not self.is_writable:
            self._unsent_bytes = self._stalled_checks = 0
            self._timers.set(self._check_stall, self._write_stall_s / _STALL_CHECKS)
        try:
            await drain(self._request)
        except ConnectionError:
            raise ClientGone from None
        finally:
            self._timers.clear(self._check_stall)

    def stop_pings(self) -> None:
        """Send no further pings: none may follow the last event, however long the end of the body takes."""
        self._ping_s = 0
        self._timers.clear(self._ping)

    async def finish(self, data: bytes = b"") -> None:
        """Send the last frames and end the body, in one write.

        Raises:
            ClientGone: the client does not read any more.
        """
        self._send(data, is_last=True)
        self._record.on_written(data)
        if self.on_sent is not None:
            self.on_sent(data)
        self.stop_pings()
        await self.drained()

    def abort(self) -> None:
        """Close the connection at once, and drop what is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, data: bytes, *, is_last: bool = False) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ClientGone
        if self.is_committed:
            transport.write(self._framed(data, is_last=is_last))
        else:
            head = self._begin()
            transport.write(head + self._framed(data, is_last=is_last))
            self.stay_uncommitted()
            self._timers.set(self._ping, self._ping_s)
        self._written_at = monotonic()

    def _begin(self) -> bytes:
        """Return the head of the response.

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
            lines.append(f"date: {_http_date(int(time()))}")
        if not self._keeps_alive:
            lines.append("connection: close")
        lines += ("", "")
        head = "\r\n".join(lines)
        ends = len(lines) - 1
        if head.count("\n") != ends or head.count("\r") != ends or _FORBIDDEN.search(head):
            raise ValueError("a header's value holds a character that no header may hold")
        self.is_committed, self._is_chunked = True, is_chunked
        # An upstream's headers that are not UTF-8 were decoded with surrogates.
        return head.encode("utf-8", "surrogateescape")

    def _framed(self, data: bytes, *, is_last: bool) -> bytes:
        if not self._has_body:
            return b""
        if self._is_chunked:
            if is_last:
                return chunk_of(data) + b"0\r\n\r\n" if data else b"0\r\n\r\n"
            return chunk_of(data) if data else b""
        if self._left_bytes is not None:
            data = data[: self._left_bytes]
            self._left_bytes -= len(data)
            if is_last and self._left_bytes:
                self._keeps_alive = (
                    False  # shorter than its content-length: only a closed connection shows that
                )
        return data

    def _commit(self) -> None:
        if self._opening is not None:
            self._write_if_there(self._opening())

    def _ping(self) -> None:
        """Send a ping if nothing was written for `ping_s`; else postpone it to that moment."""
        silence_s = monotonic() - self._written_at
        if silence_s >= self._ping_s - TICK_S:
            if self.is_writable:  # else the client has something to read
                self._write_if_there(PING)
            silence_s = 0
        self._timers.set(self._ping, self._ping_s - silence_s)

    def _write_if_there(self, data: bytes) -> None:
        try:
            self.write(data)
        except ClientGone:
            pass  # its call is cancelled, or finds out with its next write

    def _check_stall(self) -> None:
        """Abort if the client has read nothing for `write_stall_s`. One that reads slowly may take any time."""
        transport = self._transport
        unsent_bytes = 0 if transport is None else transport.get_write_buffer_size()
        self._stalled_checks = self._stalled_checks + 1 if unsent_bytes >= self._unsent_bytes else 0
        self._unsent_bytes = unsent_bytes
        if self._stalled_checks >= _STALL_CHECKS:
            self.abort()
        else:
            self._timers.set(self._check_stall, self._write_stall_s / _STALL_CHECKS)


@functools.lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    """Return a time as in the header ``Date``."""
    return formatdate(second, usegmt=True)


@functools.lru_cache(maxsize=256)
def _status_line(status: int) -> str:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    return f"HTTP/1.1 {status} {reason}"
