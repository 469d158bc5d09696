"""Direct mode: an Anthropic stream passes as it came, and is only watched.

Bytes go on in whole frames, never re-written. A frame that is still incomplete is held until its last byte is there, so
that a ping, or the error event of a stream that breaks, always falls between two frames. Usage and the end of the
message are read from the few frames that carry them; which those are is told by one search over the bytes, without
parsing any other.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import StreamEvent, event_from_data
from proxyd.codecs.anthropic.usage import Usage, usage_from_anthropic
from proxyd.codecs.wire.sse import (
    BOM,
    MAX_FRAME_BYTES,
    MAX_FRAME_LINES,
    SSEDecoder,
    frame_too_large,
    too_many_lines,
)
from proxyd.errors import FrameTooLarge, Truncated

__all__ = [
    "VAGUE_TYPES",
    "PassthroughStream",
    "UsageTap",
    "begins_as_stream",
    "frames_of",
    "is_of_content",
    "may_hold_error",
    "split_frames",
]

#: How servers label an event stream that is not said to be one; "" where they do not.
VAGUE_TYPES = ("text/plain", "application/octet-stream", "")
_FIELDS = (b"event:", b"data:", b":", b"id:", b"retry:")
#: Blank lines ahead of a stream that are looked past.
_MAX_BLANK_BYTES = 1024
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: How the types of the frames that matter begin, or are. Within a JSON string the quote ahead would be escaped, and so
#: it is a type, or a word like one. A search for each costs a tenth of one pattern for all.
_OF_INTEREST = (b'"message_', b'"error"')
#: The last frame, as Anthropic writes it. Others' is read.
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}'
#: Frames that do not end a stream, and how many of them are put by: Anthropic sends two, others one with each delta.
_NO_END, _MAX_UNREAD = (b"event: message_start\n", b"event: message_delta\n"), 8
_CACHED = re.compile(rb'"cache_(?:read|creation)_input_tokens":\s*[1-9]')
#: What a frame with a delta holds beside the delta's text: names, types, index (counted on Anthropic's own stream).
_DELTA, _DELTA_OVERHEAD_BYTES, _BEFORE_TYPE_BYTES, _CHARS_PER_TOKEN = b'"content_block_delta"', 130, 40, 4


class UsageTap:
    """Reads usage, stop reason and the end of the message from whole frames.

    Only the end must be known at once. What carries usage is put by, and read when somebody asks for it: most often
    when the call is over.

    Attributes:
        has_ended: the last event has passed.
    """

    __slots__ = ("_error_type", "_stop_reason", "_unread", "_usage", "has_ended")

    def __init__(self) -> None:
        self.has_ended = False
        self._unread: list[bytes] = []
        self._usage = Usage()
        self._stop_reason: str | None = None
        self._error_type: str | None = None

    @property
    def usage(self) -> Usage:
        """As reported so far."""
        self._catch_up()
        return self._usage

    @property
    def stop_reason(self) -> str | None:
        self._catch_up()
        return self._stop_reason

    @property
    def error_type(self) -> str | None:
        """Of the stream's error event, if there was one."""
        self._catch_up()
        return self._error_type

    @property
    def reports_cache(self) -> bool:
        """The upstream has said that it reads the prompt from a cache, or puts it there."""
        if any(map(_CACHED.search, self._unread)):
            return True
        return bool(self._usage.cache_read_tokens or self._usage.cache_write_tokens)

    def watch(self, frames: bytes) -> None:
        """Look at bytes that hold whole frames only. Anything that is not understood is left alone."""
        if b"\r" in frames:
            frames = frames.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        places: set[tuple[int, int]] = set()
        for name in _OF_INTEREST:
            end = 0
            while (at := frames.find(name, end)) >= 0:
                start = frames.rfind(b"\n\n", 0, at) + 1  # a line end ahead does no harm
                end = frames.find(b"\n\n", at)
                end = end if end >= 0 else len(frames)
                places.add((start, end))
        for start, end in sorted(places):
            block = frames[start:end].lstrip(b"\n")
            if block == _STOP:
                self.has_ended = True
            elif block.startswith(_NO_END) and len(self._unread) < _MAX_UNREAD:
                self._unread.append(block)
            else:
                self._catch_up()
                self._look_at(block)

    def _catch_up(self) -> None:
        if self._unread:
            unread, self._unread = self._unread, []
            for block in unread:
                self._look_at(block)

    def _look_at(self, block: bytes) -> None:
        try:
            frame = SSEDecoder.parse(block)
            data = None if frame is None else jsonio.loads(frame.data)
        except (FrameTooLarge, jsonio.JSONError):
            return
        if isinstance(data, dict):
            self._read(data)

    def watch_body(self, body: bytes) -> None:
        """Look at the body of an answer that was not streamed."""
        try:
            message = jsonio.loads(body)
        except jsonio.JSONError:
            return
        if isinstance(message, dict):
            self._read(message)

    def _read(self, data: dict[str, Any]) -> None:
        """Take the data of one event, or a whole message."""
        kind = data.get("type")
        message = data.get("message") if kind == "message_start" else data
        if not isinstance(message, dict):
            return
        if kind in ("message_start", "message_delta", "message"):
            self._usage = usage_from_anthropic(message.get("usage"), self._usage) or self._usage
            delta = data.get("delta") if kind == "message_delta" else message
            reason = delta.get("stop_reason") if isinstance(delta, dict) else None
            self._stop_reason = _word(reason) or self._stop_reason
        elif kind == "message_stop":
            self.has_ended = True
        elif kind == "error":
            error = data.get("error")
            self._error_type = _word(error.get("type") if isinstance(error, dict) else None) or "unknown"
            self.has_ended = True


