"""One attempt at one upstream: the call goes out, the answer is read piece by piece.

Two kinds (`exchange_translated`, `exchange_direct`), alike from outside: `open` returns once the answer is known to be
usable (its first events, or its whole error), `read` gives what came next. Whatever fails before the client has been
promised anything is raised, so that it can be tried again or answered with its true status; afterwards it becomes the
one error event that ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from proxyd.codecs.openai.errors import ErrorContext
from proxyd.config.settings import Settings
from proxyd.errors import BadReply, TimedOut, clear_tracebacks
from proxyd.providers.base import UpstreamRequest
from proxyd.redaction import redacted
from proxyd.telemetry.call_record import MOST_PASSED, CallRecord
from proxyd.transport.client import BREAKS, UpstreamClient
from proxyd.transport.connection import READ_BYTES
from proxyd.transport.pool import Response
from proxyd.transport.timers import TICK_S, Timers
from proxyd.urls import address_of, host_of

if TYPE_CHECKING:
    from proxyd.hooks.runner import Passage, StreamHooks

__all__ = ["HOOKED_READ_BYTES", "Attempt", "Sink"]

T = TypeVar("T")

#: Of a stream with hooks over it: all that is read at once waits, event by event and several times over, for its turn
#: in the hook's thread.
HOOKED_READ_BYTES = 16 * 1024

#: What a body that is no stream is labelled.
_OPAQUE_TYPES = frozenset({"application/json", "text/html", "application/octet-stream"})
#: Where upstreams put their own request id.
_REQUEST_ID_HEADERS = ("request-id", "x-request-id", "x-generation-id")


class Sink(Protocol):
    """The client's side, where pieces can be written without waiting."""

    def is_writable(self) -> bool:
        """It has taken all that was written: one more piece can be."""

    def push(self, data: bytes) -> None:
        """Write whole frames. To be called only while it `is_writable`. The record is for the caller to tell."""


