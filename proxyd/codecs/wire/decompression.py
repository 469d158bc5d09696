"""A packed body, unpacked in pieces of a bounded size: whoever looks into it decides when the next one is made.

A few kilobytes can unpack to a thousand times as much. So no call makes more than `CHUNK_BYTES`, and a body that
unpacks to more than `MAX_RATIO` times its size is no answer (docs/spec/operations.md#c5). A gzip body may have
several members (RFC 1952, 2.2), which are read as one.
"""

from __future__ import annotations

import zlib

__all__ = [
    "CHUNK_BYTES",
    "ENCODINGS",
    "MAX_RATIO",
    "BadCompression",
    "Decompressor",
    "compressed",
    "uncompressed",
]

#: What the standard library unpacks.
ENCODINGS = ("gzip", "x-gzip", "deflate")
CHUNK_BYTES = 64 * 1024
#: As for requests (docs/spec/operations.md#c1); streams of equal events, which no model writes, come to that.
MAX_RATIO = 100
#: So much may unpack to anything within the ratio: the first bytes of a body say little about it.
_SMALL_BYTES = 16 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
#: Members without content cost work and bring nothing; writers of blocks (bgzip) end with one.
_MAX_EMPTY_MEMBERS = 100


class BadCompression(Exception):
    """It is broken, or a bomb. The message ends a sentence about the answer."""


def _is_bomb(packed_bytes: int, bytes_made: int) -> bool:
    """Whether a body unpacks to more than an honest one does."""
    return bytes_made > MAX_RATIO * max(packed_bytes, _SMALL_BYTES)


class Decompressor:
    """Feed it what comes, and take pieces until there is none."""

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_empty_members",
        "_held",
        "_inflate",
        "_is_gzip",
        "_is_member_empty",
        "_packed",
    )

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip's header or deflate's
        self._packed = b""
        self._held = b""  # may be the beginning of a member's header
        self._bytes_in = self._bytes_out = self._empty_members = 0
        self._is_gzip = False
        self._is_member_empty = True

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
        if not self._bytes_in:
            self._is_gzip = packed[:1] == _GZIP_MAGIC[:1]  # never the first byte of deflate's header
        self._packed += self._held + packed
        self._held = b""
        self._bytes_in += len(packed)

    def take(self, limit: int = CHUNK_BYTES) -> bytes:
        """The next piece, up to `limit` bytes of it; b"" where nothing more can be made of what was fed.

        Raises:
            BadPacking: it is none, or unpacks to too much.
        """
        piece = b""
        while not piece and self._packed:
            if self._inflate.eof and not self._begin_member():
                break
            piece = self._inflated(limit)
        return piece

    def _inflated(self, limit: int) -> bytes:
        inflate = self._inflate
        try:
            piece = inflate.decompress(self._packed, limit)
        except zlib.error:
            raise BadCompression("is broken") from None
        self._packed = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        self._is_member_empty = self._is_member_empty and not piece
        self._bytes_out += len(piece)
        if _is_bomb(self._bytes_in, self._bytes_out):
            raise BadCompression(f"unpacks to more than {MAX_RATIO} times its size")
        return piece

    def _begin_member(self) -> bool:
        """Begin the next member, whose header lies behind the end of the last one. False where none does."""
        if self._packed == _GZIP_MAGIC[:1] and self._is_gzip:
            self._held, self._packed = self._packed, b""
            return False
        if not self._is_gzip or not self._packed.startswith(_GZIP_MAGIC):
            self._packed, self._is_gzip = b"", False  # padding: what follows it is nobody's
            return False
        self._empty_members += self._is_member_empty
        if self._empty_members > _MAX_EMPTY_MEMBERS:
            raise BadCompression(f"has more than {_MAX_EMPTY_MEMBERS} members without content")
        self._inflate, self._is_member_empty = zlib.decompressobj(zlib.MAX_WBITS | 16), True
        return True


def uncompressed(body: bytes) -> bytes | None:
    """A whole body, which is short; None where it is broken, or unpacks to too much."""
    decompressor, pieces = Decompressor(), []
    decompressor.feed(body)
    try:
        while piece := decompressor.take():
            pieces.append(piece)
    except BadCompression:
        return None
    return b"".join(pieces)


def compressed(body: bytes, encoding: str) -> bytes:
    """`body` in one of `ENCODINGS`."""
    deflate = zlib.compressobj(wbits=zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16)
    return deflate.compress(body) + deflate.flush()
