"""One attempt at one upstream: the request is sent, and its response forwarded.

What differs between the modes is what a response's head means and which decoder reads its body
(`attempt_translated`, `attempt_direct`). A failure before the client has been promised anything is raised, so that the
call can be retried or refused with its true status; a later one becomes the error event that ends the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from proxyd.codecs.anthropic.held_end import HeldEnd
from proxyd.codecs.decoder import Decoder
from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.config.settings import Settings
from proxyd.errors import ProxyError, TimedOut, error_response
from proxyd.hooks.runner import CallHooks, StreamHooks
from proxyd.providers.base import UpstreamRequest
from proxyd.proxy.active_call import ActiveCall, Finisher
from proxyd.proxy.pump import Sink, StreamPump
from proxyd.proxy.upstream_reader import UpstreamReader
from proxyd.proxy.wrong_address import redirect_error
from proxyd.redaction import redacted
from proxyd.transport.client import UpstreamClient
from proxyd.transport.response import Response
from proxyd.urls import address_of

__all__ = ["Attempt", "EnoughReceived", "WholeResponse"]

#: Content types of bodies that are no streams.
_OPAQUE_TYPES = frozenset({"application/json", "text/html", "application/octet-stream"})
#: Headers in which upstreams send their own request id.
_REQUEST_ID_HEADERS = ("request-id", "x-request-id", "x-generation-id")


class EnoughReceived(Exception):
    """What was received of a response is enough; the rest is not needed."""


class WholeResponse(Sink, Protocol):
    """Collects a response that is sent as a whole. Its `write` may raise `EnoughReceived`."""

    def message(self) -> dict[str, Any] | None:
        """Return the message, or None if it is none, and then `body` is sent."""

    @property
    def body(self) -> bytes | None:
        """The message as the upstream wrote it; None if it wrote events."""


class Attempt(ABC):
    """Base of both kinds.

    Args:
        call: its record notes what happens, its timers are used.
        hooks: change the response.
        finisher: works out an addition to the end of the message.

    Attributes:
        decoder: reads the response's body; None before `open`, unless the kind has it from the beginning.
        held: holds back the end of a stream, for the finisher.
    """

    #: To read the upstream's errors with; empty here.
    _context = ErrorContext()
    _IS_VERBATIM = False

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: UpstreamClient,
        settings: Settings,
        call: ActiveCall,
        hooks: CallHooks | None = None,
        finisher: Finisher | None = None,
    ) -> None:
        self._request: UpstreamRequest | None = request
        self._url, self._timeouts = request.url, request.timeouts
        self._upstreams = upstreams
        self._settings = settings
        self._timers, self._record = call.timers, call.record
        self.hooks, self.finisher = hooks, finisher
        self._stream_hooks: StreamHooks | None = None
        self.held: HeldEnd | None = None
        self.decoder: Decoder | None = None
        self._pump: StreamPump | None = None
        self._response: Response | None = None
        self._reader: UpstreamReader | None = None

    @property
    def _address(self) -> str:
        return address_of(self._url)

    @property
    @abstractmethod
    def whole(self) -> WholeResponse | None:
        """A new collector, if the response goes to the client as a whole; None if it is forwarded as it comes."""

    @property
    def early_start(self) -> Callable[[], bytes] | None:
        """What begins the client's stream before the upstream has responded: it returns the first frames."""
        return None

    @abstractmethod
    def set_head(self, call: ActiveCall) -> None:
        """Set the head of the client's response, which is forwarded as it comes."""

    @abstractmethod
    def whole_head(self, call: ActiveCall) -> tuple[int, Iterable[tuple[str, str]]]:
        """Return status and headers of a response that is sent as a whole, without its length."""

    @abstractmethod
    async def open(self) -> StreamPump:
        """Send the request, and read the response up to its first frames.

        Raises:
            ProxyError: the attempt failed before them.
        """

    def fail(self, exc: ProxyError) -> bytes:
        """End a stream that has begun with `exc`: return the last frames. Nothing is waited for."""
        assert self.decoder is not None, "it has begun"
        frames = self.decoder.fail(exc)
        if self._stream_hooks is not None:
            frames = self._stream_hooks.pass_through(frames)
        return frames if self.held is None else self.held.release() + frames

    async def _send(self) -> tuple[Response, UpstreamReader]:
        request, self._request = self._request, None  # frees its body: a retry builds its own
        assert request is not None, "an attempt is opened once"
        record, trace = self._record, self._record.trace
        record.address, record.response_model = self._address, None
        if trace is not None:
            request.headers = trace.headers_of_attempt(request.headers)
            trace.on_sent(
                (request.method, request.url),
                request.headers,
                request.body,
                route=record.route,
                mode=record.mode,
                model=record.upstream_model,
                estimated_input_tokens=self._context.estimated_input_tokens,
            )
        response = await self._upstreams.send(request, self._timers, is_verbatim=self._IS_VERBATIM)
        if trace is not None:
            trace.on_response_head(response.status, response.headers.items())
        self._response = response
        self._reader = UpstreamReader(
            response, self._timers, record, idle_s=self._timeouts.idle_s, address=self._address
        )
        headers = response.headers
        for name in _REQUEST_ID_HEADERS:
            if name in headers:
                record.upstream_request_id = redacted(headers[name])[:128]
                break
        self._timers.set(self._on_total_timeout, self._timeouts.total_s)
        if 300 <= response.status < 400:
            raise redirect_error(response.status, headers.get("location", ""), self._url)
        return response, self._reader

    def _start_pump(self, reader: UpstreamReader, decoder: Decoder, *, is_stream: bool) -> StreamPump:
        """Create the pump; hooks and finisher see the frames of a stream that is forwarded as it comes."""
        decoder.address = self._address
        self.decoder = decoder
        if is_stream and self.finisher is not None:
            self.held = HeldEnd()
        self._record.output_so_far = lambda: decoder.usage.output_tokens
        self._pump = StreamPump(
            reader,
            decoder,
            self._timers,
            self._record,
            self._url,
            hooks=self._stream_hooks if is_stream else None,
            held=self.held,
        )
        return self._pump

    def settle(self, failure: Exception | None) -> None:
        """Put usage and stop reason, as far as they are known, into the record.

        Args:
            failure: what ended the attempt; None if nothing did, or only its stream says so.
        """
        record, decoder = self._record, self.decoder
        if record.trace is not None and self._request is None:  # it was sent
            error_type = None if decoder is None else decoder.error_type
            if failure is None and decoder is not None:
                failure = decoder.failure
            record.trace.on_over(error_type if failure is None else error_response(failure)[1])
        if self._pump is not None and decoder is not None:
            record.usage, record.stop_reason = decoder.usage, decoder.stop_reason
            record.response_model = decoder.response_model
            record.events, record.error_type = decoder.events, decoder.error_type or record.error_type

    @staticmethod
    def _expect_stream(response: Response, *, is_stream: bool = False) -> None:
        """Discard the connection of a response that is no stream, though one was requested: it may be another call's.

        Args:
            is_stream: it is one, whatever its head says.
        """
        if not is_stream and response.content_type in _OPAQUE_TYPES:
            response.discard_connection()

    def close(self, *, is_complete: bool = False) -> None:
        """Release the connection, for reuse if the response `is_complete`; else close it to cancel the call."""
        response, self._response = self._response, None
        if response is None:
            return
        self._timers.clear(self._on_total_timeout)
        self._record.output_so_far = None
        if self._reader is not None:
            self._reader.close()
        if self._pump is not None:
            self._pump.close()
        if response.at_end and self._record.trace is not None:
            self._record.trace.on_end()
        if is_complete:
            self._upstreams.release(response)
        else:
            response.close()

    def _on_total_timeout(self) -> None:
        seconds = self._timeouts.total_s
        assert self._reader is not None, "it is set with it"
        self._reader.interrupt(TimedOut(f"the response of {self._address} took longer than {seconds:g} s"))