def _word(value: Any) -> str | None:
    """`value` where it is a word of the API, and no text of somebody's (docs/spec/operations.md#e7)."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


class PassthroughStream:
    """One stream of a direct route: bytes in, whole frames out.

    Attributes:
        watches_all: only frames with the model's words may pass by unread (see `may_hold_error`).
    """

    __slots__ = (
        "_counted",
        "_delta_bytes",
        "_deltas",
        "_lines",
        "_max_frame_bytes",
        "_searched",
        "_tail",
        "tap",
        "watches_all",
    )

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._tail = bytearray()
        self._searched = 0
        self._lines = self._counted = 0  # line ends in the tail, among so many of its bytes
        self._deltas = self._delta_bytes = 0
        self.tap = UsageTap()
        self.watches_all = False

    @property
    def usage_so_far(self) -> Usage:
        """As reported; an answer that breaks off has its output estimated from how much was sent of it."""
        usage = self.tap.usage
        if self.tap.has_ended or not self._deltas:
            return usage
        said = (self._delta_bytes - self._deltas * _DELTA_OVERHEAD_BYTES) // _CHARS_PER_TOKEN
        return replace(usage, output_tokens=max(usage.output_tokens, self._deltas, said), is_estimated=True)

    def feed(self, data: bytes) -> bytes:
        """Take one chunk; returns the frames that it completes, as they came.

        Raises:
            FrameTooLarge: the unfinished frame is over the limit, or a frame has more than `MAX_FRAME_LINES`.
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
        # A line has a byte at least, so nearly nothing needs a look.
        if len(frames) > MAX_FRAME_LINES and not _are_all_short(frames):
            _check_lines(frames)
        if frames:
            self._lines = self._counted = 0
        if len(tail) > MAX_FRAME_LINES:
            self._count_lines()
        if frames:
            self._count(frames)
            self.tap.watch(frames)
        return frames

    def pass_through(self, data: bytes) -> bytes:
        """As `feed`, of a chunk that is whole frames behind whole frames, none of which matters; else b"", and nothing
        has happened.
        """
        if self._tail or not data.endswith(b"\n\n") or b"\r" in data or len(data) > MAX_FRAME_LINES:
            return b""
        for name in _OF_INTEREST:
            if name in data:
                return b""
        if self.watches_all and data.count(_CONTENT) < data.count(b"\n\n"):
            return b""
        self._count(data)
        return data

    def _count(self, frames: bytes) -> None:
        deltas = frames.count(_DELTA)
        if deltas:
            self._deltas += deltas
            self._delta_bytes += len(frames) - max(0, frames.find(_DELTA) - _BEFORE_TYPE_BYTES)

    def _count_lines(self) -> None:
        """Count on in the unfinished frame, each byte once."""
        tail, start = self._tail, self._counted
        end = len(tail) - tail.endswith(b"\r")  # which may be the first half of a line end
        pairs = tail.count(b"\r\n", start, end)
        self._lines += tail.count(b"\n", start, end) + tail.count(b"\r", start, end) - pairs
        self._counted = end
        if self._lines > MAX_FRAME_LINES:
            raise too_many_lines()

    def close(self) -> bytes:
        """The upstream has ended; returns a last frame that lacked its blank line.

        Raises:
            Truncated: the message had not ended. An unfinished frame is dropped.
        """
        rest = bytes(self._tail)
        self._tail.clear()
        if not self.tap.has_ended and rest:
            self.tap.watch(rest + b"\n\n")
        if not self.tap.has_ended:
            raise Truncated("the upstream closed the stream before finishing")
        return rest


