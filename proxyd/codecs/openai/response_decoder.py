"""One answer of a translated route, from the upstream's bytes to Anthropic events, still without I/O.

::

    bytes ─▶ what is it? ──event stream──▶ SSEDecoder ─▶ codec ─▶ grammar ─▶ events
                 └────────one JSON value──▶ codec (a whole completion) ──┘

The first byte that is not blank tells which: servers answer a streaming call with a JSON body, and label streams and
bodies alike (docs/spec/streams.md#rules). The grammar stands behind the codec as a guard: an event out of order is
our bug, and the client still gets a legal end.

A failure before the first event is raised, so that it can become an HTTP status or be tried again. A failure after it
is turned into the one ``error`` event that ends the stream, and kept in `failure` for the log.
"""

from __future__ import annotations

from collections.abc import Callable

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import DeltaRun, ErrorEvent, StreamEvent
from proxyd.codecs.anthropic.grammar import Grammar, IllegalEvent, State
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.openai.codec import Codec
from proxyd.codecs.openai.completion import completion_to_chunk
from proxyd.codecs.openai.errors import ErrorContext, error_in, refusal
from proxyd.codecs.wire.sse import BOM, MAX_FRAME_BYTES, SSEDecoder
from proxyd.errors import BadReply, ProxyError

__all__ = ["ResponseDecoder"]

_BLANK = b" \t\r\n"
#: How much of a body that is neither JSON nor a stream is kept for the log (docs/spec/operations.md#d).
_EXCERPT_BYTES = 200


