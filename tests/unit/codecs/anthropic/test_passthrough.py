"""Framing of streams that pass through unchanged."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.anthropic.events import BlockStop, MessageStop, Ping, TextDelta, encode_event
from proxyd.codecs.anthropic.passthrough import (
    PassthroughStream,
    begins_as_stream,
    frames_of,
    is_of_content,
    may_hold_error,
    split_frames,
)
from proxyd.codecs.wire.sse import MAX_FRAME_LINES
from proxyd.errors import FrameTooLarge, Truncated

DELTA = encode_event(TextDelta(0, "né\n"))
STOP = encode_event(MessageStop())
STREAM = b": comment\n\n" + encode_event(Ping()) + DELTA + DELTA + encode_event(BlockStop(0)) + STOP
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(line_end=LINE_ENDS, cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_whole_frames_are_passed_through_unchanged(line_end: bytes, cuts: list[int]) -> None:
    data = STREAM.replace(b"\n", line_end)
    edges = sorted({0, len(data), *cuts})
    stream, out = PassthroughStream(), b""
    for start, end in itertools.pairwise(edges):
        frames = stream.feed(data[start:end])
        assert not frames or frames.endswith((line_end * 2, line_end + b"\n"))
        out += frames
    assert stream.tap.has_ended
    assert out + stream.close() == data


def test_incomplete_frame_is_held() -> None:
    stream = PassthroughStream()
    assert stream.feed(DELTA + DELTA[:20]) == DELTA
    assert stream.feed(DELTA[20:-1]) == b""
    assert stream.feed(DELTA[-1:]) == DELTA


def test_last_frame_without_its_blank_line() -> None:
    stream = PassthroughStream()
    assert stream.feed(DELTA + STOP[:-1]) == DELTA
    assert stream.close() == STOP[:-1]


@pytest.mark.parametrize("data", [b"", DELTA, DELTA[:-5], STOP[:-9]])
def test_stream_without_an_end_is_truncated(data: bytes) -> None:
    stream = PassthroughStream()
    if stream.feed(data):
        assert b"closed the stream before finishing" in stream.close()
        assert isinstance(stream.failure, Truncated)
    else:
        with pytest.raises(Truncated):
            stream.close()


@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_frame_limits(step: int) -> None:
    long = b"data: " + b"x" * 3000 + b"\n\n"
    lines = b"data: x\n" * (MAX_FRAME_LINES + 1) + b"\n"
    for data, limit in ((long[:-2], 2000), (lines, 1 << 20)):
        stream = PassthroughStream(limit)
        with pytest.raises(FrameTooLarge):
            [stream.feed(data[at : at + step]) for at in range(0, len(data), step)]


def test_frames_are_masked_unless_they_carry_output() -> None:
    stream = PassthroughStream(mask=lambda frame: frame.replace(b"key", b"***"))
    content = b'data: {"type":"content_block_delta","text":"key"}\n\n'
    assert stream.feed(content * 2) == content * 2
    assert stream.feed(b'data: {"type":"error","error":"key"}\n\n' + content) == (
        b'data: {"type":"error","error":"***"}\n\n' + content
    )
    assert stream.feed(b": a key\n\n") == b": a ***\n\n"


def test_failure_after_the_first_frames_becomes_an_error_event() -> None:
    stream = PassthroughStream()
    stream.address = "http://upstream"
    assert stream.feed(DELTA + DELTA[:9]) == DELTA
    assert b'"message":"it broke (http://upstream)"' in stream.fail(Truncated("it broke"))
    assert isinstance(stream.failure, Truncated)
    assert stream.has_ended
    assert stream.fail(Truncated("again")) == b""


def test_failure_after_the_last_event_is_none() -> None:
    stream = PassthroughStream()
    stream.feed(STREAM)
    assert stream.has_last_event
    assert not stream.has_ended
    assert (stream.fail(Truncated("it broke")), stream.failure, stream.has_ended) == (b"", None, True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"event: message_start\n", True),
        (b"\xef\xbb\xbf\r\ndata: {}", True),
        (b": ping", True),
        (b"", None),
        (b"ev", None),
        (b"\xef\xbb", None),
        (b"\n" * 100, None),
        (b"\n" * 2000, False),
        (b'{"type":"message"}', False),
        (b"<html>", False),
    ],
)
def test_recognition_of_event_streams(data: bytes, expected: bool | None) -> None:
    assert begins_as_stream(data) is expected


def test_splitting_of_frames() -> None:
    frames = b": comment\r\n\r\n" + DELTA + b"data: {\n\n" + STOP
    assert frames_of(frames) == [b": comment\r\n\r\n", DELTA, b"data: {\n\n", STOP]
    assert [event for _, event in split_frames(frames)] == [None, TextDelta(0, "né\n"), None, MessageStop()]
    assert b"".join(raw for raw, _ in split_frames(frames)) == frames


@pytest.mark.parametrize(
    ("frames", "may_hold"),
    [
        (DELTA, False),
        (DELTA + DELTA, False),
        (STOP, True),
        (DELTA + STOP, True),
        (DELTA.replace(b"\n", b"\r\n"), True),
        (b'data: {"type":"error"}\n\n', True),
        (DELTA[:-1], True),
    ],
)
def test_frames_that_may_hold_an_error(frames: bytes, may_hold: bool) -> None:
    assert may_hold_error(frames) is may_hold
    if not may_hold:
        assert all(map(is_of_content, frames_of(frames)))