def begins_as_stream(data: bytes) -> bool | None:
    """Whether `data` is the beginning of an event stream; None where more of it must be seen."""
    start = data.removeprefix(BOM).lstrip(b"\r\n")
    if start.startswith(_FIELDS):
        return True
    is_open = any(field.startswith(start) for field in _FIELDS) or BOM.startswith(data)
    return None if is_open and len(data) <= _MAX_BLANK_BYTES else False


#: A blank line, however the lines end.
_FRAME_END = re.compile(rb"\r\n\r\n|\n\r\n|\n\n|\r\r")


#: The types of events that carry the model's words, as they begin.
_CONTENT = b'"content_block_'


def is_of_content(frame: bytes) -> bool:
    """Whether one frame carries the model's words and is no error. Within JSON's strings the quotes are escaped."""
    return _CONTENT in frame and b'"error"' not in frame and b"event: error" not in frame


def may_hold_error(frames: bytes) -> bool:
    """Whether among whole frames there is one that `is_of_content` denies. True where lines end in CR, to be sure."""
    return (
        b'"error"' in frames
        or b"\r" in frames
        or frames.count(_CONTENT) < frames.count(b"\n\n")
        or not frames.endswith(b"\n\n")
    )


def frames_of(frames: bytes) -> list[bytes]:
    """Whole frames one by one."""
    found, start = [], 0
    while start < len(frames):
        match = _FRAME_END.search(frames, start)
        end = match.end() if match is not None else len(frames)
        found.append(frames[start:end])
        start = end
    return found


def split_frames(frames: bytes) -> list[tuple[bytes, StreamEvent | None]]:
    """Whole frames one by one, each with its event; None where it has none that is understood (a comment, no JSON)."""
    return [(raw, _event_of(raw)) for raw in frames_of(frames)]


def _event_of(raw: bytes) -> StreamEvent | None:
    decoder = SSEDecoder()
    try:
        found = decoder.feed(raw) + decoder.close()
        data = jsonio.loads(found[0].data) if found else None
    except (FrameTooLarge, jsonio.JSONError):
        return None
    return event_from_data(data) if isinstance(data, dict) else None


def _are_all_short(frames: bytes) -> bool:
    """Whether none of whole frames is longer than `MAX_FRAME_LINES`, in bytes; told by a few of their ends."""
    end, size = 0, len(frames)
    while size - end > MAX_FRAME_LINES:
        at = frames.rfind(b"\n\n", end, end + MAX_FRAME_LINES)
        if at < 0:
            return False
        end = at + 2
    return True


def _check_lines(frames: bytes) -> None:
    """Raise `FrameTooLarge` where one of whole frames has too many lines."""
    if frames.count(b"\n") + frames.count(b"\r") <= MAX_FRAME_LINES:
        return
    lines = frames.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if any(block.strip(b"\n").count(b"\n") >= MAX_FRAME_LINES for block in lines.split(b"\n\n")):
        raise too_many_lines()


def _end_of_frames(data: bytes | bytearray, start: int) -> int:
    """Where the last whole frame in `data` ends; 0 if there is none. Looks no further back than `start`."""
    at = data.rfind(b"\n\n", start)
    end = at + 2 if at >= 0 else 0
    if data.find(b"\r", start) >= 0:
        for blank in (b"\r\n\r\n", b"\r\r", b"\n\r\n"):
            at = data.rfind(blank, start)
            if at >= 0:
                end = max(end, at + len(blank))
    return end