class ResponseDecoder:
    """Feed it what the upstream sends, then close it.

    Args:
        codec: the stream's state machine.
        max_body_bytes: limit on a JSON body (docs/spec/operations.md#c4).
        max_frame_bytes: limit on one event of the stream.

    Attributes:
        joins_deltas: give out deltas that repeat a template as `DeltaRun`, which costs a third: for a client's stream
            that nobody looks into.
    """

    __slots__ = (
        "_at_start",
        "_blank_bytes",
        "_body",
        "_context",
        "_decoder",
        "_feed",
        "_grammar",
        "_made",
        "_max_body_bytes",
        "codec",
        "failure",
        "joins_deltas",
    )

    def __init__(
        self,
        codec: Codec,
        *,
        max_body_bytes: int,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        context: ErrorContext | None = None,
    ) -> None:
        self.codec = codec
        self.joins_deltas = False
        self.failure: ProxyError | None = None
        self._context = context or ErrorContext()
        self._max_body_bytes = max_body_bytes
        self._decoder = SSEDecoder(max_frame_bytes)
        self._grammar = Grammar()
        self._body = bytearray()
        self._at_start = True
        self._blank_bytes = 0  # ahead of the answer
        self._made: list[
            StreamEvent
        ] = []  # of the step at hand; kept when a later frame of the same chunk fails
        #: How the next bytes are read; unbound, as in `http_body.Body`.
        self._feed: Callable[[ResponseDecoder, bytes], None] = ResponseDecoder._sniff

    @property
    def usage_so_far(self) -> Usage:
        return self.codec.usage_so_far

    @property
    def stop_reason(self) -> str | None:
        return self.codec.stop_reason

    @property
    def has_started(self) -> bool:
        return self.codec.has_started

    @property
    def has_ended(self) -> bool:
        return self._grammar.has_ended

    @property
    def has_finish(self) -> bool:
        return self.codec.has_finish

    def start(self) -> list[StreamEvent]:
        """Begin the message now, whatever comes."""
        return self._checked(self.codec.start())

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Take one chunk.

        Raises:
            ProxyError: the answer failed and nothing of it has been given out.
        """
        was_started = self._grammar.state is not State.START
        try:
            self._feed(self, data)
        except ProxyError as exc:
            return self._broken(exc, was_started)
        return self._checked(self._take())

    def rewriter(self) -> Callable[[bytes], bytes] | None:
        """The short way for chunks that are one frame, and one delta: what gives, for such a chunk, the client's frame.

        It does what `feed` would do. For any other chunk it gives b"", and nothing has happened. It is good until
        anything else is asked of this answer. None while there is no such way.
        """
        if not self.joins_deltas or not self._decoder.is_between or self._grammar.state is not State.BLOCK:
            return None
        return self.codec.rewriter()

    def close(self) -> list[StreamEvent]:
        """The upstream's bytes have ended.

        Raises:
            ProxyError: as `feed`.
        """
        if self.has_ended:
            return []
        was_started = self._grammar.state is not State.START
        try:
            self._close()
        except ProxyError as exc:
            return self._broken(exc, was_started)
        return self._checked(self._take())

    def fail(self, exc: ProxyError) -> list[StreamEvent]:
        """End the stream with `exc`: one ``error`` event.

        The open block is not stopped, since that would claim that it is whole.
        """
        if self.has_ended:
            return []
        self.failure = exc
        return self._checked([ErrorEvent(errors.envelope(exc))])

    # -- what kind of answer it is

    def _sniff(self, data: bytes) -> None:
        self._body += data
        if self._at_start:
            if len(self._body) < len(BOM) and BOM.startswith(self._body):
                return  # more may come of it
            self._at_start = False
            if self._body.startswith(BOM):
                del self._body[: len(BOM)]
        head = bytes(self._body).lstrip(_BLANK)
        if not head:
            self._blank_bytes += len(self._body)
            self._body.clear()
            if self._blank_bytes > self._max_body_bytes:
                raise BadReply("the upstream sent nothing but blank lines")
        elif head[:1] in b"{[":
            self._feed = ResponseDecoder._collect
        elif head[:1] == b"<":
            raise self._not_an_answer(head)
        else:
            self._feed = ResponseDecoder._decode
            self._body.clear()
            self._decode(head)

    def _decode(self, data: bytes) -> None:
        decoder, codec, made = self._decoder, self.codec, self._made
        blocks = decoder.blocks(data)
        at = 0
        while at < len(blocks):
            run = codec.run(blocks, at, is_joined=self.joins_deltas)
            if run:
                made += run
                at += run[0].count if type(run[0]) is DeltaRun else len(run)
                continue
            frame = decoder.parse(blocks[at])
            at += 1
            if frame is not None:
                made += codec.feed(frame)

    def _collect(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._max_body_bytes:
            raise BadReply(f"the upstream's answer is larger than {self._max_body_bytes / (1 << 20):g} MiB")

    def _close(self) -> None:
        for frame in self._decoder.close():
            try:
                self._made += self.codec.feed(frame)
            except BadReply:
                pass  # cut in its middle, so never sent: the codec knows whether that is missed
        if body := bytes(self._body).strip(_BLANK):
            self._on_body(body)
        self._made += self.codec.close()

    def _on_body(self, body: bytes) -> None:
        try:
            value = jsonio.loads(body)
        except jsonio.TooManyValues as exc:
            raise BadReply(f"the upstream's answer has {exc}, which is the limit") from None
        except jsonio.JSONError as exc:
            raise self._not_an_answer(body, f": {exc}") from None
        if error_in(value) is not None:
            raise refusal(200, {}, body, self._context)
        if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
            raise self._not_an_answer(body)
        self.codec.on_completion(completion_to_chunk(value))

    def _not_an_answer(self, body: bytes, why: str = "") -> BadReply:
        exc = BadReply(
            f"the upstream answered with something that is neither an event stream nor a completion{why}"
        )
        exc.detail = body[:_EXCERPT_BYTES].decode("utf-8", "replace")
        return exc

    # -- failures

    def _broken(self, exc: ProxyError, was_started: bool) -> list[StreamEvent]:
        events = self._take()
        if not was_started and not events:
            raise exc
        if self.codec.has_finish and isinstance(exc, BadReply):
            # The message is whole: only its usage could follow (docs/spec/chat-to-messages.md#end), which is not
            # worth asking anew.
            return self._checked([*events, *self.codec.close(), *self.codec.take()])
        return self._checked(events) + self.fail(exc)

    def _take(self) -> list[StreamEvent]:
        events, self._made = self._made, []
        events += self.codec.take()
        return events

    def _checked(self, events: list[StreamEvent]) -> list[StreamEvent]:
        if len(events) == 1 and type(events[0]) is DeltaRun and self._grammar.state is State.BLOCK:
            return events  # nearly all of a stream, and it leaves the state as it is
        accept = self._grammar.accept
        for place, event in enumerate(events):
            try:
                accept(event)
            except IllegalEvent as exc:
                return events[:place] + self.fail(ProxyError(f"internal error in claude-proxy: {exc}"))
        return events
