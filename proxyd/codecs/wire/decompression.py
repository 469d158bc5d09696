"""Incremental decompression of gzip and deflate bodies, with limits on chunk size and ratio.

A few kilobytes can decompress to a thousand times as much. So no call returns more than `CHUNK_BYTES`, and a body that
decompresses to more than `MAX_RATIO` times its size is an error (docs/spec/operations.md#c5). A gzip body may have
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

#: Content encodings that the standard library decompresses.
ENCODINGS = ("gzip", "x-gzip", "deflate")
CHUNK_BYTES = 64 * 1024
#: As for requests (docs/spec/operations.md#c1); only streams of equal events reach it.
MAX_RATIO = 100
#: Assumed minimal size of a body: the ratio of its first bytes says little.
_SMALL_BYTES = 16 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
#: Members without content cost work; block writers (bgzip) end with one.
_MAX_EMPTY_MEMBERS = 100


class BadCompression(Exception):
    """Corrupt data or a decompression bomb; the message completes a sentence whose subject is the body."""


def _is_bomb(bytes_in: int, bytes_out: int) -> bool:
    """Return whether the output exceeds `MAX_RATIO` times the input."""
    return bytes_out > MAX_RATIO * max(bytes_in, _SMALL_BYTES)


class Decompressor:
    """Incremental decompressor: `feed` compressed bytes, then `take` chunks until one is empty."""

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_compressed",
        "_empty_members",
        "_held",
        "_inflate",
        "_is_gzip",
        "_is_member_empty",
    )

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib header
        self._compressed = b""
        self._held = b""  # possibly the first byte of a member's header
        self._bytes_in = self._bytes_out = self._empty_members = 0
        self._is_gzip = False
        self._is_member_empty = True

    @property
    def has_more(self) -> bool:
        """Whether input is left that was not decompressed yet."""
        return bool(self._compressed)

    @property
    def waiting_bytes(self) -> int:
        """Size of that input, still compressed."""
        return len(self._compressed)

    @property
    def is_whole(self) -> bool:
        """Whether the end of the compressed data was reached."""
        return self._inflate.eof

    def feed(self, compressed: bytes) -> None:
        """Add compressed input."""
        if not self._bytes_in:
            self._is_gzip = compressed[:1] == _GZIP_MAGIC[:1]  # never the first byte of a zlib header
        self._compressed += self._held + compressed
        self._held = b""
        self._bytes_in += len(compressed)

    def take(self, limit: int = CHUNK_BYTES) -> bytes:
        """Return the next chunk of at most `limit` bytes; b"" if more input is needed.

        Raises:
            BadCompression: the data is corrupt or decompresses to too much.
        """
        chunk = b""
        while not chunk and self._compressed:
            if self._inflate.eof and not self._begin_member():
                break
            chunk = self._inflated(limit)
        return chunk

    def _inflated(self, limit: int) -> bytes:
        inflate = self._inflate
        try:
            chunk = inflate.decompress(self._compressed, limit)
        except zlib.error:
            raise BadCompression("is broken") from None
        self._compressed = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        self._is_member_empty = self._is_member_empty and not chunk
        self._bytes_out += len(chunk)
        if _is_bomb(self._bytes_in, self._bytes_out):
            raise BadCompression(f"decompresses to more than {MAX_RATIO} times its size")
        return chunk

    def _begin_member(self) -> bool:
        """Begin the next gzip member, whose header follows the end of the last one; return False if none does."""
        if self._compressed == _GZIP_MAGIC[:1] and self._is_gzip:
            self._held, self._compressed = self._compressed, b""
            return False
        if not self._is_gzip or not self._compressed.startswith(_GZIP_MAGIC):
            self._compressed, self._is_gzip = b"", False  # padding: everything after it is ignored
            return False
        self._empty_members += self._is_member_empty
        if self._empty_members > _MAX_EMPTY_MEMBERS:
            raise BadCompression(f"has more than {_MAX_EMPTY_MEMBERS} members without content")
        self._inflate, self._is_member_empty = zlib.decompressobj(zlib.MAX_WBITS | 16), True
        return True


def uncompressed(body: bytes) -> bytes | None:
    """Decompress a whole short body; None if it is corrupt or decompresses to too much."""
    decompressor, chunks = Decompressor(), []
    decompressor.feed(body)
    try:
        while chunk := decompressor.take():
            chunks.append(chunk)
    except BadCompression:
        return None
    return b"".join(chunks)


def compressed(body: bytes, encoding: str) -> bytes:
    """Compress `body` with one of `ENCODINGS`."""
    deflate = zlib.compressobj(wbits=zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16)
    return deflate.compress(body) + deflate.flush()
