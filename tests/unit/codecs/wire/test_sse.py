"""Decoding of SSE frames beyond what the transcripts cover, and the limits."""

from __future__ import annotations

import pytest

from proxyd.codecs.wire.sse import MAX_FRAME_LINES, SSEDecoder, SSEFrame, plain_frame
from proxyd.errors import FrameTooLarge


def frames(*chunks: bytes, max_frame_bytes: int = 1000) -> list[SSEFrame]:
    decoder = SSEDecoder(max_frame_bytes)
    found = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return found + decoder.close()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a\n\n", [(b"", b" a")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\n\n", [(b"", b"")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [(b"x", b"a"), (b"", b"b")]),
        (b"event: x\n\ndata: b\n\n", [(b"", b"b")]),  # an event without data is not dispatched
        (b": comment\n\nid: 1\nretry: 2\n\n", []),
        (b"data: a\r\ndata: b\r\n\r\n", [(b"", b"a\nb")]),
        (b"data: a\rdata: b\r\r", [(b"", b"a\nb")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),  # a BOM is one only at the start
        (b"data: a\xe2\x80\xa8b\x0bc\x0cd\xc2\x85e\n\n", [(b"", b"a\xe2\x80\xa8b\x0bc\x0cd\xc2\x85e")]),
        (b"data: a", [(b"", b"a")]),
        (b"data: a\n", [(b"", b"a")]),
        (b"", []),
    ],
)
def test_frames(stream: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    for at in range(len(stream) + 1):
        assert frames(stream[:at], stream[at:]) == [SSEFrame(*frame) for frame in expected], at


def test_frame_is_returned_with_its_last_byte() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [SSEFrame(b"", b"a")]
    assert decoder.feed(b"data: b\r\n\r") == [SSEFrame(b"", b"b")]
    assert decoder.feed(b"\ndata: c\n\n") == [SSEFrame(b"", b"c")]


def test_frame_limits() -> None:
    assert frames(b"data: " + b"x" * 900 + b"\n\n")[0].data == b"x" * 900
    with pytest.raises(FrameTooLarge):
        frames(b"data: " + b"x" * 600, b"x" * 600)
    with pytest.raises(FrameTooLarge):
        frames(b"data: x\n" * (MAX_FRAME_LINES + 1) + b"\n", max_frame_bytes=1 << 20)


def test_large_event_is_decoded_in_linear_time() -> None:
    """A decoder that searches the buffer again for each chunk would take minutes."""
    text = b"x" * (3 << 20)
    stream = b"data: " + text + b"\n\n"
    decoder = SSEDecoder()
    found = [frame for at in range(0, len(stream), 4096) for frame in decoder.feed(stream[at : at + 4096])]
    assert found == [SSEFrame(b"", text)]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"data: a", ("", "a")),
        (b"event: e\ndata: a", ("e", "a")),
        (b"event: \ndata: ", ("", "")),
        (b"event: e\ndata:a", None),
        (b"event: e\nid: 1\ndata: a", None),
        (b"event: e\ndata: a\ndata: b", None),
        (b"event: e", None),
        (b"event: data: a", None),
        (b"data: a\nevent: e", None),
        (b": c\ndata: a", None),
        (b"", None),
    ],
)
def test_plain_frames(block: bytes, expected: tuple[str, str] | None) -> None:
    assert (plain_frame(block) is None) is (expected is None)
    frame = SSEDecoder.parse(block)
    if expected is not None:
        assert frame is not None
        assert (frame.event.decode(), frame.data.decode()) == expected
