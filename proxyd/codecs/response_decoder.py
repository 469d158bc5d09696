"""Decode one response of a translated route, from the upstream's bytes to Anthropic frames, without I/O.

::

    bytes ─▶ what is it? ──event stream──▶ SSEDecoder ─▶ codec ──events──▶ grammar ─▶ frames
                 │                                         └──the next delta of the open block──┘
                 └────────one JSON value──▶ codec (a whole response) ──events──▶ grammar

The first byte that is not blank decides: servers respond to a streaming call with a JSON body, and give streams and
bodies the same content type (docs/spec/streams.md#rules). The codec is that of the upstream's protocol
(`codecs.codec`). The grammar guards its output: an event out of order is our bug, and the client still gets a legal
end.
"""

from __future__ import annotations

from collections.abc import Callable

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, StreamEvent, encode_event
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
        "_feed",
        "_frames",
        "_grammar",
        "_max_body_bytes",
        "address",
        "events",
        "failure",
        "has_ended",
        "has_finish",
        "has_started",
        "is_large",
    )

    def __init__(self, codec: Codec, *, max_body_bytes: int, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._codec = codec
        self.failure: ProxyError | None = None
        self.events = 0
        self.has_started = self.has_finish = self.has_ended = self.is_large = False
        self.address = ""
        self._max_body_bytes = max_body_bytes
        self._decoder = SSEDecoder(max_frame_bytes)
        self._grammar = Grammar()
        self._body = bytearray()
        self._at_start = True
        self._blank_bytes = 0  # before the response
        #: For the client, of the current chunk; kept when a later frame of it fails.
        self._frames: list[bytes] = []
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
    def has_last_event(self) -> bool:
        return self.has_ended

    def start(self) -> bytes:
        """Start the message now, before the upstream has sent anything."""
        self._write(self._codec.start())
        return self._take_frames()

    def feed(self, data: bytes) -> bytes:
        if self.has_ended:
            return b""
        try:
            self._feed(self, data)
        except ProxyError as exc:
            return self._on_failure(exc)
        frames = self._take_frames()
        # What follows the last whole frame of a read is no larger than the read.
        self.is_large = not frames and len(self._body) + self._decoder.buffered_bytes > LARGE_BYTES
        return frames

    def close(self) -> bytes:
        if self.has_ended:
            return b""
        try:
            self._close()
        except ProxyError as exc:
            return self._on_failure(exc)
        return self._take_frames()

    def fail(self, exc: ProxyError) -> bytes:
        """As `Decoder.fail`. The open block is not stopped, since that would claim that it is complete."""
        if self.has_ended:
            return self._take_frames()
        exc = self._codec.unreadable_error() or exc
        errors.name_address(exc, self.address)
        self.failure = exc
        self._write([ErrorEvent(errors.envelope(exc))])
        return self._take_frames()

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
        codec = self._codec
        for block in self._decoder.blocks(data):
            repeated = codec.repeat(block)
            if repeated:  # nearly always
                self._frames.append(repeated)
                self.events += 1
                continue
            frame = plain_frame(block)
            if frame is not None:
                self._write(codec.feed(frame))
            else:
                self._on_block(block)
            if self.has_ended:
                return

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
            self._write(self._codec.feed(frame))
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
        self._write(self._codec.close())

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

    def _on_failure(self, exc: ProxyError) -> bytes:
        self._write(self._codec.take_events())
        if not self.has_started:
            raise exc
        if self._codec.has_finish_reason and isinstance(exc, BadReply):
            # The message is complete: only its usage could follow (docs/spec/chat-to-messages.md#end), which is not
            # worth a retry.
            self._write(self._codec.close())
            self._write(self._codec.take_events())
            return self._take_frames()
        return self.fail(exc)

    # -- frames for the client

    def _write(self, events: list[StreamEvent]) -> None:
        """Check the order of `events` and encode them; to be called whenever the codec has been fed."""
        self.has_finish = self._codec.has_finish
        grammar = self._grammar
        for event in events:
            try:
                grammar.accept(event)
            except IllegalEvent as exc:
                frames = self.fail(ProxyError(f"internal error in claude-proxy: {exc}"))
                self._frames.append(frames)
                return
            self.has_started, self.has_ended = grammar.state is not State.START, grammar.has_ended
            self._frames.append(encode_event(event))
            self.events += 1

    def _take_frames(self) -> bytes:
        frames, self._frames = self._frames, []
        return b"".join(frames)
