"""Decoding of one response: early starts, fast paths, failures, limits."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.anthropic.events import (
    BlockStart,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    TextDelta,
)
from proxyd.codecs.anthropic.passthrough import split_frames
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.openai.stream import OpenAIStream
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from proxyd.errors import BadReply, FrameTooLarge, Refused, TimedOut, Truncated
from tests.support.effort import examples


class _Decoder:
    """A decoder that returns events in place of their frames."""

    def __init__(self, decoder: ResponseDecoder) -> None:
        self._decoder = decoder

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._decoder, name)
        if name not in ("start", "feed", "close", "fail"):
            return found
        return lambda *given: [event for _, event in split_frames(found(*given))]


def new_decoder(**options: Any) -> _Decoder:
    codec = OpenAIStream(
        ResponseContext(model="asked", estimated_input_tokens=7),
        Dialect(),
        lambda prefix: prefix + "1",
        lambda name: None,
    )
    return _Decoder(ResponseDecoder(codec, **{"max_body_bytes": 1000, **options}))


def frame(delta: dict[str, Any], finish: str | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def feed(decoder: _Decoder, data: bytes, chunk_bytes: int) -> None:
    for at in range(0, len(data), chunk_bytes):
        decoder.feed(data[at : at + chunk_bytes])


HELLO = frame({"content": "Hello."})


def _call(text: str, index: int = 0, **begins: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **begins, "function": {"name": "Read", "arguments": text}}]}


def _more(text: str, index: int = 0) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


_texts = st.sampled_from([" word", "é", "\n", '"', "{", '{"a":1}', "}", '{"a"', ":1", "null", "\u2028"])
_frames = st.one_of(
    st.builds(lambda text: frame({"content": text}), _texts),
    st.builds(lambda text: frame({"reasoning_content": text}), _texts),
    st.builds(lambda text, at: frame(_more(text, at)), _texts, st.sampled_from([0, 0, 0, 1])),
    st.builds(lambda at: frame(_call("", at, id=f"call_{at}")), st.integers(0, 2)),
    st.sampled_from([b"\r", b"\n", b": x\r\n\r", b"data: [DONE]\n\n", frame({}, "stop"), b"data: {"]),
)
_calls = st.lists(_texts, max_size=6).map(
    lambda texts: [frame(_call("", id="call_0")), *(frame(_more(text)) for text in ('{"b"', *texts))]
)


@given(
    st.lists(
        st.one_of(st.tuples(_frames, st.integers(1, 3)).map(lambda run: [run[0]] * run[1]), _calls),
        max_size=8,
    ),
    st.lists(st.integers(0, 2000), max_size=3),
)
@settings(max_examples=examples(500), deadline=None)
def test_runs_of_one_frame_do_not_depend_on_how_they_are_cut(
    runs: list[list[bytes]], cuts: list[int]
) -> None:
    parts = [HELLO, HELLO, *itertools.chain.from_iterable(runs)]
    whole = b"".join(parts)
    edges = {0, *itertools.accumulate(map(len, parts))} ^ ({cut % len(whole) for cut in cuts} - {0})
    short, long = new_decoder(max_body_bytes=10_000), new_decoder(max_body_bytes=10_000)
    expected = long.feed(whole)
    found = []
    for start, end in itertools.pairwise(sorted({*edges, len(whole)})):
        if not short.has_ended:
            found += short.feed(whole[start:end])
    assert found == expected
    assert short.usage == long.usage
    assert short.events == long.events == len(expected)


def test_message_started_early_continues() -> None:
    decoder = new_decoder()
    (start,) = decoder.start()
    assert isinstance(start, MessageStart)
    assert start.message["usage"]["input_tokens"] == 7
    assert decoder.start() == [], "it starts once"
    assert [type(event) for event in decoder.feed(HELLO)] == [BlockStart, TextDelta]
    assert not decoder.has_finish
    decoder.feed(frame({}, "stop"))
    assert decoder.has_finish
    assert not decoder.has_ended, "usage may follow"
    assert [type(event) for event in decoder.close()][-2:] == [MessageDelta, MessageStop]
    assert decoder.has_ended
    assert (decoder.stop_reason, decoder.close()) == ("end_turn", [])


def test_failure_is_raised_until_an_event_was_returned() -> None:
    with pytest.raises(BadReply):
        new_decoder().feed(b"data: nonsense\n\n")
    with pytest.raises(Truncated):
        new_decoder().close()
    decoder = new_decoder()
    decoder.start()
    (event,) = decoder.feed(b"data: nonsense\n\n")
    assert isinstance(event, ErrorEvent)
    assert isinstance(decoder.failure, BadReply)
    assert decoder.has_ended


def test_events_before_a_failure_are_returned() -> None:
    events = new_decoder().feed(HELLO + b"data: nonsense\n\n" + HELLO)
    assert [type(event) for event in events] == [MessageStart, BlockStart, TextDelta, ErrorEvent]


FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    "garbage", [b"data: nonsense\n\n", b"data: " + b"x" * 2000, b"data: a\n" * 10_001 + b"\n"]
)
def test_garbage_after_the_finish_reason_is_ignored(garbage: bytes) -> None:
    decoder = new_decoder(max_frame_bytes=1000 if b"x" in garbage else 1 << 20)
    events = decoder.feed(HELLO) + decoder.feed(FINISH) + decoder.feed(garbage)
    assert isinstance(events[-1], MessageStop)
    assert decoder.failure is None


def test_error_after_the_finish_reason_is_an_error() -> None:
    decoder = new_decoder()
    events = decoder.feed(HELLO + FINISH) + decoder.feed(b'data: {"error":{"message":"no","code":500}}\n\n')
    assert isinstance(events[-1], ErrorEvent)


def test_failure_from_outside_ends_the_stream_once() -> None:
    decoder = new_decoder()
    decoder.feed(HELLO)
    (event,) = decoder.fail(TimedOut("the upstream was silent for 300 s"))
    assert isinstance(event, ErrorEvent)
    assert event.body["error"] == {"type": "timeout_error", "message": "the upstream was silent for 300 s"}
    assert decoder.fail(TimedOut("again")) == decoder.close() == decoder.feed(HELLO) == []


def test_bodies_and_frames_have_size_limits() -> None:
    with pytest.raises(BadReply, match="larger than"):
        feed(new_decoder(), b'{"choices": "' + b"x" * 1200, 400)
    with pytest.raises(BadReply, match="nothing but blank lines"):
        new_decoder().feed(b"\n" * 1001)
    with pytest.raises(FrameTooLarge):
        new_decoder(max_frame_bytes=1000).feed(b"data: " + b"x" * 1001)


def test_memory_of_a_large_line_is_bounded() -> None:
    line = b"data: " + b"x" * (8 << 20)
    decoder = new_decoder()
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooLarge):
            feed(decoder, line, 1 << 16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(line)


def test_unreadable_body_is_quoted_in_the_log_only() -> None:
    with pytest.raises(BadReply) as caught:
        new_decoder().feed(b"<html>" + b"secret" * 100)
    assert "secret" not in caught.value.message
    assert 0 < len(caught.value.detail) <= 200


@pytest.mark.parametrize(
    ("error", "quoted"),
    [
        ({"status": "error", "reason": "boom"}, "boom"),
        ({"success": False, "code": "worker_lost"}, "worker_lost"),
        ({"exception": "no more workers"}, "no more workers"),
        ({"choices": [{"delta": {}, "error": {"message": "lost"}}]}, "lost"),
        ({"choices": [{"delta": {"content": "", "error": "lost"}}]}, "lost"),
        ({"choices": [{"delta": {}, "finish_reason": "stop", "error": {"message": "lost"}}]}, "lost"),
    ],
)
def test_object_that_reports_a_failure_is_an_error(error: dict[str, Any], quoted: str) -> None:
    decoder = new_decoder()
    events = decoder.feed(HELLO + b"data: " + json.dumps(error).encode() + b"\n\ndata: [DONE]\n\n")
    assert isinstance(events[-1], ErrorEvent)
    assert quoted in events[-1].body["error"]["message"]


def test_content_that_is_no_event_replaces_a_later_failure() -> None:
    decoder = new_decoder()
    decoder.feed(HELLO + b"worker 7 died\n\n")
    (event,) = decoder.fail(TimedOut("the upstream was silent for 300 s"))
    assert isinstance(event, ErrorEvent)
    assert "worker 7 died" in event.body["error"]["message"]


@pytest.mark.parametrize("end", [b"", b"\n\ndata: [DONE]\n\n"])
@pytest.mark.parametrize("indent", [None, 2])
def test_error_body_before_an_end_marker_keeps_its_status(end: bytes, indent: int | None) -> None:
    body = json.dumps({"error": {"code": 429, "message": "exhausted"}}, indent=indent).encode() + end
    decoder = new_decoder()
    assert decoder.feed(body) == []
    with pytest.raises(Refused, match="exhausted") as caught:
        decoder.close()
    assert caught.value.status == 429
