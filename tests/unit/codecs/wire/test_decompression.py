"""Packed bodies, cut anywhere, in pieces of a bounded size."""

from __future__ import annotations

import gzip
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.wire.decompression import CHUNK_BYTES, MAX_RATIO, BadCompression, Decompressor


def unpacked(pieces: list[bytes]) -> bytes:
    decompressor, data = Decompressor(), b""
    for piece in pieces:
        decompressor.feed(piece)
        while made := decompressor.take():
            assert len(made) <= CHUNK_BYTES
            data += made
        assert not decompressor.has_more
    return data


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@given(data=st.binary(max_size=300), size=st.integers(1, 50), surplus=st.binary(max_size=5))
def test_a_body_cut_anywhere(pack: object, data: bytes, size: int, surplus: bytes) -> None:
    surplus = surplus.replace(b"\x1f", b"")  # else it may begin another member
    packed = pack(data) + surplus  # type: ignore[operator]
    assert unpacked([packed[at : at + size] for at in range(0, len(packed), size)]) == data


@given(members=st.lists(st.binary(max_size=100), min_size=1, max_size=5), size=st.integers(1, 50))
def test_members_of_gzip_are_one_body(members: list[bytes], size: int) -> None:
    packed = b"".join(map(gzip.compress, members))
    assert unpacked([packed[at : at + size] for at in range(0, len(packed), size)]) == b"".join(members)


def test_a_member_that_is_cut_is_not_whole() -> None:
    decompressor = Decompressor()
    decompressor.feed(gzip.compress(b"one") + gzip.compress(b"two")[:-3])
    assert decompressor.take() + decompressor.take() == b"onetwo"
    assert not decompressor.is_whole


def test_many_members_unpack_no_further_than_one() -> None:
    member = gzip.compress(b"\0" * (1 << 20))
    with pytest.raises(BadCompression, match=f"more than {MAX_RATIO} times its size"):
        unpacked([member] * 50)


@pytest.mark.parametrize("size", [1 << 20, 7])
def test_members_without_content_are_bounded(size: int) -> None:
    packed = gzip.compress(b"x") + gzip.compress(b"") * 5000
    with pytest.raises(BadCompression, match="members without content"):
        unpacked([packed[at : at + size] for at in range(0, len(packed), size)])


def test_a_long_one_comes_in_many_pieces() -> None:
    data = os.urandom(1000) * 300
    assert unpacked([gzip.compress(data, mtime=0)]) == data


def test_a_bomb_is_unpacked_no_further_than_its_ratio_allows() -> None:
    decompressor, made = Decompressor(), 0
    bomb = gzip.compress(b"\0" * (256 << 20))
    with pytest.raises(BadCompression, match=f"more than {MAX_RATIO} times its size"):  # noqa: PT012 - it grows on the way
        for at in range(0, len(bomb), 1000):
            decompressor.feed(bomb[at : at + 1000])
            while piece := decompressor.take():
                made += len(piece)
    assert made < 4 << 20


@pytest.mark.parametrize("packed", [b"no gzip at all", gzip.compress(b"x" * 500, mtime=0)[:-6] + b"broken"])
def test_a_broken_one(packed: bytes) -> None:
    with pytest.raises(BadCompression, match="is broken"):
        unpacked([packed])