class Attempt:
    """What both kinds share: the response, its clocks, and the wait for what comes next.

    Nearly all of a stream is pieces that are rewritten and written on in one go, to a client that keeps up. Where a
    `Sink` is given that is done as they arrive, within the reading of the socket, while the reader sleeps. Everything
    else, such as an end, a fault, or a client that falls behind, wakes the reader and is dealt with by it.

    Most of those pieces come one by one, and differ in their text alone: a `_rewriter` takes them from the socket to
    the client (`_on_piece`). Between two pieces of a stream the machine does other things, so that each finds its
    caches cold and costs what it touches of code and data: this way is short for that reason, and does nothing else
    than the long one (`_flow`).
    """

    #: What a piece that goes the short way counts for the client.
    _EVENTS_A_PIECE: ClassVar[int] = 0

    _context = ErrorContext()  # what is known for reading the upstream's errors; here nothing

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: UpstreamClient,
        settings: Settings,
        deadlines: Timers,
        record: CallRecord,
    ) -> None:
        self._request: UpstreamRequest | None = request
        self._url, self._timeouts = request.url, request.timeouts
        self._upstreams = upstreams
        self._settings = settings
        self._deadlines = deadlines
        self._record = record
        self._passed = record.passed
        self._keeps_bodies = record.trace is not None and record.trace.keeps_bodies
        record.events_per_chunk = self._EVENTS_A_PIECE
        self._read_bytes = READ_BYTES
        self._response: Response | None = None
        self._is_amid = False  # of what has arrived a part was taken
        self._progress: asyncio.Future[None] | None = None  # the reader sleeps
        self._sink: Sink | None = None  # and pieces go there meanwhile
        self._is_flowing = False
        self._rewrite: Callable[[bytes], bytes] | None = None  # where the short way is open
        self._asleep_since = 0.0  # by the monotonic clock
        # One of them could not, and is for the reader: what failed, what it became, what hooks are at work on or have
        # ended the stream with.
        self._fault: Exception | None = None
        self._kept: Any = None
        self._passage: Passage[Any] | None = None

    async def _send(self, *, is_verbatim: bool) -> Response:
        request, self._request = self._request, None  # its body is not needed any more: a retry makes its own
        assert request is not None, "an exchange is opened once"
        self._record.settle = None  # an attempt before may have had an answer to tell of
        record, trace = self._record, self._record.trace
        record.address = address_of(request.url)
        if trace is not None:
            trace.on_sent(
                (request.method, request.url),
                request.headers,
                request.body,
                route=record.route,
                mode=record.mode,
                estimated_input_tokens=self._context.estimated_input_tokens,
            )
        response = await self._upstreams.send(request, self._deadlines, is_verbatim=is_verbatim)
        if trace is not None:
            trace.on_response_head(response.status, response.headers.items())
        self._response = response
        response.on_progress = self._on_progress
        headers = response.headers
        for name in _REQUEST_ID_HEADERS:
            if name in headers:
                self._record.upstream_request_id = redacted(headers[name])[:128]
                break
        self._deadlines.set(self._too_long, self._timeouts.total_s)
        if 300 <= response.status < 400:
            raise BadReply(
                f"{host_of(self._url)} answered with a redirect ({response.status}), which is not followed, since "
                "that would carry the key to another address: correct api_base"
            )
        return response

    @staticmethod
    def _expect_stream(response: Response, *, is_stream: bool = False) -> None:
        """Keep no connection that brought something else where a stream was asked for: the response may be another's.

        Args:
            is_stream: it is one, whatever its head says.
        """
        if not is_stream and response.content_type in _OPAQUE_TYPES:
            response.keep_no_connection()

    async def _read_chunk(self, response: Response, sink: Sink | None = None) -> bytes:
        """What has arrived, b"" at the end, or where a piece became more than a write (see `_pass_on`).

        Raises as aiohttp does, or what a clock has set.
        """
        if self._is_amid:
            await asyncio.sleep(0)  # a packed answer can be long: the others have a turn between two pieces
        while not (chunk := self._take(response)) and not response.is_over:
            self._asleep_since = monotonic()
            self._deadlines.set(self._silent, self._timeouts.idle_s)  # it runs on: the next read moves it
            self._progress = asyncio.get_running_loop().create_future()
            self._sink = sink
            if sink is not None:
                self._shorten(response)
            try:
                await self._progress
            finally:
                self._progress = self._sink = response.on_piece = None
            if self._fault is not None:
                fault, self._fault = self._fault, None
                raise fault
            if self._kept is not None or self._passage is not None:
                break
        return chunk

    def _take(self, response: Response) -> bytes:
        chunk = response.take(self._read_bytes)
        if chunk:
            self._record.on_chunk(chunk)
        self._is_amid = response.has_more
        return chunk

    def _shorten(self, response: Response) -> None:
        """Have pieces go the short way, where there is one from here on."""
        self._rewrite = self._rewriter()
        response.on_piece = None if self._rewrite is None else self._on_piece

    def _rewriter(self) -> Callable[[bytes], bytes] | None:
        """What makes of a piece all that `_pass_on` would write for it; b"" where nothing has happened instead.

        It is asked for anew after each `_pass_on`. None where there is no such thing.
        """
        raise AssertionError("only where a sink was given")

    def _on_piece(self, piece: bytes) -> bool:
        """A piece has come alone: whether it could be passed on. Else nothing has happened."""
        sink, rewrite = self._sink, self._rewrite
        if sink is None or rewrite is None or not sink.is_writable():
            return False
        begun = monotonic()
        try:
            frames = rewrite(piece)
            if not frames:
                return False
            ended = monotonic()
            sink.push(frames)
            passed = self._passed
            passed.extend((begun, ended, len(piece), len(frames)))
            if self._keeps_bodies:
                self._keep_passed(piece, frames)
            elif len(passed) >= MOST_PASSED:
                self._record.add_up()
        except Exception as exc:
            self._fault = exc
            self._wake()
        return True

    def _keep_passed(self, piece: bytes, frames: bytes) -> None:
        self._record.add_up()
        trace = self._record.trace
        assert trace is not None, "it keeps bodies"
        trace.on_chunk(piece)
        trace.on_written(frames)

    def _on_progress(self) -> None:
        """Something has arrived, or the connection has ended."""
        if self._is_flowing:
            return  # within the taking of a piece: the loop below sees what it has brought
        if self._sink is not None:
            self._is_flowing = True
            try:
                if self._flow(self._sink):
                    return
            except Exception as exc:
                self._fault = exc
            finally:
                self._is_flowing = False
        self._wake()

    def _wake(self) -> None:
        """What has come is for the reader."""
        self._sink = None
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _flow(self, sink: Sink) -> bool:
        """Pass on what has arrived; whether that was all there is to do."""
        response = self._response
        assert response is not None, "the reader sleeps on it"
        if response.has_more:
            if not sink.is_writable() or response.is_over or not self._pass_on(self._take(response), sink):
                return False
            if response.has_more:
                return False  # the reader lets the others have a turn first
        self._shorten(response)
        return not response.is_over

    def _pass_on(self, chunk: bytes, sink: Sink) -> bool:
        """Rewrite one piece and write it on; False where it is kept for the reader instead."""
        raise AssertionError("only where a sink was given")

    def _made(self, passage: Passage[T], hooks: StreamHooks) -> T | None:
        """What hooks have made of a piece; None where it is for the reader to see."""
        if passage.is_over and not hooks.has_ended:
            return passage.made
        self._passage = passage
        return None

    def _push(self, frames: bytes, sink: Sink) -> None:
        sink.push(frames)
        self._record.on_written(frames)

    async def _read_error(self, response: Response) -> bytes:
        """The body of an error, as far as it comes; beyond ``max_error_body_bytes`` it is cut off."""
        limit = self._settings.max_error_body_bytes
        body = bytearray()
        try:
            while len(body) <= limit and (chunk := await self._read_chunk(response)):
                body += chunk
        except BREAKS as exc:
            clear_tracebacks(exc)  # what came is all there is
        return bytes(body[:limit])

    def close(self, *, is_complete: bool = False) -> None:
        """Let go of the connection: it serves again if the answer `is_complete`, else the call is cancelled."""
        self._deadlines.clear(self._silent)
        self._deadlines.clear(self._too_long)
        self._record.add_up()
        response, self._response = self._response, None
        if response is not None:
            if response.at_end and self._record.trace is not None:
                self._record.trace.on_end()
            if is_complete:
                self._upstreams.let_go(response)
            else:
                response.close()

    def _interrupt(self, exc: Exception) -> None:
        """Have whoever reads get `exc`."""
        if self._response is not None:
            self._sink = None
            self._response.interrupt(exc)

    def _silent(self) -> None:
        """Due `idle_s` after the reader fell asleep: where pieces flowed meanwhile, this is put off."""
        seconds = self._timeouts.idle_s
        if self._progress is None:
            return  # it is our client who is slow
        self._record.add_up()
        silence_s = monotonic() - max(self._asleep_since, self._record.heard_at)
        if silence_s < seconds - TICK_S:
            self._deadlines.set(self._silent, seconds - silence_s)
            return
        self._interrupt(TimedOut(f"the upstream was silent for {seconds:g} s"))

    def _too_long(self) -> None:
        seconds = self._timeouts.total_s
        self._interrupt(TimedOut(f"the upstream's answer took longer than {seconds:g} s"))
