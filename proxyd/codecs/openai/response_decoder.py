"""Decode one response of a translated route, from the upstream's bytes to Anthropic events, without I/O.

::

    bytes ─▶ what is it? ──event stream──▶ SSEDecoder ─▶ codec ─▶ grammar ─▶ events
                 └────────one JSON value──▶ codec (a whole completion) ──┘

The first byte that is not blank decides: servers respond to a streaming call with a JSON body, and give streams and
bodies the same content type (docs/spec/streams.md#rules). The grammar guards the codec's output: an event out of order
is our bug, and the client still gets a legal end.

A failure before the first event is raised, so that it can become an HTTP status or be retried. A failure after it
becomes the one ``error`` event that ends the stream, and is kept in `failure` for the log.
"""

from __future__ import annotations

from collections.abc import Callable

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import DeltaRun, ErrorEvent, StreamEvent
from proxyd.codecs.anthropic.grammar import Grammar, IllegalEvent, State
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.openai.codec import Codec
from proxyd.codecs.openai.completion import completion_to_chunk
from proxyd.codecs.upstream_errors.errors import ErrorContext, error_in, refusal
from proxyd.codecs.upstream_errors.unreadable import error_in_lines, unreadable_lines
from proxyd.codecs.wire.sse import BOM, MAX_FRAME_BYTES, SSEDecoder
from proxyd.errors import BadReply, ProxyError

__all__ = ["ResponseDecoder"]

_BLANK = b" \t\r\n"
#: How much of a body that is neither JSON nor a stream is kept for the log (docs/spec/operations.md#d).
_EXCERPT_BYTES = 200


