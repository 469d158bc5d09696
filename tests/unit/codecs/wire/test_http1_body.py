"""Bodies of responses, in every framing, split anywhere."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.wire.http1_body import Body, BodyFault, chunk_of


def read(body: Body, chunks_fed: list[bytes], limit: int = 1 << 16) -> bytes:
    """Feed the chunks one by one and take all data after each."""
    data = b""
    for chunk in chunks_fed:
        body.feed(chunk)
        while body.has_more:
            taken = body.take(limit)
            assert len(taken) <= limit
            data += taken
    assert body.waiting_bytes == 0
    return data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def chunked(chunks: list[bytes], size: str = "%x", end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join((size % len(chunk)).encode() + b"\r\n" + chunk + b"\r\n" for chunk in chunks) + end


chunks = st.lists(
    st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"\r"]), max_size=8
)
places = st.lists(st.integers(0, 500), max_size=8)


@given(chunks, places, st.sampled_from(["%x", "%X", "0%x", "%x ;a=b", "%x;c"]), st.integers(1, 50))
def test_chunked_body_split_anywhere(data: list[bytes], cuts: list[int], size: str, limit: int) -> None:
    body = Body(length=7, is_chunked=True)  # the length is ignored
    assert read(body, cut(chunked(data, size), cuts), limit) == b"".join(data)
    assert body.is_complete
    assert not body.has_surplus
    assert body.take(5) == b""


def test_chunk_of_any_size_is_framed() -> None:
    for size in (*range(1, 5000), 0xFFFB, 0xFFFF, 0x10000, 0x10001, 0xFFFFF, 0x100000):
        data = b"\n" * size
        assert chunk_of(data) == chunked([data], end=b"")
        assert read(Body(length=None, is_chunked=True), [chunk_of(data)]) == data


@pytest.mark.parametrize("data", [[b"one", b"x" * 300, b"\r\n"]])
def test_chunked_body_split_at_every_byte(data: list[bytes]) -> None:
    whole = chunked(data, end=b"0\r\nTrailer: x\r\nAnother: y\r\n\r\n")
    for at in range(len(whole) + 1):
        body = Body(length=None, is_chunked=True)
        assert read(body, [whole[:at], whole[at:]]) == b"".join(data), at
        assert body.is_complete
    body = Body(length=None, is_chunked=True)
    assert read(body, [whole[at : at + 1] for at in range(len(whole))]) == b"".join(data)
    assert body.is_complete


def test_part_of_a_chunk_can_be_taken() -> None:
    body = Body(length=None, is_chunked=True)
    assert read(body, [b"a\r\nhello"]) == b"hello"
    assert read(body, [b"world\r"]) == b"world"
    assert not body.has_ended


BROKEN = [
    b"g\r\n",
    b"\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x1\r\na\r\n",
    b"1_0\r\n",
    b" 1\r\na\r\n",
    b"1\r\nab\r\n",
    b"1\r\na\n",
    b"2\r\nab\rx",
    b"1" * 16 + b"\r\n",
    b"1\n",
    b";\r\n",
    b"1;" + b"x" * 9000,
    b"0\r\n" + b"a: b\r\n" * 200,
    b"0\r\n" + b"a" * 9000,
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("is_cut", [True, False])
def test_invalid_framing_is_a_fault_after_the_valid_data(broken: bytes, is_cut: bool) -> None:
    whole = b"5\r\nhello\r\n" + broken
    chunks_fed = [whole[at : at + 1] for at in range(len(whole))] if is_cut else [whole]
    body = Body(length=None, is_chunked=True)
    data = read(body, chunks_fed)
    assert data.startswith(b"hello")
    body.close()
    assert body.has_ended
    assert not body.is_complete
    with pytest.raises(BodyFault):
        body.take(10)


@given(st.binary(max_size=60), places, st.binary(max_size=5), st.integers(1, 50))
def test_body_with_length_split_anywhere(data: bytes, cuts: list[int], surplus: bytes, limit: int) -> None:
    body = Body(length=len(data), is_chunked=False)
    assert read(body, cut(data + surplus, cuts), limit) == data
    assert body.is_complete
    assert body.has_surplus is bool(surplus)


@given(st.binary(max_size=60), places)
def test_body_until_the_close(data: bytes, cuts: list[int]) -> None:
    body = Body(length=None, is_chunked=False)
    assert read(body, cut(data, cuts)) == data
    assert not body.has_ended
    body.close()
    assert body.is_complete


@pytest.mark.parametrize(
    "body", [Body(length=10, is_chunked=False), Body(length=None, is_chunked=True)], ids=["length", "chunked"]
)
def test_premature_close_is_a_fault(body: Body) -> None:
    body.feed(b"5\r\nhel")
    assert body.take(100) in (b"hel", b"5\r\nhel")
    body.close()
    with pytest.raises(BodyFault, match="before the body did"):
        body.take(1)


def test_bytes_after_the_end_are_surplus() -> None:
    body = Body(length=None, is_chunked=True)
    read(body, [b"0\r\n\r\n"])
    assert body.is_complete
    assert not body.has_surplus
    body.feed(b"HTTP/1.1 200 OK\r\n")
    assert body.has_surplus
    body = Body(length=None, is_chunked=True)
    read(body, [b"0\r\n\r\nmore"])
    assert body.has_surplus


# -- compressed


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(text=st.binary(max_size=3000), cuts=places, limit=st.integers(1, 400))
def test_compressed_body_is_decompressed_in_bounded_chunks(
    encoding: str, text: bytes, cuts: list[int], limit: int
) -> None:
    compressed = gzip.compress(text, mtime=0) if encoding == "gzip" else zlib.compress(text)
    body = Body(length=len(compressed), is_chunked=False, encoding=encoding)
    data = b""
    for chunk in cut(compressed, cuts):
        body.feed(chunk)
        while body.has_more:
            taken = body.take(limit)
            assert len(taken) <= limit
            data += taken
    assert data == text
    assert body.take(1) == b""


def test_bomb_is_decompressed_only_as_it_is_taken() -> None:
    compressed = gzip.compress(b"\0" * (64 << 20))
    body = Body(length=len(compressed), is_chunked=False, encoding="gzip")
    body.feed(compressed)
    assert len(body.take(1000)) == 1000
    assert body.waiting_bytes <= len(compressed)


@pytest.mark.parametrize(
    "compressed",
    [b"no gzip at all", gzip.compress(b"x" * 500, mtime=0)[:-20], gzip.compress(b"x" * 50, mtime=0)[:-4]],
)
def test_corrupt_compressed_data_is_a_fault(compressed: bytes) -> None:
    body = Body(length=len(compressed), is_chunked=False, encoding="gzip")
    body.feed(compressed)
    with pytest.raises(BodyFault, match="compressed data"):  # noqa: PT012 - data before the fault can be taken
        while True:
            if not body.take(10_000) and not body.has_more:
                body.take(1)
                break


def test_unknown_encoding_is_a_fault() -> None:
    body = Body(length=3, is_chunked=False, encoding="br")
    assert body.has_ended
    with pytest.raises(BodyFault, match="br"):
        body.take(1)


def test_a_long_body_in_many_chunks_is_linear() -> None:
    """A hundred thousand chunks are fed at once and taken in small parts."""
    whole = chunked([b"x" * 10] * 100_000)
    body = Body(length=None, is_chunked=True)
    body.feed(whole)
    assert body.waiting_bytes == 1_000_000
    total = 0
    while taken := body.take(1 << 16):
        total += len(taken)
    assert total == 1_000_000
