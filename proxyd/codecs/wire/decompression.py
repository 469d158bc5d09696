"""A packed body, unpacked in pieces of a bounded size: whoever looks into it decides when the next one is made.

A few kilobytes can unpack to a thousand times as much. So no call makes more than `PIECE_BYTES`, and a body that
unpacks to more than `MAX_RATIO` times its size is no answer (operations.md C5).
"""

from __future__ import annotations

import zlib

__all__ = ["MAX_RATIO", "PACKINGS", "PIECE_BYTES", "BadPacking", "Unpacker"]

#: What the standard library unpacks.
PACKINGS = ("gzip", "x-gzip", "deflate")
PIECE_BYTES = 64 * 1024
#: As for requests (C1); streams of equal events, which no model writes, come to that.
MAX_RATIO = 100
#: So much may unpack to anything within the ratio: the first bytes of a body say little about it.
_SMALL_BYTES = 16 * 1024


class BadPacking(Exception):
    """It is broken, or a bomb. The message ends a sentence about the answer."""


def _is_bomb(packed_bytes: int, bytes_made: int) -> bool:
    """Whether a body unpacks to more than an honest one does."""
    return bytes_made > MAX_RATIO * max(packed_bytes, _SMALL_BYTES)


class Unpacker:
    """Feed it what comes, and take pieces until there is none."""

    __slots__ = ("_bytes_in", "_bytes_out", "_inflate", "_packed")

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip's header or deflate's
        self._packed = b""
        self._bytes_in = self._bytes_out = 0

    @property
    def has_more(self) -> bool:
        """Something was fed that has not been unpacked yet."""
        return bool(self._packed)

    @property
    def waiting_bytes(self) -> int:
        """How much that is, packed."""
        return len(self._packed)

    @property
    def is_whole(self) -> bool:
        """The end of the packing has been unpacked."""
        return self._inflate.eof

    def feed(self, packed: bytes) -> None:
        self._packed += packed
        self._bytes_in += len(packed)

    def take(self, limit: int = PIECE_BYTES) -> bytes:
        """The next piece, up to `limit` bytes of it; b"" where nothing more can be made of what was fed.

        Raises:
            BadPacking: it is none, or unpacks to too much.
        """
        if self._inflate.eof:
            self._packed = b""  # what follows the end is nobody's
        if not self._packed:
            return b""
        try:
            piece = self._inflate.decompress(self._packed, limit)
        except zlib.error:
            raise BadPacking("is broken") from None
        self._packed = self._inflate.unconsumed_tail
        self._bytes_out += len(piece)
        if _is_bomb(self._bytes_in, self._bytes_out):
            raise BadPacking(f"unpacks to more than {MAX_RATIO} times its size")
        return piece
