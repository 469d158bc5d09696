"""Server-sent events, decoded incrementally.

Rules: WHATWG HTML, section 9.2 (docs/spec/streams.md#rules). Lines end with LF, CR or CRLF, cut anywhere; comments
are dropped; a blank line dispatches. Two departures, both for servers that exist: a last frame without its blank line
is given out by `close`, and bytes that are not UTF-8 are left to the JSON parser, so that a broken character spoils
one frame only.

All line ends become LF as the bytes come in, so a frame ends at the first ``LF LF`` and splitting is left to C. Memory
is the unfinished frame; it is searched once, whatever the size of the chunks.
"""

from __future__ import annotations

from typing import NamedTuple

from proxyd.errors import FrameTooLarge

__all__ = [
    "BOM",
    "MAX_FRAME_BYTES",
    "MAX_FRAME_LINES",
    "SSEDecoder",
    "SSEFrame",
    "frame_too_large",
    "too_many_lines",
]

#: docs/spec/operations.md#c4. A 4 MB tool argument in one event still fits; aiohttp's own line limit would be 512
#: KiB.
MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_FRAME_LINES = 10_000

BOM = b"\xef\xbb\xbf"


class SSEFrame(NamedTuple):
    """One dispatched message: its ``event`` name, empty if none, and its ``data`` lines joined by LF."""

    event: bytes
    data: bytes


def frame_too_large(limit: int) -> FrameTooLarge:
    """An unfinished frame has grown over `limit` bytes."""
    return FrameTooLarge(
        f"an event of the upstream's stream is larger than {limit / (1 << 20):g} MiB (max_frame_bytes)"
    )


def too_many_lines() -> FrameTooLarge:
    """A frame has more than `MAX_FRAME_LINES` lines."""
    return FrameTooLarge(f"an event of the upstream's stream has more than {MAX_FRAME_LINES} lines")


class SSEDecoder:
    """Bytes in, frames out. A frame is returned by the call that brings its last byte."""

    __slots__ = ("_after_cr", "_at_start", "_buffer", "_max_frame_bytes")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._after_cr = False
        self._at_start = True

    @property
    def is_between(self) -> bool:
        """All that has come were whole frames."""
        return not (self._buffer or self._after_cr or self._at_start)

    def feed(self, data: bytes) -> list[SSEFrame]:
        """Take one chunk.

        Raises:
            FrameTooLarge: the unfinished frame is over `max_frame_bytes`, or has more than `MAX_FRAME_LINES`.
        """
        return [frame for block in self.blocks(data) if (frame := self.parse(block)) is not None]

    def blocks(self, data: bytes) -> list[bytes]:
        """As `feed`, with the frames as they came: their lines, without the blank one. Each is to be `parse`d.

        Raises:
            FrameTooLarge: as `feed`.
        """
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 0x0A:  # the second half of a CRLF
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == 0x0D
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer = self._buffer
        if buffer:
            searched = len(buffer) - 1
            buffer += data
            if buffer.find(b"\n\n", searched) < 0:
                self._check_size()
                return []
            data = bytes(buffer)
            buffer.clear()
        blocks = data.split(b"\n\n")
        buffer += blocks.pop()
        self._check_size()
        if self._at_start and blocks:
            self._at_start = False
            blocks[0] = blocks[0].removeprefix(BOM)
        return blocks

    def close(self) -> list[SSEFrame]:
        """The bytes have ended: the frame that lacked its blank line, if there was one."""
        block = bytes(self._buffer).rstrip(b"\n")
        self._buffer.clear()
        if self._at_start:
            block = block.removeprefix(BOM)
        frame = self.parse(block)
        return [] if frame is None else [frame]

    def _check_size(self) -> None:
        if len(self._buffer) > self._max_frame_bytes:
            raise frame_too_large(self._max_frame_bytes)

    @staticmethod
    def parse(block: bytes) -> SSEFrame | None:
        """What the lines of one frame say; None where that is nothing.

        Raises:
            FrameTooLarge: they are more than `MAX_FRAME_LINES`.
        """
        if block.startswith(b"data: ") and b"\n" not in block:  # nearly every frame there is
            return SSEFrame(b"", block[6:])
        lines = block.split(b"\n")
        if len(lines) > MAX_FRAME_LINES:
            raise too_many_lines()
        event = b""
        data: list[bytes] = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif name == b"event":
                event = value.removeprefix(b" ")
        return SSEFrame(event, b"\n".join(data)) if data else None
