"""An attempt at a Chat Completions upstream: its pieces become events (see `proxyd.proxy.attempt`)."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import ClassVar

from proxyd.codecs.anthropic.events import DeltaRun, StreamEvent, count_events, encode_events
from proxyd.codecs.openai.errors import refusal
from proxyd.codecs.openai.response_decoder import ResponseDecoder
from proxyd.config.settings import Settings
from proxyd.errors import ProxyError, clear_tracebacks
from proxyd.hooks.runner import CallHooks, HookRun, StreamHooks
from proxyd.providers.openai_request import TranslatedCall
from proxyd.proxy.attempt import HOOKED_READ_BYTES, Attempt, Sink
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.client import BREAKS, UpstreamClient, failure_of
from proxyd.transport.timers import Timers

__all__ = ["TranslatedAttempt"]

#: How long usage may follow the finish reason before we end without it (docs/spec/chat-to-messages.md#end).
FINISH_GRACE_S = 2.0


class _GraceOver(Exception):
    """No usage came after the finish reason."""


class TranslatedAttempt(Attempt):
    """An attempt at a Chat Completions upstream. `answer` may be begun ahead of its first event.

    Attributes:
        refused: status and body with which the upstream refused the call, as it sent them.
        sent: the request's body, parsed; empty once the upstream has accepted it.
    """

    _EVENTS_A_PIECE: ClassVar[int] = 1
    _kept: list[StreamEvent] | None
    _passage: HookRun[list[StreamEvent]] | None

    def __init__(
        self,
        call: TranslatedCall,
        upstreams: UpstreamClient,
        settings: Settings,
        deadlines: Timers,
        record: CallRecord,
        hooks: CallHooks | None = None,
        *,
        joins_deltas: bool = False,
    ) -> None:
        super().__init__(call.request, upstreams, settings, deadlines, record)
        self._context = call.context
        self.sent = call.sent
        self._is_accepted = False  # the upstream is at work, and what it does is paid for
        self._hooks = StreamHooks(hooks) if hooks is not None and hooks.changes_events else None
        if self._hooks is not None:
            self._read_bytes = HOOKED_READ_BYTES
        self.answer: ResponseDecoder = call.new_decoder()
        self.answer.joins_deltas = joins_deltas and self._hooks is None
        self.refused: tuple[int, bytes] | None = None

    @property
    def has_ended(self) -> bool:
        """The client's stream is over, by the upstream's last event or by one that a hook has made."""
        return self.answer.has_ended or (self._hooks is not None and self._hooks.has_ended)

    def start(self) -> list[StreamEvent]:
        """Begin the message now, whatever comes."""
        events = self.answer.start()
        return events if self._hooks is None else self._hooks.pass_through(events)

    def fail(self, exc: ProxyError) -> list[StreamEvent]:
        """End the stream with `exc`."""
        events = self.answer.fail(exc)
        return events if self._hooks is None else self._hooks.pass_through(events)

    async def open(self) -> list[StreamEvent]:
        """Send the call and wait for the first events.

        Raises:
            ProxyError: there will be none.
        """
        response = await self._send(is_verbatim=False)
        if response.status != 200:
            body = await self._read_error(response)
            headers = {name.lower(): value for name, value in response.headers.items()}
            self.refused = (response.status, body)
            raise refusal(response.status, headers, body, self._context)
        if self.sent.get("stream"):
            self._expect_stream(response)
        self._is_accepted = True
        self.sent = {}
        self._record.output_so_far = lambda: self.answer.usage_so_far.output_tokens
        while not (events := await self.read()) and not self.has_ended:
            pass
        return events

    async def read(self, sink: Sink | None = None) -> list[StreamEvent]:
        """The events of the next piece; there may be none.

        Args:
            sink: takes pieces meanwhile that are nothing but more of what is being said.

        Raises:
            ProxyError: the answer failed and none of its events has been given out.
        """
        response = self._response
        assert response is not None, "read before open"
        answer = self.answer
        if answer.has_finish:
            sink = None
        try:
            chunk = await self._read_chunk(response, sink)
        except _GraceOver:
            chunk = b""
        except BREAKS as exc:
            failure = failure_of(exc, self._url)
            if not answer.has_started:
                raise failure from exc
            clear_tracebacks(exc)
            if not answer.has_finish:
                return await self._give(answer.fail(failure))
            # the message is whole; what broke off was its usage (docs/spec/chat-to-messages.md#end)
            chunk = b""
        if self._passage is not None:
            passage, self._passage = self._passage, None
            return await passage.finish()
        if self._kept is not None:
            events, self._kept = self._kept, None
        elif not chunk:
            self._deadlines.clear(self._finish)
            events = answer.close()
        else:
            events = self._feed(chunk)
        if answer.has_finish and not answer.has_ended:
            self._deadlines.set(self._finish, FINISH_GRACE_S)
        return await self._give(events)

    def _pass_on(self, chunk: bytes, sink: Sink) -> bool:
        answer = self.answer
        events = self._feed(chunk)
        if answer.has_finish or answer.failure is not None:
            self._kept = events
            return False
        if self._hooks is not None:
            self._record.events += count_events(events)
            made = self._made(self._hooks.run(events), self._hooks)
            if made:
                self._push(encode_events(made), sink)
            return made is not None
        if len(events) == 1 and type(run := events[0]) is DeltaRun:  # nearly all of a stream
            self._record.events += run.count
            self._push(run.frames, sink)
        elif events:
            self._record.events += count_events(events)
            self._push(encode_events(events), sink)
        return True

    def _rewriter(self) -> Callable[[bytes], bytes] | None:
        return self.answer.rewriter()

    def _feed(self, chunk: bytes) -> list[StreamEvent]:
        begun = perf_counter()
        events = self.answer.feed(chunk)
        self._record.codec_s += perf_counter() - begun
        return events

    def close(self, *, is_complete: bool = False) -> None:
        self._deadlines.clear(self._finish)
        self._record.output_so_far = None
        if self._is_accepted:
            self._record.usage = self.answer.usage_so_far
        super().close(is_complete=is_complete)

    async def _give(self, events: list[StreamEvent]) -> list[StreamEvent]:
        record, answer = self._record, self.answer
        record.events += count_events(events)
        record.stop_reason = answer.stop_reason
        return events if self._hooks is None else await self._hooks.run(events).finish()

    def _finish(self) -> None:
        self._interrupt(_GraceOver())
