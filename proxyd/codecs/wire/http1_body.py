"""Sans-I/O reader for the body of an HTTP/1.1 response (RFC 9112, 6 and 7): by length, chunked, or until the close.

Bytes go in as they arrive and come out on request. A chunk costs one search, one conversion and one slice, since some
streams have hundreds of thousands of them. The caller bounds the bytes that wait to be taken by pausing its reads. A
compressed body is decompressed when it is taken, within the limit of each `take` and the ratio of `decompression`.

Chunk sizes are read strictly as in the RFC: responses get mixed up where two parsers read one size differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxyd.codecs.wire.decompression import ENCODINGS, BadCompression, Decompressor

__all__ = ["Body", "BodyFault", "chunk_of"]

#: Longest line between chunks, extensions included: aiohttp's limit.
_MAX_LINE_BYTES = 8190
#: Trailer lines are skipped up to this number.
_MAX_TRAILERS = 128
#: Size line of a chunk; its extensions are ignored.
_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*?)?\r\n", re.DOTALL)


#: Size lines by the size of the data. A chunk that arrives alone finds cold caches, where formatting a number takes
#: longer than looking it up.
_LINES = tuple([b"%x\r\n" % size for size in range(1024)])


def chunk_of(data: bytes) -> bytes:
    """Return `data`, which must not be empty, as one HTTP chunk."""
    size = len(data)
    return (_LINES[size] if size < len(_LINES) else b"%x\r\n" % size) + data + b"\r\n"


class BodyFault(Exception):
    """The body violates its framing or its content encoding. The message is for the log."""


class Body:
    """Incremental reader of one body: `feed` bytes, `take` data, and `close` when the connection ends.

    Args:
        length: value of ``Content-Length``; None for a body until the close.
        is_chunked: ``Transfer-Encoding: chunked``, which overrides a length.
        encoding: ``Content-Encoding`` to decode: ``gzip``, ``deflate``, or "" for none.

    Attributes:
        waiting_bytes: bytes received and not taken, before decompression.
        is_complete: the end of the body was received.
        has_surplus: bytes after the end were received.
        fault: why the rest cannot be read; what was received before can still be taken.
    """

    __slots__ = (
        "_chunks",
        "_decompressor",
        "_feed",
        "_missing",
        "_rest",
        "_trailers",
        "fault",
        "has_surplus",
        "is_complete",
        "waiting_bytes",
    )

    def __init__(self, *, length: int | None, is_chunked: bool, encoding: str = "") -> None:
        self._chunks: list[bytes] = []
        self._rest = b""  # an incomplete line between chunks
        self._missing = length or 0  # bytes of the body, or of the current chunk with its line end
        self._trailers = 0
        self._decompressor = Decompressor() if encoding in ENCODINGS else None
        self.waiting_bytes = 0
        self.has_surplus = False
        self.fault: BodyFault | None = None
        self.is_complete = length == 0 and not is_chunked
        if is_chunked:
            self._missing = 0
        #: Reader of the next bytes. A bound method would put each body into a reference cycle.
        self._feed: Callable[[Body, bytes], None] = (
            Body._feed_size if is_chunked else Body._feed_all if length is None else Body._feed_length
        )
        if encoding and self._decompressor is None:
            self.fault = BodyFault(f"its content encoding is {encoding[:40]}, which was not asked for")

    @property
    def has_more(self) -> bool:
        """Whether there is something to take; a compressed body may yield nothing for it."""
        return self.waiting_bytes > 0

    @property
    def has_ended(self) -> bool:
        """Whether no further bytes are expected."""
        return self.is_complete or self.fault is not None

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self.is_complete:
            self.has_surplus = True
        elif self.fault is None:
            self._feed(self, data)

    def close(self) -> None:
        """Note that the connection was closed in an orderly way."""
        if self._feed is Body._feed_all and self.fault is None:
            self.is_complete = True
        elif not self.has_ended:
            self.fault = BodyFault("the connection ended before the body did")

    def take(self, limit: int) -> bytes:
        """Return received data, at most `limit` bytes; b"" if there is none.

        Raises:
            BodyFault: nothing is left but the fault.
        """
        if self._decompressor is not None:
            return self._decompressed(self._decompressor, limit)
        chunks = self._chunks
        if not chunks:
            if self.fault is not None:
                raise self.fault
            return b""
        if self.waiting_bytes <= limit:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
            self.waiting_bytes = 0
            return data
        size = count = 0
        for chunk in chunks:
            if size + len(chunk) > limit:
                break
            size += len(chunk)
            count += 1
        taken = chunks[:count]
        del chunks[:count]
        if size < limit:
            taken.append(chunks[0][: limit - size])
            chunks[0] = chunks[0][limit - size :]
        self.waiting_bytes -= limit
        return b"".join(taken)

    def _decompressed(self, decompressor: Decompressor, limit: int) -> bytes:
        while True:
            if not decompressor.has_more:
                decompressor.feed(b"".join(self._chunks))
                self._chunks = []
            is_last = not decompressor.has_more
            try:
                data = decompressor.take(limit)
            except BadCompression as exc:
                self.fault = BodyFault(f"its compressed data {exc}")
                self._chunks, self.waiting_bytes = [], 0
                raise self.fault from None
            self.waiting_bytes = decompressor.waiting_bytes + sum(map(len, self._chunks))
            if data:
                return data
            if is_last:
                if self.fault is None and self.is_complete and not decompressor.is_whole:
                    self.fault = BodyFault("its compressed data ends too early")
                if self.fault is not None:
                    raise self.fault
                return b""

    # -- the framings

    def _keep(self, data: bytes) -> None:
        self._chunks.append(data)
        self.waiting_bytes += len(data)

    def _feed_all(self, data: bytes) -> None:
        self._keep(data)

    def _feed_length(self, data: bytes) -> None:
        if len(data) > self._missing:
            self.has_surplus = True
            data = data[: self._missing]
        self._keep(data)
        self._missing -= len(data)
        self.is_complete = not self._missing

    def _feed_data(self, data: bytes) -> None:
        """Read data within a chunk; `_missing` includes its line end."""
        missing = self._missing
        if len(data) >= missing:
            if not self._end_chunk(data[:missing], missing):
                return
            self._missing, self._feed = 0, Body._feed_size
            if len(data) > missing:
                self._feed_size(data[missing:])
        else:
            if missing > 2:
                self._keep(data[: missing - 2])
            if len(data) > missing - 2 and data[-1:] != b"\r":  # not the first half of the line end
                self.fault = BodyFault("a chunk is longer than it says")
                return
            self._missing = missing - len(data)

    def _end_chunk(self, data: bytes, missing: int) -> bool:
        """Read the last bytes of a chunk and its line end; return whether they are valid."""
        end = b"\r\n"[2 - missing :] if missing < 2 else b"\r\n"
        if not data.endswith(end):
            self.fault = BodyFault("a chunk is longer than it says")
            return False
        if missing > 2:
            self._keep(data[:-2])
        return True

    def _feed_size(self, data: bytes) -> None:
        """Read whole chunks, starting at a size line."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        chunks, size = self._chunks, 0
        while at < end:
            line = _LINE.match(data, at)
            if line is None:
                self._rest = self._unfinished(data[at:])
                break
            start = line.end()
            length = int(line[1], 16)
            if not length:
                self.waiting_bytes += size
                self._feed = Body._feed_trailers
                self._feed_trailers(data[start:])
                return
            after = start + length
            if after + 2 > end:  # the rest of the chunk comes later
                self._feed, self._missing = Body._feed_data, length + 2
                self.waiting_bytes += size
                self._feed_data(data[start:])
                return
            if not data.startswith(b"\r\n", after):
                self.fault = BodyFault("a chunk is longer than it says")
                break
            chunks.append(data[start:after])
            size += length
            at = after + 2
        self.waiting_bytes += size

    def _unfinished(self, line: bytes) -> bytes:
        """Return an incomplete size line, to be continued; note a fault and return b"" for anything else."""
        if b"\r\n" in line:
            self.fault = BodyFault("a chunk has an invalid size")
        elif len(line) > _MAX_LINE_BYTES:
            self.fault = BodyFault("a line between chunks is too long")
        else:
            return line
        return b""

    def _feed_trailers(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = b""
        at = 0
        while (line_end := data.find(b"\r\n", at)) >= 0:
            if line_end == at:
                self.is_complete = True
                self.has_surplus = line_end + 2 < len(data)
                return
            self._trailers += 1
            at = line_end + 2
            if self._trailers > _MAX_TRAILERS:
                self.fault = BodyFault("it has too many trailers")
                return
        if len(data) - at > _MAX_LINE_BYTES:
            self.fault = BodyFault("a line after the last chunk is too long")
            return
        self._rest = data[at:]
