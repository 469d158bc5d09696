"""The client's side of one stream: the response, its pings, and a client that stops reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic

from aiohttp import web
from multidict import CIMultiDict

from proxyd.codecs.events import PING
from proxyd.deadlines import TICK_S, Deadlines
from proxyd.trace import CallTrace

__all__ = ["SSE_HEADERS", "ClientGone", "Downlink"]

SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}

#: How often within `write_stall_s` a client that takes nothing is looked at.
_STALL_LOOKS = 4


class ClientGone(Exception):
    """The client has closed its connection, or has not read for too long."""


#: What a write may bring without filling an empty transport to its high-water mark (asyncio's is 64 KiB).
_SMALL_BYTES = 32 * 1024


class _Stream(web.StreamResponse):
    """Its head goes out with the first bytes of its body: one system call less a request, of four."""

    _send_headers_immediately = False


class Downlink:
    """Writes whole frames to the client.

    The response is committed by the first write, or by silence (design.md 8.2, `commit_after`). From there on a silence
    of `ping_s` is filled with a ping. Both happen between two writes, and a write is always whole frames, so neither
    can cut one.

    Args:
        ping_s: silence after which a ping is sent, 0 for never.
        write_stall_s: how long a client may take no byte before its connection is aborted.
    """

    def __init__(
        self, request: web.Request, deadlines: Deadlines, *, ping_s: float, write_stall_s: float
    ) -> None:
        self._request = request
        self._deadlines = deadlines
        self._ping_s = ping_s
        self._write_stall_s = write_stall_s
        self._opening: Callable[[], bytes] | None = None
        self._aside: asyncio.Task[None] | None = None  # a write that nobody awaits yet
        self._is_writing = False
        self._unsent_bytes = 0  # what the transport held at the last look
        self._looks_in_vain = 0
        self.response: web.StreamResponse = _Stream(headers=SSE_HEADERS)
        self._chunks_to: asyncio.Transport | None = None  # once begun, where each piece has its length ahead
        self._sent_at = 0.0
        self.bytes_sent = 0
        self.on_sent: Callable[[bytes], None] | None = None  # is told of what the client has been sent
        self.trace: CallTrace | None = None

    @property
    def is_committed(self) -> bool:
        """The client has been promised this response, or is being."""
        return self.response.prepared or self._aside is not None

    def set_head(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        *,
        is_stream: bool,
        reason: str | None = None,
    ) -> None:
        """Replace the head that will be sent; no pings where the body is no event stream."""
        self.response = _Stream(status=status, reason=reason, headers=CIMultiDict(headers))
        if not is_stream:
            self._ping_s = 0

    def commit_after(self, delay_s: float, opening: Callable[[], bytes]) -> None:
        """Commit in `delay_s` seconds, with what `opening` gives, unless a write comes first."""
        self._opening = opening
        self._deadlines.set(self._silence_is_over, delay_s)

    def stay_uncommitted(self) -> None:
        """Take `commit_after` back: the attempt whose message it would have begun is over."""
        self._deadlines.clear(self._silence_is_over)

    @property
    def keeps_up(self) -> bool:
        """The client has taken all that was written of its stream: one more piece can be, without waiting."""
        transport = self._chunks_to
        return (
            transport is not None
            and self._aside is None
            and not transport.get_write_buffer_size()
            and not transport.is_closing()
        )

    def push(self, data: bytes) -> None:
        """Send whole frames to a client that `keeps_up`."""
        assert self._chunks_to is not None, "it keeps up"
        self._chunks_to.write(b"%x\r\n%b\r\n" % (len(data), data))
        self._note_sent(data)

    async def write(self, data: bytes) -> None:
        """Send whole frames; returns when the client has taken enough of them.

        Raises:
            ClientGone: nobody is reading any more.
        """
        if self._aside is not None:
            await self._join()
        if data and self.keeps_up:
            self.push(data)
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
            if not self.response.prepared:
                self._deadlines.clear(self._silence_is_over)
                await self.response.prepare(self._request)
                self._deadlines.set(self._ping, self._ping_s)
                if self.response.headers.get("transfer-encoding") == "chunked":
                    self._chunks_to = self._request.transport
            await (self.response.write_eof(data) if is_last else self.response.write(data))
        except ConnectionError:
            raise ClientGone from None
        finally:
            self._is_writing = False
            self._deadlines.clear(self._stalled)
        self._note_sent(data)

    def _note_sent(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self._sent_at = monotonic()
        if self.on_sent is not None:
            self.on_sent(data)
        if self.trace is not None:
            self.trace.on_written(data)

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
        silence_s = monotonic() - self._sent_at
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
