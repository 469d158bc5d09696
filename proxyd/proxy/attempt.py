"""One attempt at one upstream: the request is sent, and the response read chunk by chunk.

Both kinds (`attempt_translated`, `attempt_direct`) have one interface: `open` returns once the response is known to be
usable (its first events, or its whole error), `read` returns what arrived next. A failure before the client has been
promised anything is raised, so that the call can be retried or refused with its true status; a later one becomes the
error event that ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.config.settings import Settings
from proxyd.errors import TimedOut, clear_tracebacks
from proxyd.providers.base import UpstreamRequest
from proxyd.proxy.wrong_address import redirect_error
from proxyd.redaction import redacted
from proxyd.telemetry.call_record import MOST_PASSED, CallRecord
from proxyd.transport.client import BREAKS, UpstreamClient
from proxyd.transport.connection import READ_BYTES
from proxyd.transport.pool import Response
from proxyd.transport.timers import TICK_S, Timers
from proxyd.urls import address_of

if TYPE_CHECKING:
    from proxyd.hooks.runner import HookRun, StreamHooks

__all__ = ["HOOKED_READ_BYTES", "Attempt", "Sink"]

T = TypeVar("T")

#: Reads of a stream with hooks are smaller: each event of a read waits for its turn in the hook's thread.
HOOKED_READ_BYTES = 16 * 1024

#: Content types of bodies that are no streams.
_OPAQUE_TYPES = frozenset({"application/json", "text/html", "application/octet-stream"})
#: Headers in which upstreams send their own request id.
_REQUEST_ID_HEADERS = ("request-id", "x-request-id", "x-generation-id")


class Sink(Protocol):
    """The client's side, where chunks can be written without waiting."""

    def is_writable(self) -> bool:
        """Whether the client has taken all that was written, so that another write does not wait."""

    def write_nowait(self, data: bytes) -> None:
        """Write whole frames. To be called only while `is_writable`. The caller updates the record."""


