"""Decode one response of a translated route, from the upstream's bytes to Anthropic frames, without I/O.

::

    bytes ─▶ what is it? ──event stream──▶ SSEDecoder ─▶ codec ─▶ grammar ─▶ frames
                 └────────one JSON value──▶ codec (a whole response) ──┘

The first byte that is not blank decides: servers respond to a streaming call with a JSON body, and give streams and
bodies the same content type (docs/spec/streams.md#rules). The codec is that of the upstream's protocol
(`codecs.codec`). The grammar guards its output: an event out of order is our bug, and the client still gets a legal
end.
"""

from __future__ import annotations

from collections.abc import Callable

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, StreamEvent, encode_events
from proxyd.codecs.anthropic.grammar import Grammar, IllegalEvent, State
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.codec import Codec
from proxyd.codecs.decoder import LARGE_BYTES
from proxyd.codecs.upstream_errors.outline import outline_of
from proxyd.codecs.upstream_errors.unreadable import unreadable_lines
from proxyd.codecs.wire.sse import (
    BOM,
    MAX_FRAME_BYTES,
    MAX_FRAME_LINES,
    SSEDecoder,
    plain_frame,
    too_many_lines,
)
from proxyd.errors import BadReply, ProxyError

__all__ = ["ResponseDecoder"]

_BLANK = b" \t\r\n"


class ResponseDecoder:
    """The decoder of one response (`codecs.decoder`).

    Args:
        codec: the state machine of the upstream's protocol.
        max_body_bytes: limit on a JSON body (docs/spec/operations.md#c4).
        max_frame_bytes: limit on one event of the stream.
    """

    __slots__ = (
        "_at_start",
        "_blank_bytes",
        "_body",
        "_codec",
        "_decoder",
        "_events",
        "_feed",
        "_grammar",
        "_max_body_bytes",
        "address",
        "events",
        "failure",
    )

    def __init__(self, codec: Codec, *, max_body_bytes: int, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._codec = codec
        self.failure: ProxyError | None = None
        self.events = 0
        self.address = ""
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
    def usage(self) -> Usage:
        return self._codec.usage

    @property
    def stop_reason(self) -> str | None:
        return self._codec.stop_reason

    @property
    def error_type(self) -> str | None:
        return None  # a failure's own is used

    @property
    def response_model(self) -> str | None:
        return self._codec.response_model

    @property
    def reports_cache(self) -> bool:
        return False  # usage comes at the end

    @property
    def has_started(self) -> bool:
        return self._grammar.state is not State.START

    @property
    def has_last_event(self) -> bool:
        return self._grammar.has_ended

    @property
    def has_ended(self) -> bool:
        return self._grammar.has_ended

    @property
    def has_finish(self) -> bool:
        return self._codec.has_finish

    @property
    def is_large(self) -> bool:
        return len(self._body) + self._decoder.buffered_bytes > LARGE_BYTES

    def start(self) -> bytes:
        """Start the message now, before the upstream has sent anything."""
        return self._guarded(self._codec.start())

    def feed(self, data: bytes) -> bytes:
        has_started = self.has_started
        try:
            self._feed(self, data)
        except ProxyError as exc:
            return self._on_failure(exc, has_started)
        return self._guarded(self._take_events())

    def close(self) -> bytes:
        if self.has_ended:
            return b""
        has_started = self.has_started
        try:
            self._close()
        except ProxyError as exc:
            return self._on_failure(exc, has_started)
        return self._guarded(self._take_events())

    def fail(self, exc: ProxyError) -> bytes:
        """As `Decoder.fail`. The open block is not stopped, since that would claim that it is complete."""
        if self.has_ended:
            return b""
        exc = self._codec.unreadable_error() or exc
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
        for block in self._decoder.blocks(data):
            frame = plain_frame(block)
            if frame is not None:  # nearly every one
                self._events += self._codec.feed(frame)
            else:
                self._on_block(block)

    def _on_block(self, block: bytes, *, is_cut: bool = False) -> None:
        if len(block) > MAX_FRAME_LINES and block.count(b"\n") >= MAX_FRAME_LINES:
            raise too_many_lines()
        frame = plain_frame(block)
        if frame is None:
            if text := unreadable_lines(block, is_cut=is_cut):
                self._codec.on_unreadable(text)
            frame = self._decoder.parse(block)
        if frame is None:
            return
        try:
            self._events += self._codec.feed(frame)
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
        self._events += self._codec.close()

    def _on_body(self, body: bytes) -> None:
        try:
            value = jsonio.loads(body)
        except jsonio.TooManyValues as exc:
            raise BadReply(f"the upstream's response has {exc}, which is the limit") from None
        except jsonio.JSONError as exc:
            # Gemini writes its error as a body into the stream, with [DONE] after it.
            error, mark, _ = body.partition(b"\ndata:")
            if mark and (failure := self._codec.error_in_body(error)) is not None:
                raise failure from None
            raise self._unreadable(body, f": {exc}") from None
        failure = self._codec.error_in_body(body)
        if failure is not None:
            raise failure
        if not self._codec.on_body(value):
            raise self._unreadable(body)

    def _unreadable(self, body: bytes, reason: str = "") -> BadReply:
        exc = BadReply(
            f"the upstream responded with something that is neither an event stream nor a completion{reason}"
        )
        exc.detail = outline_of(body)
        return exc

    # -- failures

    def _on_failure(self, exc: ProxyError, has_started: bool) -> bytes:
        events = self._take_events()
        if not has_started and not events:
            raise exc
        if self._codec.has_finish_reason and isinstance(exc, BadReply):
            # The message is complete: only its usage could follow (docs/spec/chat-to-messages.md#end), which is not
            # worth a retry.
            return self._guarded([*events, *self._codec.close(), *self._codec.take_events()])
        return self._guarded(events) + self.fail(exc)

    def _take_events(self) -> list[StreamEvent]:
        events, self._events = self._events, []
        events += self._codec.take_events()
        return events

    def _guarded(self, events: list[StreamEvent]) -> bytes:
        """Check the order of `events` and encode them."""
        accept = self._grammar.accept
        for position, event in enumerate(events):
            try:
                accept(event)
            except IllegalEvent as exc:
                legal = events[:position]
                self.events += position
                return encode_events(legal) + self.fail(ProxyError(f"internal error in claude-proxy: {exc}"))
        self.events += len(events)
        return encode_events(events)
