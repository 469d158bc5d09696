"""Chunks that repeat a template give the same events as when each is parsed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.anthropic.events import TextDelta, encode_event, encode_events
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.openai import delta_template
from proxyd.codecs.openai import stream as openai_stream
from proxyd.codecs.openai.delta_template import DeltaTemplate
from proxyd.codecs.openai.stream import OpenAIStream
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.wire.sse import SSEFrame
from proxyd.errors import ProxyError
from tests.support.effort import examples


class _NeverRepeats(DeltaTemplate):
    """Parses every chunk."""

    def learn(self, frame: SSEFrame, chunk: dict[str, Any], kind: str, text: str) -> None:
        pass


def _chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def _feed(stream: OpenAIStream, data: bytes) -> bytes:
    return stream.repeat(b"data: " + data) or encode_events(stream.feed(SSEFrame(b"", data)))


def _frames(chunks: list[bytes], kind: type[DeltaTemplate], dialect: Dialect | None = None) -> list[Any]:
    stream = _stream_of(kind, dialect)
    frames: list[Any] = []
    try:
        frames.extend(_feed(stream, data) for data in chunks)
        frames.append(encode_events(stream.close()))
    except ProxyError as exc:
        frames += [encode_events(stream.take_events()), type(exc), str(exc)]
    return frames


_texts = st.one_of(
    st.sampled_from(
        ["", "a", " ", "\n", '"', "\\", 'x","content":"y', "{", '{"a":1}', "null", "}", "\ud83d", "é"]
    ),
    st.sampled_from(["<think>", "</think>", "<", "<th", "</th", "ink>", "a<", "</think>\n"]),
    st.text(max_size=8),
)
_fragments = st.builds(
    lambda index, text, begins: {
        "index": index,
        **({"id": f"call_{begins}"} if begins else {}),
        "function": {**({"name": f"tool_{begins}"} if begins else {}), "arguments": text},
    },
    st.integers(0, 2),
    _texts,
    st.sampled_from([0, 0, 0, 0, 1, 2]),
)
_deltas = st.one_of(
    st.builds(lambda text: {"content": text}, _texts),
    st.builds(lambda text: {"role": "assistant", "content": text, "tool_calls": []}, _texts),
    st.builds(lambda text: {"reasoning_content": text, "content": None}, _texts),
    st.builds(lambda text: {"content": text, "reasoning": text}, _texts),
    st.builds(lambda text, refusal: {"content": text, "refusal": refusal}, _texts, _texts),
    st.builds(lambda fragment: {"tool_calls": [fragment]}, _fragments),
    st.builds(lambda one, two: {"tool_calls": [one, two]}, _fragments, _fragments),
    st.just({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "tool_1", "arguments": ""}}]}),
)
_chunks = st.builds(
    lambda delta, usage, is_ascii: json.dumps(
        _chunk(delta, **({"usage": {"prompt_tokens": usage, "completion_tokens": 1}} if usage else {})),
        ensure_ascii=is_ascii,
    ).encode("utf-8", "surrogatepass"),
    _deltas,
    st.sampled_from([0, 0, 0, 0, 0, 5, 6]),
    st.booleans(),
)
#: Runs of one shape, as servers send them, interrupted by others.
_streams = st.lists(st.tuples(_chunks, st.integers(1, 4)), max_size=12).map(
    lambda runs: [data for data, times in runs for _ in range(times)]
)


_dialects = st.sampled_from(
    [
        Dialect(),
        Dialect(think_tags=("think",)),
        Dialect(think_tags=("think",), think_tag_is_implied=True),
        Dialect(think_tags=("think", "th"), think_tags_repeat=True),
    ]
)


@given(_streams, st.booleans(), _dialects)
@settings(max_examples=examples(400), deadline=None)
def test_events_equal_those_of_parsing(chunks: list[bytes], finishes: bool, dialect: Dialect) -> None:
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    chunks = [*chunks, *([json.dumps(finish).encode(), b"[DONE]"] if finishes else [])]
    assert _frames(chunks, DeltaTemplate, dialect) == _frames(chunks, _NeverRepeats, dialect)


@given(
    st.lists(_texts, min_size=2, max_size=20),
    st.sampled_from(["content", "reasoning_content", "reasoning"]),
    _dialects,
)
@settings(max_examples=examples(200), deadline=None)
def test_events_of_one_run_equal_those_of_parsing(texts: list[str], key: str, dialect: Dialect) -> None:
    chunks = [json.dumps(_chunk({key: text})).encode() for text in texts]
    assert _frames(chunks, DeltaTemplate, dialect) == _frames(chunks, _NeverRepeats, dialect)


@pytest.mark.parametrize("key", ["content", "reasoning_content"])
@pytest.mark.parametrize("is_thinking", [False, True])
def test_chunks_of_models_that_write_tags_repeat(key: str, is_thinking: bool) -> None:
    stream = _stream_of(DeltaTemplate, Dialect(think_tags=("think",)))
    texts = [*(["<think>"] if is_thinking else []), *"abcdefgh"]
    repeated = 0
    for text in texts:
        data = json.dumps(_chunk({key: text})).encode()
        if stream.repeat(b"data: " + data):
            repeated += 1
        else:
            stream.feed(SSEFrame(b"", data))
    assert repeated >= 6


@given(st.lists(st.tuples(_texts, st.sampled_from(["content", "reasoning_content"])), max_size=30), _dialects)
@settings(max_examples=examples(400), deadline=None)
def test_text_and_reasoning_in_any_order_equal_those_of_parsing(
    texts: list[tuple[str, str]], dialect: Dialect
) -> None:
    chunks = [json.dumps(_chunk({key: text})).encode() for text, key in texts]
    assert _frames(chunks, DeltaTemplate, dialect) == _frames(chunks, _NeverRepeats, dialect)


def _stream_of(kind: type[DeltaTemplate], dialect: Dialect | None = None) -> OpenAIStream:
    numbers = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_stream, "DeltaTemplate", kind)
        return OpenAIStream(
            ResponseContext("m"),
            dialect or Dialect(),
            lambda prefix: f"{prefix}{next(numbers)}",
            lambda name: None,
        )


@given(_streams)
@settings(max_examples=examples(400), deadline=None)
def test_usage_equals_that_of_parsing(chunks: list[bytes]) -> None:
    full, repeating = _stream_of(_NeverRepeats), _stream_of(DeltaTemplate)
    for data in chunks:
        try:
            frames = _feed(full, data)
        except ProxyError as exc:
            with pytest.raises(type(exc)):
                _feed(repeating, data)
            return
        assert _feed(repeating, data) == frames
        assert repeating.usage == full.usage


def test_chunk_that_repeats_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _stream_of(DeltaTemplate)
    for text in ("one", "two"):
        _feed(stream, json.dumps(_chunk({"content": text})).encode())
    with monkeypatch.context() as patch:
        patch.setattr(openai_stream.jsonio, "loads", None)
        frame = _feed(stream, json.dumps(_chunk({"content": "three"})).encode())
    assert frame == encode_event(TextDelta(0, "three"))


def _learned(delta: dict[str, Any], kind: str = "text", text: str = "one", **more: Any) -> DeltaTemplate:
    template = DeltaTemplate()
    chunk = _chunk(delta, **more)
    template.learn(_frame_of(chunk), chunk, kind, text)
    return template


def _frame_of(chunk: dict[str, Any]) -> SSEFrame:
    return SSEFrame(b"", json.dumps(chunk).encode())


def _text_of(template: DeltaTemplate, data: bytes) -> str:
    return template.read(b"data: " + data)[0]


def _text_of_delta(template: DeltaTemplate, delta: dict[str, Any], **more: Any) -> str:
    return _text_of(template, json.dumps(_chunk(delta, **more)).encode())


def test_repeated_chunk_is_recognised() -> None:
    template = _learned({"content": "one"})
    assert _text_of_delta(template, {"content": 'two "quoted" \\ é'}) == 'two "quoted" \\ é'
    call = {"tool_calls": [{"index": 0, "function": {"arguments": "one"}}]}
    template = _learned(call, "tool_use")
    assert _text_of_delta(template, {"tool_calls": [{"index": 0, "function": {"arguments": '"a"'}}]}) == '"a"'
    assert _text_of_delta(template, {"tool_calls": [{"index": 1, "function": {"arguments": '"a"'}}]}) == ""


@pytest.mark.parametrize(
    ("delta", "kind", "more"),
    [
        ({"content": "one", "refusal": "no"}, "text", {}),
        ({"content": "one", "reasoning": "one"}, "text", {}),
        ({"content": "one", "reasoning_details": [{"text": "x"}]}, "text", {}),
        ({"content": "one", "tool_calls": [{"index": 0}]}, "text", {}),
        ({"content": "one"}, "text", {"usage": {"prompt_tokens": 1}}),
        ({"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": "one"}}]}, "tool_use", {}),
        ({"tool_calls": [{"index": 0, "function": {"name": "n", "arguments": "one"}}]}, "tool_use", {}),
        ({"tool_calls": [{"function": {"arguments": "one"}}]}, "tool_use", {}),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "one"}}] * 2}, "tool_use", {}),
    ],
)
def test_chunk_with_more_than_one_text_is_no_template(
    delta: dict[str, Any], kind: str, more: dict[str, Any]
) -> None:
    template = _learned(delta, kind, **more)
    assert template.kind == ""


def test_learning_stops_if_nothing_repeats() -> None:
    template = DeltaTemplate()
    for number in range(delta_template._MAX_LEARNED):
        chunk = _chunk({"content": "one"}, created=number)
        data = json.dumps(chunk).encode()
        assert _text_of(template, data) == ""
        template.learn(_frame_of(chunk), chunk, "text", "one")
        assert template.kind == "text"
    chunk = _chunk({"content": "one"})
    template.learn(_frame_of(chunk), chunk, "text", "one")
    assert template.kind == ""


@pytest.mark.parametrize("text", [b'a"b', b"a\\", b"\xff", b"", b'a","content":"b'])
def test_text_that_is_no_whole_string_is_declined(text: bytes) -> None:
    template = _learned({"content": "one"})
    data = json.dumps(_chunk({"content": "one"})).encode().replace(b"one", text)
    assert _text_of(template, data) == ""
