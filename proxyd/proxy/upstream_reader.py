"""Reading the body of an upstream's response: waiting for its bytes, with the idle timeout, and taking them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from proxyd.codecs.wire.decompression import BadCompression, Decompressor
from proxyd.errors import BadReply, TimedOut, clear_tracebacks
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.client import BREAKS
from proxyd.transport.connection import READ_BYTES
from proxyd.transport.response import Response
from proxyd.transport.timers import TICK_S, Timers

__all__ = ["UpstreamReader"]


class UpstreamReader:
    """Reads the body of one response. It is to be closed before the response is.

    Args:
        idle_s: how long the upstream may be silent while its bytes are waited for.
        address: of the upstream, for the error.

    Attributes:
        read_bytes: the most bytes of one read.
    """

    def __init__(
        self, response: Response, timers: Timers, record: CallRecord, *, idle_s: float, address: str
    ) -> None:
        self._response = response
        self._timers = timers
        self._record = record
        self._idle_s = idle_s
        self._address = address
        self._decompressor: Decompressor | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_arrival: Callable[[], bool] | None = None
        self._is_handling = False
        self.read_bytes = READ_BYTES
        self._silent_since = 0.0  # by the monotonic clock
        self._fault: Exception | None = None  # of `on_arrival`
        response.on_progress = self._on_progress

    @property
    def has_more(self) -> bool:
        """Bytes have arrived that were not taken yet."""
        return self._response.has_more or (self._decompressor is not None and self._decompressor.has_more)

    @property
    def is_awaited(self) -> bool:
        """There is nothing to take yet, and more will arrive."""
        decompressor = self._decompressor
        return self._response.is_awaited and (decompressor is None or not decompressor.has_more)

    @property
    def is_over(self) -> bool:
        """Nothing more will arrive, and nothing is left to take."""
        return self._response.is_over and not self.has_more

    @property
    def at_end(self) -> bool:
        """The body has ended and all of it was taken."""
        return self._response.at_end and not self.has_more

    def decompress(self) -> None:
        """Decompress what is taken from now on."""
        self._decompressor = Decompressor()

    def take(self) -> bytes:
        """Take bytes that have arrived; b"" if there are none.

        Raises:
            BREAKS: the body was cut short, or its compression is invalid.
            Exception: what `interrupt` was called with.
        """
        decompressor = self._decompressor
        if decompressor is not None and decompressor.has_more:
            return self._decompressed(decompressor)
        chunk = self._response.take(self.read_bytes)
        if chunk:
            self._silent_since = monotonic()
            self._record.on_chunk(chunk)
        return chunk if decompressor is None else self._decompressed(decompressor, chunk)

    @staticmethod
    def _decompressed(decompressor: Decompressor, chunk: bytes = b"") -> bytes:
        try:
            if chunk:
                decompressor.feed(chunk)
            return decompressor.take()
        except BadCompression as exc:
            raise BadReply(f"the upstream's compressed response {exc}") from None

    async def wait(self, on_arrival: Callable[[], bool] | None = None) -> None:
        """Return when there is something to take, or nothing more will come.

        Args:
            on_arrival: is called instead, within the transport's own callback, each time that bytes have arrived or the
                body has ended. It returns true if it goes on waiting.
        """
        if self.has_more:
            await asyncio.sleep(0)  # a response can be long: let other tasks run
            return
        if self._response.is_over:
            return
        self._silent_since = monotonic()  # it was not waited for until now
        self._timers.set(self._check_silence, self._idle_s)  # not cleared: the next call moves it
        self._waiter = asyncio.get_running_loop().create_future()
        self._on_arrival = on_arrival
        try:
            await self._waiter
            fault = self._fault
        finally:
            self._waiter = self._on_arrival = self._fault = None  # its frames hold this reader
        if fault is not None:
            try:
                raise fault
            finally:
                del fault  # else the frame and the exception are a reference cycle

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end.

        Raises:
            BREAKS, Exception: as `take`.
        """
        while not (data := self.take()) and not self.is_over:
            await self.wait()
        return data

    async def read_up_to(self, limit: int) -> bytes:
        """Return the body as far as it arrives, at most `limit` bytes."""
        body = bytearray()
        try:
            while len(body) <= limit and (data := await self.read()):
                body += data
        except BREAKS as exc:
            clear_tracebacks(exc)  # the part that has arrived is used
        return bytes(body[:limit])

    def interrupt(self, exc: Exception) -> None:
        """Raise `exc` in the next `take`, and end the waiting."""
        self._on_arrival = None
        self._response.interrupt(exc)

    def close(self) -> None:
        self._timers.clear(self._check_silence)

    def _on_progress(self) -> None:
        waiter = self._waiter
        if waiter is None or self._is_handling or waiter.done():
            return  # taking a chunk has resumed reading
        if self._on_arrival is not None:
            self._is_handling = True
            try:
                if self._on_arrival():
                    return
            except Exception as exc:
                self._fault = exc
            finally:
                self._is_handling = False
        waiter.set_result(None)

    def _check_silence(self) -> None:
        """Interrupt a silent upstream. Due `idle_s` after it was waited for; chunks since then postpone it."""
        if self._waiter is None:
            return  # the client is slow, not the upstream
        silence_s = monotonic() - self._silent_since
        if silence_s < self._idle_s - TICK_S:
            self._timers.set(self._check_silence, self._idle_s - silence_s)
            return
        self.interrupt(TimedOut(f"{self._address} was silent for {self._idle_s:g} s"))
