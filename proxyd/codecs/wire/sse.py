"""Incremental decoder for server-sent events.

Rules: WHATWG HTML, section 9.2 (docs/spec/streams.md#rules). Lines end with LF, CR or CRLF, split anywhere; comments
are dropped; a blank line dispatches a frame. Two deviations, both for real servers: `close` returns a last frame
without its blank line, and invalid UTF-8 is left to the JSON parser, so that it affects one frame only.

Line ends are normalised to LF on arrival, so a frame ends at the first ``LF LF`` and `bytes.split` finds it. Only the
incomplete frame is buffered; each byte of it is searched once, whatever the size of the chunks.
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
    "plain_frame",
    "start_of",
    "too_many_lines",
]

#: docs/spec/operations.md#c4. A 4 MB tool argument in one event fits; aiohttp's own line limit is 512 KiB.
MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_FRAME_LINES = 10_000

BOM = b"\xef\xbb\xbf"


class SSEFrame(NamedTuple):
    """One dispatched message: its ``event`` name, empty if none, and its ``data`` lines joined by LF."""

    event: bytes
    data: bytes


def frame_too_large(limit: int) -> FrameTooLarge:
    """Build the error for an incomplete frame over `limit` bytes."""
    return FrameTooLarge(
        f"an event of the upstream's stream is larger than {limit / (1 << 20):g} MiB (max_frame_bytes)"
    )


def too_many_lines() -> FrameTooLarge:
    """Build the error for a frame with more than `MAX_FRAME_LINES` lines."""
    return FrameTooLarge(f"an event of the upstream's stream has more than {MAX_FRAME_LINES} lines")


def plain_frame(block: bytes) -> SSEFrame | None:
    """Parse a frame that is one line of data, perhaps after its name, as nearly all are; None for any other."""
    at = block.find(b"\n") + 1
    if not at:
        return SSEFrame(b"", block[6:]) if block.startswith(b"data: ") else None
    if block.startswith(b"data: ", at) and block.startswith(b"event: ") and block.find(b"\n", at) < 0:
        return SSEFrame(block[7 : at - 1], block[at + 6 :])
    return None


def start_of(frame: SSEFrame) -> bytes:
    """Return what stands before the data of a frame in the form of `plain_frame`."""
    return b"event: %b\ndata: " % frame.event if frame.event else b"data: "


class SSEDecoder:
    """Decodes bytes to frames. Each frame is returned by the call that receives its last byte."""

    __slots__ = ("_after_cr", "_at_start", "_buffer", "_max_frame_bytes")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._after_cr = False
        self._at_start = True

    @property
    def is_between(self) -> bool:
        """Whether no incomplete frame is buffered."""
        return not (self._buffer or self._after_cr or self._at_start)

    @property
    def buffered_bytes(self) -> int:
        """Size of the incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[SSEFrame]:
        """Decode one chunk.

        Raises:
            FrameTooLarge: the incomplete frame is over `max_frame_bytes`, or has more than `MAX_FRAME_LINES`.
        """
        return [frame for block in self.blocks(data) if (frame := self.parse(block)) is not None]

    def blocks(self, data: bytes) -> list[bytes]:
        """Decode one chunk to raw frames: their lines without the blank one, for `parse`.

        Raises:
            FrameTooLarge: as `feed`.
        """
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 0x0A:  # the second half of a CRLF
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == 0x0D
            last = b"\n" if data.endswith((b"\r", b"\n")) else b""
            # Splits at CRLF, CR and LF, and takes half the time of replacing them.
            data = b"\n".join(data.splitlines()) + last
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
        """End the stream; return the last frame if it lacked its blank line."""
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
        """Parse the lines of one frame; None if it has no data.

        Raises:
            FrameTooLarge: it has more than `MAX_FRAME_LINES` lines.
        """
        frame = plain_frame(block)
        if frame is not None:
            return frame
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