class ResponseDecoder:
    """The decoder of one response: feed it the upstream's bytes, then close it.

    Args:
        codec: the stream's state machine.
        max_body_bytes: limit on a JSON body (docs/spec/operations.md#c4).
        max_frame_bytes: limit on one event of the stream.

    Attributes:
        joins_deltas: return deltas that repeat a template as `DeltaRun`, at a third of the cost: for a client's stream
            whose events nobody else reads.
        address: of the upstream, which its failures name; "" for none.
    """

    __slots__ = (
        "_at_start",
        "_blank_bytes",
        "_body",
        "_context",
        "_decoder",
        "_events",
        "_feed",
        "_grammar",
        "_max_body_bytes",
        "address",
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
        self.address = ""
        self.failure: ProxyError | None = None
        self._context = context or ErrorContext()
        self._max_body_bytes = max_body_bytes
        self._decoder = SSEDecoder(max_frame_bytes)
        self._grammar = Grammar()
        self._body = bytearray()
        self._at_start = True
        self._blank_bytes = 0  # before the response
        #: Of the current chunk; kept when a later frame of it fails.
        self._events: list[StreamEvent] = []
        #: The method that takes the next bytes; unbound, so that the decoder is no reference cycle.
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
        """Start the message now, before the upstream has sent anything."""
        return self._guarded(self.codec.start())

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Decode one chunk.

        Raises:
            ProxyError: the response failed before its first event.
        """
        has_started = self._grammar.state is not State.START
        try:
            self._feed(self, data)
        except ProxyError as exc:
            return self._on_failure(exc, has_started)
        return self._guarded(self._take_events())

    def rewriter(self) -> Callable[[bytes], bytes] | None:
        """Return the fast path for chunks that are one frame and one delta, or None if there is none now.

        It returns the client's frame, as `feed` would give it, or b"" to decline without side effects. It is valid
        until any other method is called.
        """
        if not self.joins_deltas or not self._decoder.is_between or self._grammar.state is not State.BLOCK:
            return None
        return self.codec.rewriter()

    def close(self) -> list[StreamEvent]:
        """End the response: the upstream's bytes have ended.

        Raises:
            ProxyError: as `feed`.
        """
        if self.has_ended:
            return []
        has_started = self._grammar.state is not State.START
        try:
            self._close()
        except ProxyError as exc:
            return self._on_failure(exc, has_started)
        return self._guarded(self._take_events())

    def fail(self, exc: ProxyError) -> list[StreamEvent]:
        """End the stream with `exc`, or the error that the upstream itself has written: one ``error`` event.

        The open block is not stopped, since that would claim that it is complete.
        """
        if self.has_ended:
            return []
        exc = self.codec.unreadable_error() or exc
        errors.name_address(exc, self.address)
        self.failure = exc
        return self._guarded([ErrorEvent(errors.envelope(exc))])

    # -- the kind of response

    def _sniff(self, data: bytes) -> None:
        self._body += data
        if self._at_start:
            if len(self._body) < len(BOM) and BOM.startswith(self._body):
                return  # it may become a BOM
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
            raise self._unreadable(head)
        else:
            self._feed = ResponseDecoder._decode
            self._body.clear()
            self._decode(head)

    def _decode(self, data: bytes) -> None:
        decoder, codec, events = self._decoder, self.codec, self._events
        blocks = decoder.blocks(data)
        at = 0
        while at < len(blocks):
            run = codec.repeated_deltas(blocks, at, is_joined=self.joins_deltas)
            if run:
                events += run
                at += run[0].count if type(run[0]) is DeltaRun else len(run)
                continue
            self._on_block(blocks[at])
            at += 1

    def _on_block(self, block: bytes, *, is_cut: bool = False) -> None:
        is_plain = block.startswith(b"data: ") and b"\n" not in block  # nearly every frame
        if not is_plain and (text := unreadable_lines(block, is_cut=is_cut)):
            self.codec.on_unreadable(text)
        frame = self._decoder.parse(block)
        if frame is None:
            return
        try:
            self._events += self.codec.feed(frame)
        except BadReply:
            if not is_cut:  # else the codec knows whether the message is complete without it
                raise

    def _collect(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._max_body_bytes:
            raise BadReply(f"the upstream's response is larger than {self._max_body_bytes / (1 << 20):g} MiB")

    def _close(self) -> None:
        for block in self._decoder.blocks(b"\n\n"):
            self._on_block(block.rstrip(b"\n"), is_cut=True)
        if body := bytes(self._body).strip(_BLANK):
            self._on_body(body)
        self._events += self.codec.close()

    def _on_body(self, body: bytes) -> None:
        try:
            value = jsonio.loads(body)
        except jsonio.TooManyValues as exc:
            raise BadReply(f"the upstream's response has {exc}, which is the limit") from None
        except jsonio.JSONError as exc:
            # Gemini writes its error as a body into the stream, with [DONE] after it.
            error, mark, _ = body.partition(b"\ndata:")
            if mark and error_in_lines(error) is not None:
                raise refusal(200, {}, error, self._context) from None
            raise self._unreadable(body, f": {exc}") from None
        if error_in(value) is not None:
            raise refusal(200, {}, body, self._context)
        if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
            raise self._unreadable(body)
        self.codec.on_completion(completion_to_chunk(value))

    def _unreadable(self, body: bytes, reason: str = "") -> BadReply:
        exc = BadReply(
            f"the upstream responded with something that is neither an event stream nor a completion{reason}"
        )
        exc.detail = body[:_EXCERPT_BYTES].decode("utf-8", "replace")
        return exc

    # -- failures

    def _on_failure(self, exc: ProxyError, has_started: bool) -> list[StreamEvent]:
        events = self._take_events()
        if not has_started and not events:
            raise exc
        if self.codec.has_finish_reason and isinstance(exc, BadReply):
            # The message is complete: only its usage could follow (docs/spec/chat-to-messages.md#end), which is not
            # worth a retry.
            return self._guarded([*events, *self.codec.close(), *self.codec.take_events()])
        return self._guarded(events) + self.fail(exc)

    def _take_events(self) -> list[StreamEvent]:
        events, self._events = self._events, []
        events += self.codec.take_events()
        return events

    def _guarded(self, events: list[StreamEvent]) -> list[StreamEvent]:
        if len(events) == 1 and type(events[0]) is DeltaRun and self._grammar.state is State.BLOCK:
            return events  # nearly every chunk, and it does not change the state
        accept = self._grammar.accept
        for position, event in enumerate(events):
            try:
                accept(event)
            except IllegalEvent as exc:
                return events[:position] + self.fail(ProxyError(f"internal error in claude-proxy: {exc}"))
        return events