class Attempt:
    """Base of both kinds: the response, its timeouts, and waiting for the next chunk.

    Nearly all chunks of a stream are rewritten and written on at once, to a client that takes them. Where a `Sink` is
    given, that is done within the socket's `data_received`, while the reader waits. Everything else, such as an end, a
    failure, or a client that falls behind, wakes the reader, which handles it.

    Most chunks arrive alone and differ in their text only: for these a `_rewriter` is a fast path from the socket to
    the client (`_on_lone_chunk`). It does exactly what the general path does (`_forward_buffered`).
    """

    #: How many events a chunk on the fast path counts for.
    _EVENTS_PER_CHUNK: ClassVar[int] = 0

    _context = ErrorContext()  # helps to read the upstream's errors; empty here

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: UpstreamClient,
        settings: Settings,
        timers: Timers,
        record: CallRecord,
    ) -> None:
        self._request: UpstreamRequest | None = request
        self._url, self._timeouts = request.url, request.timeouts
        self._upstreams = upstreams
        self._settings = settings
        self._timers = timers
        self._record = record
        self._passed = record.passed
        self._keeps_bodies = record.trace is not None and record.trace.keeps_bodies
        record.events_per_chunk = self._EVENTS_PER_CHUNK
        self._read_bytes = READ_BYTES
        self._response: Response | None = None
        self._has_buffered = False  # bytes that have arrived wait to be taken
        self._progress: asyncio.Future[None] | None = None  # set while the reader waits
        self._sink: Sink | None = None  # where chunks go meanwhile
        self._is_forwarding = False
        self._rewrite: Callable[[bytes], bytes] | None = None  # the fast path
        self._waiting_since = 0.0  # by the monotonic clock
        # A chunk that could not be forwarded, for the reader: an exception, its events or frames, or a run of hooks
        # that has not ended or has ended the stream.
        self._fault: Exception | None = None
        self._pending: Any = None
        self._hook_run: HookRun[Any] | None = None

    @property
    def _address(self) -> str:
        return address_of(self._url)

    async def _send(self, *, is_verbatim: bool) -> Response:
        request, self._request = self._request, None  # frees its body: a retry builds its own
        assert request is not None, "an attempt is opened once"
        self._record.settle = None  # of an attempt before this one
        self._record.address = self._address
        record, trace = self._record, self._record.trace
        if trace is not None:
            trace.on_sent(
                (request.method, request.url),
                request.headers,
                request.body,
                route=record.route,
                mode=record.mode,
                estimated_input_tokens=self._context.estimated_input_tokens,
            )
        response = await self._upstreams.send(request, self._timers, is_verbatim=is_verbatim)
        if trace is not None:
            trace.on_response_head(response.status, response.headers.items())
        self._response = response
        response.on_progress = self._on_progress
        headers = response.headers
        for name in _REQUEST_ID_HEADERS:
            if name in headers:
                self._record.upstream_request_id = redacted(headers[name])[:128]
                break
        self._timers.set(self._on_total_timeout, self._timeouts.total_s)
        if 300 <= response.status < 400:
            raise redirect_error(response.status, headers.get("location", ""), self._url)
        return response

    @staticmethod
    def _expect_stream(response: Response, *, is_stream: bool = False) -> None:
        """Discard the connection of a response that is no stream, though one was requested: it may be another call's.

        Args:
            is_stream: it is one, whatever its head says.
        """
        if not is_stream and response.content_type in _OPAQUE_TYPES:
            response.discard_connection()

    async def _read_chunk(self, response: Response, sink: Sink | None = None) -> bytes:
        """Return the next chunk; b"" at the end, or where `_forward` has left something for the reader.

        Raises:
            TransportError, OSError, BodyFault: the connection broke.
            Exception: what a timeout has interrupted the response with.
        """
        if self._has_buffered:
            await asyncio.sleep(0)  # a compressed response can be long: let other tasks run
        while not (chunk := self._take(response)) and not response.is_over:
            self._waiting_since = monotonic()
            self._timers.set(
                self._on_idle_timeout, self._timeouts.idle_s
            )  # not cleared: the next read moves it
            self._progress = asyncio.get_running_loop().create_future()
            self._sink = sink
            if sink is not None:
                self._install_rewriter(response)
            try:
                await self._progress
            finally:
                self._progress = self._sink = response.on_lone_chunk = None
            if self._fault is not None:
                fault, self._fault = self._fault, None
                raise fault
            if self._pending is not None or self._hook_run is not None:
                break
        return chunk

    def _take(self, response: Response) -> bytes:
        chunk = response.take(self._read_bytes)
        if chunk:
            self._record.on_chunk(chunk)
        self._has_buffered = response.has_more
        return chunk

    def _install_rewriter(self, response: Response) -> None:
        """Install the fast path for the next chunks, where there is one."""
        self._rewrite = self._rewriter()
        response.on_lone_chunk = None if self._rewrite is None else self._on_lone_chunk

    def _rewriter(self) -> Callable[[bytes], bytes] | None:
        """Return the fast path for a lone chunk, or None.

        It returns the bytes that `_forward` would write, or b"" to decline without side effects. Each `_forward`
        invalidates it.
        """
        raise AssertionError("only where a sink was given")

    def _on_lone_chunk(self, chunk: bytes) -> bool:
        """Forward a lone chunk on the fast path; returns False, without side effects, where that is not possible."""
        sink, rewrite = self._sink, self._rewrite
        if sink is None or rewrite is None or not sink.is_writable():
            return False
        begun = monotonic()
        try:
            frames = rewrite(chunk)
            if not frames:
                return False
            ended = monotonic()
            sink.write_nowait(frames)
            passed = self._passed
            passed.extend((begun, ended, len(chunk), len(frames)))
            if self._keeps_bodies:
                self._keep_forwarded(chunk, frames)
            elif len(passed) >= MOST_PASSED:
                self._record.add_up()
        except Exception as exc:
            self._fault = exc
            self._wake()
        return True

    def _keep_forwarded(self, chunk: bytes, frames: bytes) -> None:
        self._record.add_up()
        trace = self._record.trace
        assert trace is not None, "it keeps bodies"
        trace.on_chunk(chunk)
        trace.on_written(frames)

    def _on_progress(self) -> None:
        """Handle bytes that have arrived, or the end of the connection."""
        if self._is_forwarding:
            return  # taking a chunk has resumed reading: `_forward_buffered` checks for more
        if self._sink is not None:
            self._is_forwarding = True
            try:
                if self._forward_buffered(self._sink):
                    return
            except Exception as exc:
                self._fault = exc
            finally:
                self._is_forwarding = False
        self._wake()

    def _wake(self) -> None:
        """Wake the reader."""
        self._sink = None
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _forward_buffered(self, sink: Sink) -> bool:
        """Forward what has arrived; returns False where the reader must go on."""
        response = self._response
        assert response is not None, "the reader waits for it"
        if response.has_more:
            if not sink.is_writable() or response.is_over or not self._forward(self._take(response), sink):
                return False
            if response.has_more:
                return False  # the reader lets other tasks run first
        self._install_rewriter(response)
        return not response.is_over

    def _forward(self, chunk: bytes, sink: Sink) -> bool:
        """Rewrite one chunk and write it; returns False where it is left for the reader."""
        raise AssertionError("only where a sink was given")

    def _hooked(self, hook_run: HookRun[T], hooks: StreamHooks) -> T | None:
        """Return the output of hooks; None where it is left for the reader."""
        if hook_run.is_finished and not hooks.has_ended:
            return hook_run.result
        self._hook_run = hook_run
        return None

    def _write(self, frames: bytes, sink: Sink) -> None:
        sink.write_nowait(frames)
        self._record.on_written(frames)

    async def _read_error(self, response: Response) -> bytes:
        """Return the body of an error as far as it arrives, truncated at ``max_error_body_bytes``."""
        limit = self._settings.max_error_body_bytes
        body = bytearray()
        try:
            while len(body) <= limit and (chunk := await self._read_chunk(response)):
                body += chunk
        except BREAKS as exc:
            clear_tracebacks(exc)  # the part that has arrived is used
        return bytes(body[:limit])

    def close(self, *, is_complete: bool = False) -> None:
        """Release the connection, for reuse if the response `is_complete`; else close it to cancel the call."""
        self._timers.clear(self._on_idle_timeout)
        self._timers.clear(self._on_total_timeout)
        self._record.add_up()
        response, self._response = self._response, None
        if response is not None:
            if response.at_end and self._record.trace is not None:
                self._record.trace.on_end()
            if is_complete:
                self._upstreams.release(response)
            else:
                response.close()

    def _interrupt(self, exc: Exception) -> None:
        """Raise `exc` in the reader."""
        if self._response is not None:
            self._sink = None
            self._response.interrupt(exc)

    def _on_idle_timeout(self) -> None:
        """Interrupt a silent upstream. Due `idle_s` after the reader began to wait; chunks that were forwarded
        meanwhile postpone it.
        """
        seconds = self._timeouts.idle_s
        if self._progress is None:
            return  # the client is slow, not the upstream
        self._record.add_up()
        silence_s = monotonic() - max(self._waiting_since, self._record.heard_at)
        if silence_s < seconds - TICK_S:
            self._timers.set(self._on_idle_timeout, seconds - silence_s)
            return
        self._interrupt(TimedOut(f"{self._address} was silent for {seconds:g} s"))

    def _on_total_timeout(self) -> None:
        seconds = self._timeouts.total_s
        self._interrupt(TimedOut(f"the response of {self._address} took longer than {seconds:g} s"))
