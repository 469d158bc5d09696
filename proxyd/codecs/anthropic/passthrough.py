"""Cut an Anthropic stream of a direct route into whole frames, which pass through unchanged.

An incomplete frame is held until its last byte arrives, so that a ping, or the error event of a stream that breaks, is
always written between two frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, StreamEvent, encode_event, event_from_data
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.anthropic.usage_tap import UsageTap
from proxyd.codecs.decoder import LARGE_BYTES
from proxyd.codecs.wire.sse import (
    BOM,
    MAX_FRAME_BYTES,
    MAX_FRAME_LINES,
    SSEDecoder,
    frame_too_large,
    too_many_lines,
)
from proxyd.errors import FrameTooLarge, ProxyError, Truncated

__all__ = [
    "VAGUE_TYPES",
    "PassthroughStream",
    "begins_as_stream",
    "frames_of",
    "is_of_content",
    "may_hold_error",
    "split_frames",
]

#: Content types of responses that may be an event stream although they are not labelled as one; "" for none.
VAGUE_TYPES = ("text/plain", "application/octet-stream", "")
_FIELDS = (b"event:", b"data:", b":", b"id:", b"retry:")
#: Blank lines before a stream are skipped up to this size.
_MAX_BLANK_BYTES = 1024
#: A blank line, with any line ends.
_FRAME_END = re.compile(rb"\r\n\r\n|\n\r\n|\n\n|\r\r")
#: Prefix of the types of all events that carry output of the model.
_CONTENT = b'"content_block_'


class PassthroughStream:
    """The decoder of one stream (`codecs.decoder`): bytes in, the same bytes out as whole frames.

    Args:
        mask: masks keys in some bytes. Frames that carry output of the model pass unchanged. It is called for many
            frames at once where none holds a key: a call for each of a thousand comments would block the event loop.

    Attributes:
        tap: reads usage and the end of the message from the frames.
    """

    __slots__ = (
        "_counted",
        "_lines",
        "_mask",
        "_max_frame_bytes",
        "_searched",
        "_tail",
        "address",
        "events",
        "failure",
        "has_ended",
        "has_started",
        "tap",
    )

    def __init__(
        self, max_frame_bytes: int = MAX_FRAME_BYTES, mask: Callable[[bytes], bytes] | None = None
    ) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._mask = mask
        self._tail = bytearray()
        self._searched = 0
        self._lines = self._counted = 0  # line ends in the first `_counted` bytes of the tail
        self.tap = UsageTap()
        self.address = ""
        self.failure: ProxyError | None = None
        self.events = 0  # they are not counted
        self.has_started = self.has_ended = False

    @property
    def usage(self) -> Usage:
        return self.tap.usage_so_far

    @property
    def stop_reason(self) -> str | None:
        return self.tap.stop_reason

    @property
    def error_type(self) -> str | None:
        return self.tap.error_type

    @property
    def response_model(self) -> str | None:
        return self.tap.model

    @property
    def reports_cache(self) -> bool:
        """The upstream has reported tokens that were read from a cache or written to one."""
        return self.tap.reports_cache

    @property
    def has_finish(self) -> bool:
        return self.tap.has_ended

    @property
    def has_last_event(self) -> bool:
        return self.tap.has_ended

    @property
    def is_large(self) -> bool:
        return len(self._tail) > LARGE_BYTES

    def feed(self, data: bytes) -> bytes:
        """As `Decoder.feed`.

        Raises:
            FrameTooLarge: the incomplete frame is over the limit, or a frame has more than `MAX_FRAME_LINES`, in the
                first frames.
        """
        try:
            return self._passed(self._feed(data))
        except ProxyError as exc:
            if not self.has_started:
                raise
            return self.fail(exc)

    def close(self) -> bytes:
        """As `Decoder.close`; returns a last frame without its blank line.

        Raises:
            Truncated: there were no frames.
        """
        rest = bytes(self._tail)
        self._tail.clear()
        if not self.has_finish and rest:
            self.tap.watch(rest + b"\n\n")
        if not self.has_finish:
            truncated = Truncated("the upstream closed the stream before finishing")
            if not self.has_started:
                raise truncated
            return self.fail(truncated)  # an incomplete frame is dropped
        self.has_ended = True
        return self._passed(rest)

    def fail(self, exc: ProxyError) -> bytes:
        if self.has_ended:
            return b""
        self.has_ended = True
        if self.has_finish:
            return b""
        errors.name_address(exc, self.address)
        self.failure = exc
        return encode_event(ErrorEvent(errors.envelope(exc)))

    def _passed(self, frames: bytes) -> bytes:
        self.has_started = self.has_started or bool(frames)
        if self._mask is None or not may_hold_error(frames) or self._mask(frames) == frames:
            return frames
        return b"".join(frame if is_of_content(frame) else self._mask(frame) for frame in frames_of(frames))

    def _feed(self, data: bytes) -> bytes:
        """Take one chunk; return the frames that it completes.

        Raises:
            FrameTooLarge: see `feed`.
        """
        tail = self._tail
        if not tail:
            end = _end_of_frames(data, 0)
            tail += data[end:]
            self._searched = 0
            frames = data[:end] if tail else data
        else:
            tail += data
            end = _end_of_frames(tail, max(0, self._searched - 3))
            frames = bytes(tail[:end])
            del tail[:end]
        self._searched = len(tail)
        if len(tail) > self._max_frame_bytes:
            raise frame_too_large(self._max_frame_bytes)
        # A line has at least one byte, so nearly all frames need no count.
        if len(frames) > MAX_FRAME_LINES and not _are_all_short(frames):
            _check_lines(frames)
        if frames:
            self._lines = self._counted = 0
        if len(tail) > MAX_FRAME_LINES:
            self._count_lines()
        if frames:
            self.tap.count_deltas(frames)
            self.tap.watch(frames)
        return frames

    def _count_lines(self) -> None:
        """Count the line ends in the incomplete frame, each byte once."""
        tail, start = self._tail, self._counted
        end = len(tail) - tail.endswith(b"\r")  # which may be the first half of a line end
        pairs = tail.count(b"\r\n", start, end)
        self._lines += tail.count(b"\n", start, end) + tail.count(b"\r", start, end) - pairs
        self._counted = end
        if self._lines > MAX_FRAME_LINES:
            raise too_many_lines()


def begins_as_stream(data: bytes) -> bool | None:
    """Return whether `data` is the beginning of an event stream; None if more bytes are needed."""
    start = data.removeprefix(BOM).lstrip(b"\r\n")
    if start.startswith(_FIELDS):
        return True
    is_open = any(field.startswith(start) for field in _FIELDS) or BOM.startswith(data)
    return None if is_open and len(data) <= _MAX_BLANK_BYTES else False


def is_of_content(frame: bytes) -> bool:
    """Return whether one frame carries output of the model and no error; quotes in JSON strings are escaped."""
    return _CONTENT in frame and b'"error"' not in frame and b"event: error" not in frame


def may_hold_error(frames: bytes) -> bool:
    """Return whether `is_of_content` may be false for one of these whole frames; true for lines that end in CR."""
    return (
        b'"error"' in frames
        or b"\r" in frames
        or frames.count(_CONTENT) < frames.count(b"\n\n")
        or not frames.endswith(b"\n\n")
    )


def frames_of(frames: bytes) -> list[bytes]:
    """Split whole frames."""
    found, start = [], 0
    while start < len(frames):
        match = _FRAME_END.search(frames, start)
        end = match.end() if match is not None else len(frames)
        found.append(frames[start:end])
        start = end
    return found


def split_frames(frames: bytes) -> list[tuple[bytes, StreamEvent | None]]:
    """Split whole frames, each with its event; None for a comment or invalid data."""
    return [(raw, _event_of(raw)) for raw in frames_of(frames)]


def _event_of(raw: bytes) -> StreamEvent | None:
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        frame = SSEDecoder.parse(raw.removeprefix(BOM).strip(b"\n"))
        data = None if frame is None else jsonio.loads(frame.data)
    except (FrameTooLarge, jsonio.JSONError):
        return None
    return event_from_data(data) if isinstance(data, dict) else None


def _are_all_short(frames: bytes) -> bool:
    """Return whether every frame has at most `MAX_FRAME_LINES` bytes; only a few frame ends are searched."""
    end, size = 0, len(frames)
    while size - end > MAX_FRAME_LINES:
        at = frames.rfind(b"\n\n", end, end + MAX_FRAME_LINES)
        if at < 0:
            return False
        end = at + 2
    return True


def _check_lines(frames: bytes) -> None:
    """Raise `FrameTooLarge` if one of whole frames has too many lines."""
    if frames.count(b"\n") + frames.count(b"\r") <= MAX_FRAME_LINES:
        return
    lines = frames.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if any(block.strip(b"\n").count(b"\n") >= MAX_FRAME_LINES for block in lines.split(b"\n\n")):
        raise too_many_lines()


def _end_of_frames(data: bytes | bytearray, start: int) -> int:
    """Return where the last whole frame in `data` ends, 0 if there is none, searching from `start` only."""
    at = data.rfind(b"\n\n", start)
    end = at + 2 if at >= 0 else 0
    if data.find(b"\r", start) >= 0:
        for blank in (b"\r\n\r\n", b"\r\r", b"\n\r\n"):
            at = data.rfind(blank, start)
            if at >= 0:
                end = max(end, at + len(blank))
    return end
