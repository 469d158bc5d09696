"""The body of an HTTP/1.1 answer, out of its framing (RFC 9112, 6 and 7): by length, in chunks, or until the close.

Sans I/O: bytes in as they come, pieces out when they are asked for. A chunk costs one search, one number and one slice,
which is what a stream of a few hundred thousand of them needs; what has come and was not taken yet is for the caller to
bound, by not reading on. A packed body is unpacked when it is taken, no more at once than was asked for, and no further
than an honest one would go.

Chunk sizes are what the RFC says and nothing else: two parsers that read one differently are how answers get mixed up.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxyd.codecs.wire.decompression import ENCODINGS, BadCompression, Decompressor

__all__ = ["Body", "BodyFault", "chunk_of"]

#: Of a line between chunks, with its extensions; aiohttp's limit on lines.
_MAX_LINE_BYTES = 8190
#: Trailers are read over: so many lines.
_MAX_TRAILERS = 128
#: Ahead of a chunk: its size, and extensions, which mean nothing to us.
_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*?)?\r\n", re.DOTALL)


def _line_of(whole: int) -> bytes:
    """The line ahead of the chunk that is `whole` bytes long with it, as it is usually written; b"" if none is."""
    most = (whole.bit_length() + 3) // 4
    for digits in (most, most - 1):
        if (size := whole - digits - 4) > 0:
            line = b"%x\r\n" % size
            if len(line) == digits + 2:
                return line
    return b""


#: The line ahead of a chunk, by the size of its data and by that of all of it. A piece of a stream that comes by itself
#: finds cold caches, and then a number takes longer to write than to look up.
_LINES = tuple([b"%x\r\n" % size for size in range(1024)])
_LINES_OF_WHOLE = tuple(map(_line_of, range(1024)))


def chunk_of(data: bytes) -> bytes:
    """`data`, of which there must be some, as one chunk."""
    size = len(data)
    return (_LINES[size] if size < len(_LINES) else b"%x\r\n" % size) + data + b"\r\n"


class BodyFault(Exception):
    """The body is not what its framing, or its packing, says. The message is for the log."""


class Body:
    """Feed it what comes behind the head, then say when the connection ends.

    Args:
        length: of ``Content-Length``; None for a body until the close.
        is_chunked: ``Transfer-Encoding: chunked``, which is stronger than a length.
        encoding: the ``Content-Encoding`` that is to be undone: ``gzip``, ``deflate``, or "" for none.

    Attributes:
        waiting_bytes: what has come and was not taken, still packed.
        is_complete: its end has come, as the framing says.
        has_surplus: more has come than that.
        fault: why nothing more will come of it; what came before can still be taken.
    """

    __slots__ = (
        "_decompressor",
        "_feed",
        "_is_between",
        "_missing",
        "_pieces",
        "_rest",
        "_trailers",
        "fault",
        "has_surplus",
        "is_complete",
        "waiting_bytes",
    )

    def __init__(self, *, length: int | None, is_chunked: bool, encoding: str = "") -> None:
        self._pieces: list[bytes] = []
        self._rest = b""  # the beginning of a line between chunks
        self._missing = length or 0  # of the body, or of the chunk at hand with its line end
        self._trailers = 0
        self._decompressor = Decompressor() if encoding in ENCODINGS else None
        self.waiting_bytes = 0
        self.has_surplus = False
        self.fault: BodyFault | None = None
        self.is_complete = length == 0 and not is_chunked
        self._is_between = is_chunked  # two chunks, or ahead of the first
        if is_chunked:
            self._missing = 0
        #: How the next bytes are read. A bound method would be a cycle, and each body garbage to be searched for.
        self._feed: Callable[[Body, bytes], None] = (
            Body._feed_size if is_chunked else Body._feed_all if length is None else Body._feed_length
        )
        if encoding and self._decompressor is None:
            self.fault = BodyFault(f"its content encoding is {encoding[:40]}, which was not asked for")

    @property
    def has_more(self) -> bool:
        """There is something to take. Of a packed body it may turn out to be nothing."""
        return self.waiting_bytes > 0

    @property
    def has_ended(self) -> bool:
        """Nothing more will come than can be taken now."""
        return self.is_complete or self.fault is not None

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        if self.is_complete:
            self.has_surplus = True
        elif self.fault is None:
            self._feed(self, data)

    def take_lone_chunk(self, data: bytes) -> bytes:
        """The piece that `data` is if it is one whole chunk, written as usual, and all before it has been taken.

        Nearly all of a stream whose pieces come one by one. It counts as taken: `feed` is not to be called with it.
        Else b"", and nothing has happened.
        """
        if (
            not self._is_between
            or self.waiting_bytes
            or self._rest
            or self.fault is not None
            or self._decompressor
        ):
            return b""
        size = len(data)
        line = _LINES_OF_WHOLE[size] if size < len(_LINES_OF_WHOLE) else _line_of(size)
        start = len(line)
        # Slices: in cold caches `startswith` and its like cost more, which parse their arguments.
        if start and data[:start] == line and data[-2:] == b"\r\n":
            return data[start:-2]
        return b""

    def close(self) -> None:
        """The connection has ended in an orderly way."""
        if self._feed is Body._feed_all and self.fault is None:
            self.is_complete = True
        elif not self.has_ended:
            self.fault = BodyFault("the connection ended before the body did")

    def take(self, limit: int) -> bytes:
        """What has come, up to `limit` bytes of it.

        Raises:
            BodyFault: there is nothing left but the fault.
        """
        if self._decompressor is not None:
            return self._decompressed(self._decompressor, limit)
        pieces = self._pieces
        if not pieces:
            if self.fault is not None:
                raise self.fault
            return b""
        if self.waiting_bytes <= limit:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._pieces = []
            self.waiting_bytes = 0
            return data
        size = count = 0
        for piece in pieces:
            if size + len(piece) > limit:
                break
            size += len(piece)
            count += 1
        taken = pieces[:count]
        del pieces[:count]
        if size < limit:
            taken.append(pieces[0][: limit - size])
            pieces[0] = pieces[0][limit - size :]
        self.waiting_bytes -= limit
        return b"".join(taken)

    def _decompressed(self, decompressor: Decompressor, limit: int) -> bytes:
        while True:
            if not decompressor.has_more:
                decompressor.feed(b"".join(self._pieces))
                self._pieces = []
            is_last = not decompressor.has_more
            try:
                data = decompressor.take(limit)
            except BadCompression as exc:
                self.fault = BodyFault(f"its packing {exc}")
                self._pieces, self.waiting_bytes = [], 0
                raise self.fault from None
            self.waiting_bytes = decompressor.waiting_bytes + sum(map(len, self._pieces))
            if data:
                return data
            if is_last:
                if self.fault is None and self.is_complete and not decompressor.is_whole:
                    self.fault = BodyFault("its packing ends before it is whole")
                if self.fault is not None:
                    raise self.fault
                return b""

    # -- the framings

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
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
        """Within a chunk, its line end included: `_missing` counts both."""
        missing = self._missing
        if len(data) >= missing:
            if not self._end_chunk(data[:missing], missing):
                return
            self._missing, self._feed, self._is_between = 0, Body._feed_size, True
            if len(data) > missing:
                self._feed_size(data[missing:])
        else:
            if missing > 2:
                self._keep(data[: missing - 2])
            if len(data) > missing - 2 and data[-1:] != b"\r":  # the first half of the line end
                self.fault = BodyFault("a chunk is longer than it says")
                return
            self._missing = missing - len(data)

    def _end_chunk(self, data: bytes, missing: int) -> bool:
        """The last bytes of a chunk and its line end."""
        end = b"\r\n"[2 - missing :] if missing < 2 else b"\r\n"
        if not data.endswith(end):
            self.fault = BodyFault("a chunk is longer than it says")
            return False
        if missing > 2:
            self._keep(data[:-2])
        return True

    def _feed_size(self, data: bytes) -> None:
        """Between two chunks."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        pieces, size = self._pieces, 0
        while at < end:
            line = _LINE.match(data, at)
            if line is None:
                self._rest = self._unfinished(data[at:])
                break
            start = line.end()
            length = int(line[1], 16)
            if not length:
                self.waiting_bytes += size
                self._feed, self._is_between = Body._feed_trailers, False
                self._feed_trailers(data[start:])
                return
            after = start + length
            if after + 2 > end:  # the rest of it comes later
                self._feed, self._missing, self._is_between = Body._feed_data, length + 2, False
                self.waiting_bytes += size
                self._feed_data(data[start:])
                return
            if not data.startswith(b"\r\n", after):
                self.fault = BodyFault("a chunk is longer than it says")
                break
            pieces.append(data[start:after])
            size += length
            at = after + 2
        self.waiting_bytes += size

    def _unfinished(self, line: bytes) -> bytes:
        """The beginning of a chunk's size, until the rest of its line has come; anything else is a fault."""
        if b"\r\n" in line:
            self.fault = BodyFault("a chunk's size is none")
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
            self.fault = BodyFault("a line behind the last chunk is too long")
            return
        self._rest = data[at:]
