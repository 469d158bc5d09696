"""Compressed bodies split anywhere, in chunks of a bounded size."""

from __future__ import annotations

import gzip
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.wire.decompression import CHUNK_BYTES, MAX_RATIO, BadCompression, Decompressor


def decompress(chunks: list[bytes]) -> bytes:
    decompressor, data = Decompressor(), b""
    for chunk in chunks:
        decompressor.feed(chunk)
        while taken := decompressor.take():
            assert len(taken) <= CHUNK_BYTES
            data += taken
        assert not decompressor.has_more
    return data


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@given(data=st.binary(max_size=300), size=st.integers(1, 50), surplus=st.binary(max_size=5))
def test_body_split_anywhere(compress: object, data: bytes, size: int, surplus: bytes) -> None:
    surplus = surplus.replace(b"\x1f", b"")  # else it may begin another member
    compressed = compress(data) + surplus  # type: ignore[operator]
    assert decompress([compressed[at : at + size] for at in range(0, len(compressed), size)]) == data


@given(members=st.lists(st.binary(max_size=100), min_size=1, max_size=5), size=st.integers(1, 50))
def test_gzip_members_are_one_body(members: list[bytes], size: int) -> None:
    compressed = b"".join(map(gzip.compress, members))
    assert decompress([compressed[at : at + size] for at in range(0, len(compressed), size)]) == b"".join(
        members
    )


def test_truncated_member_is_not_whole() -> None:
    decompressor = Decompressor()
    decompressor.feed(gzip.compress(b"one") + gzip.compress(b"two")[:-3])
    assert decompressor.take() + decompressor.take() == b"onetwo"
    assert not decompressor.is_whole


def test_ratio_is_bounded_over_all_members() -> None:
    member = gzip.compress(b"\0" * (1 << 20))
    with pytest.raises(BadCompression, match=f"more than {MAX_RATIO} times its size"):
        decompress([member] * 50)


@pytest.mark.parametrize("size", [1 << 20, 7])
def test_number_of_empty_members_is_bounded(size: int) -> None:
    compressed = gzip.compress(b"x") + gzip.compress(b"") * 5000
    with pytest.raises(BadCompression, match="members without content"):
        decompress([compressed[at : at + size] for at in range(0, len(compressed), size)])


def test_long_body_is_returned_in_chunks() -> None:
    data = os.urandom(1000) * 300
    assert decompress([gzip.compress(data, mtime=0)]) == data


def test_bomb_is_decompressed_up_to_its_ratio() -> None:
    decompressor, size = Decompressor(), 0
    bomb = gzip.compress(b"\0" * (256 << 20))
    with pytest.raises(BadCompression, match=f"more than {MAX_RATIO} times its size"):  # noqa: PT012 - raised after some chunks
        for at in range(0, len(bomb), 1000):
            decompressor.feed(bomb[at : at + 1000])
            while chunk := decompressor.take():
                size += len(chunk)
    assert size < 4 << 20


@pytest.mark.parametrize(
    "compressed", [b"no gzip at all", gzip.compress(b"x" * 500, mtime=0)[:-6] + b"broken"]
)
def test_corrupt_body_is_refused(compressed: bytes) -> None:
    with pytest.raises(BadCompression, match="is broken"):
        decompress([compressed])
