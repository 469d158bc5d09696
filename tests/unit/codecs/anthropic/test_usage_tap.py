"""Usage, stop reason and end of streams that pass through unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.anthropic.events import MessageStop, TextDelta, encode_event, encode_frame
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.anthropic.usage_tap import UsageTap


def start(**usage: int) -> bytes:
    return encode_frame("message_start", {"type": "message_start", "message": {"usage": usage}})


def delta(reason: Any = "end_turn", **usage: int) -> bytes:
    data = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}
    return encode_frame("message_delta", data)


STOP = encode_event(MessageStop())
TEXT = encode_event(TextDelta(0, 'says "message_stop" and "error" and \\"message_delta'))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_usage_and_end_of_a_stream(line_end: bytes) -> None:
    tap = UsageTap()
    for frames in (start(input_tokens=7, cache_read_input_tokens=3), TEXT, delta(output_tokens=9), STOP):
        assert not tap.has_ended
        tap.watch(frames.replace(b"\n", line_end))
    assert tap.has_ended
    assert tap.usage == tap.usage_so_far == Usage(7, 9, 3)
    assert tap.stop_reason == "end_turn"
    assert tap.error_type is None
    assert tap.reports_cache


def test_many_usage_events_are_cumulative() -> None:
    tap = UsageTap()
    for count in range(1, 30):
        tap.watch(delta(None, output_tokens=count))
    assert tap.usage.output_tokens == 29
    assert tap.stop_reason is None
    assert not tap.reports_cache


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"type": "overloaded_error"}, "overloaded_error"),
        ({"type": "a prompt, quoted"}, "unknown"),
        ("text", "unknown"),
    ],
)
def test_error_event_ends_the_stream(error: Any, expected: str) -> None:
    tap = UsageTap()
    tap.watch(encode_frame("error", {"type": "error", "error": error}))
    assert tap.has_ended
    assert tap.error_type == expected


def test_output_of_a_stream_without_an_end_is_estimated() -> None:
    tap = UsageTap()
    frames = encode_event(TextDelta(0, "x" * 400)) * 10
    tap.watch(start(input_tokens=7, output_tokens=1))
    tap.count_deltas(frames)
    usage = tap.usage_so_far
    assert usage.is_estimated
    assert usage.input_tokens == 7
    assert 900 < usage.output_tokens < 1100
    tap.watch(delta(output_tokens=5) + STOP)
    assert tap.usage_so_far.output_tokens == 5


@pytest.mark.parametrize(
    "frames",
    [
        b'data: {"type":"message_delta"\n\n',
        b'data: ["message_stop"]\n\n',
        b'data: {"type":"message_start","message":1}\n\n',
    ],
)
def test_invalid_frames_are_ignored(frames: bytes) -> None:
    tap = UsageTap()
    tap.watch(frames)
    assert (tap.usage, tap.has_ended) == (Usage(), False)


def test_body_that_is_not_streamed() -> None:
    tap = UsageTap()
    tap.watch_body(b"<html>")
    body = {"type": "message", "stop_reason": "max_tokens", "usage": {"input_tokens": 4, "output_tokens": 2}}
    tap.watch_body(json.dumps(body).encode())
    assert (tap.usage, tap.stop_reason) == (Usage(4, 2), "max_tokens")
