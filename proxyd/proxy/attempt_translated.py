"""An attempt at a Chat Completions upstream: its chunks become events (see `proxyd.proxy.attempt`)."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.config.settings import Settings
from proxyd.errors import BadReply, ProxyError, Refused, Truncated, clear_tracebacks
from proxyd.hooks.runner import CallHooks, HookRun, StreamHooks
from proxyd.providers.translated_request import TranslatedCall
from proxyd.proxy.attempt import HOOKED_READ_BYTES, Attempt, Sink
from proxyd.proxy.retries import retry_after_in_seconds
from proxyd.proxy.wrong_address import EXCERPT_BYTES, protocol_error, translated_error
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.client import BREAKS, UpstreamClient, failure_of
from proxyd.transport.timers import Timers

__all__ = ["TranslatedAttempt"]

#: How long usage may come after the finish reason before we end without it (docs/spec/chat-to-messages.md#end).
FINISH_GRACE_S = 2.0


class _UsageMissing(Exception):
    """No usage came after the finish reason."""


class TranslatedAttempt(Attempt):
    """An attempt at a Chat Completions upstream.

    Attributes:
        decoder: may begin its message before the first event.
        refused: status and body of the upstream's error: as it sent them, or of an error in a response of status 200.
        sent: the request's body, parsed; empty once the response has begun.
    """

    _pending: bytes | None
    _hook_run: HookRun[bytes] | None

    def __init__(
        self,
        call: TranslatedCall,
        upstreams: UpstreamClient,
        settings: Settings,
        timers: Timers,
        record: CallRecord,
        hooks: CallHooks | None = None,
    ) -> None:
        super().__init__(call.request, upstreams, settings, timers, record)
        self._context = call.context
        self.sent = call.sent
        self._is_accepted = False  # the upstream has begun to work, and charges for it
        self._hooks = StreamHooks(hooks) if hooks is not None and hooks.changes_events else None
        if self._hooks is not None:
            self._read_bytes = HOOKED_READ_BYTES
        self.decoder: ResponseDecoder = call.new_decoder()
        self.decoder.address = self._address
        self.refused: tuple[int, bytes] | None = None
        self._beginning = b""  # of the response's body

    @property
    def has_ended(self) -> bool:
        """The client's stream has ended, by the upstream's last event or by one of a hook."""
        return self.decoder.has_ended or (self._hooks is not None and self._hooks.has_ended)

    def start(self) -> bytes:
        """Begin the message before the upstream's first event."""
        frames = self.decoder.start()
        return frames if self._hooks is None else self._hooks.pass_through(frames)

    def fail(self, exc: ProxyError) -> bytes:
        """End the stream with `exc`."""
        frames = self.decoder.fail(exc)
        return frames if self._hooks is None else self._hooks.pass_through(frames)

    async def open(self) -> bytes:
        """Send the call and wait for the first frames.

        Raises:
            ProxyError: the attempt failed before them.
        """
        response = await self._send(is_verbatim=False)
        if response.status != 200:
            body = await self._read_error(response)
            headers = {name.lower(): value for name, value in response.headers.items()}
            headers.update(retry_after_in_seconds(headers))
            self.refused = (response.status, body)
            raise translated_error(response.status, headers, body, self._url, self._context)
        if self.sent.get("stream"):
            self._expect_stream(response)
        self._is_accepted = True
        self._record.output_so_far = lambda: self.decoder.usage.output_tokens
        try:
            while not (frames := await self.read()) and not self.has_ended:
                pass
        except (BadReply, Refused, Truncated) as exc:
            wrong = protocol_error(exc, self._beginning, self._url, is_direct=False)
            if wrong is not None:
                raise wrong from exc
            if isinstance(exc, Refused) and exc.body:
                self.refused = exc.status if exc.status < 500 else 500, exc.body
            raise
        self.sent = {}
        return frames

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return the frames of the next chunk; there may be none.

        Args:
            sink: takes chunks meanwhile that neither end nor break the stream.

        Raises:
            ProxyError: the response failed before its first event.
        """
        response = self._response
        assert response is not None, "read before open"
        decoder = self.decoder
        if decoder.has_finish:
            sink = None
        try:
            chunk = await self._read_chunk(response, sink)
        except _UsageMissing:
            chunk = b""
        except BREAKS as exc:
            failure = failure_of(exc, self._url)
            if not decoder.has_started:
                raise failure from exc
            clear_tracebacks(exc)
            if not decoder.has_finish:
                return await self._through_hooks(decoder.fail(failure))
            # the message is complete, and only its usage is missing (docs/spec/chat-to-messages.md#end)
            chunk = b""
        if self._hook_run is not None:
            hook_run, self._hook_run = self._hook_run, None
            return await hook_run.finish()
        if self._pending is not None:
            frames, self._pending = self._pending, None
        elif not chunk:
            self._timers.clear(self._finish)
            frames = decoder.close()
        else:
            frames = self._feed(chunk)
        if decoder.has_finish and not decoder.has_ended:
            self._timers.set(self._finish, FINISH_GRACE_S)
        return await self._through_hooks(frames)

    def _forward(self, chunk: bytes, sink: Sink) -> bool:
        decoder = self.decoder
        frames = self._feed(chunk)
        if decoder.has_finish or decoder.failure is not None:
            self._pending = frames
            return False
        if self._hooks is not None and frames:
            made = self._hooked(self._hooks.run(frames), self._hooks)
        else:
            made = frames
        if made:
            self._write(made, sink)
        return made is not None

    def _rewriter(self) -> Callable[[bytes], bytes] | None:
        return None

    def _feed(self, chunk: bytes) -> bytes:
        if not self._beginning:
            self._beginning = chunk[:EXCERPT_BYTES]
        begun = perf_counter()
        frames = self.decoder.feed(chunk)
        self._record.codec_s += perf_counter() - begun
        self._record.events = self.decoder.events
        return frames

    def close(self, *, is_complete: bool = False) -> None:
        self._timers.clear(self._finish)
        self._record.output_so_far = None
        if self._is_accepted:
            self._record.usage = self.decoder.usage
        super().close(is_complete=is_complete)

    async def _through_hooks(self, frames: bytes) -> bytes:
        record, decoder = self._record, self.decoder
        record.events, record.stop_reason = decoder.events, decoder.stop_reason
        return frames if self._hooks is None else await self._hooks.run(frames).finish()

    def _finish(self) -> None:
        self._interrupt(_UsageMissing())
