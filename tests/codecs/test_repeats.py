"""Chunks that repeat a template: the same events as when each is read in full."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs import openai_stream, repeats
from proxyd.codecs.dialect import Dialect
from proxyd.codecs.openai_stream import Answer, OpenAIStream
from proxyd.codecs.repeats import Repeats
from proxyd.codecs.sse import SSEFrame
from proxyd.errors import ProxyError


class _NeverRepeats(Repeats):
    """Reads every chunk in full."""

    def learn(self, data: bytes, chunk: dict[str, Any], kind: str, text: str) -> None:
        pass


def _chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def _events(chunks: list[bytes], kind: type[Repeats], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(openai_stream, "Repeats", kind)
    numbers = itertools.count()
    stream = OpenAIStream(
        Answer("m"), Dialect(), lambda prefix: f"{prefix}{next(numbers)}", lambda name: None
    )
    events: list[Any] = []
    try:
        for data in chunks:
            events += stream.feed(SSEFrame(b"", data))
        events += stream.close()
    except ProxyError as exc:
        events += [*stream.take(), type(exc), str(exc)]
    return events


_texts = st.one_of(
    st.sampled_from(
        ["", "a", " ", "\n", '"', "\\", 'x","content":"y', "{", '{"a":1}', "null", "}", "\ud83d", "é"]
    ),
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
#: Runs of one shape, as servers send them, broken off by anything.
_streams = st.lists(st.tuples(_chunks, st.integers(1, 4)), max_size=12).map(
    lambda runs: [data for data, times in runs for _ in range(times)]
)


@given(_streams, st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_events_are_those_of_reading_in_full(chunks: list[bytes], finishes: bool) -> None:
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    chunks = [*chunks, *([json.dumps(finish).encode(), b"[DONE]"] if finishes else [])]
    with pytest.MonkeyPatch.context() as patch:
        assert _events(chunks, Repeats, patch) == _events(chunks, _NeverRepeats, patch)


@given(
    st.lists(_texts, min_size=2, max_size=20), st.sampled_from(["content", "reasoning_content", "reasoning"])
)
@settings(max_examples=200, deadline=None)
def test_so_are_those_of_one_run(texts: list[str], key: str) -> None:
    chunks = [json.dumps(_chunk({key: text})).encode() for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        assert _events(chunks, Repeats, patch) == _events(chunks, _NeverRepeats, patch)


def _learnt(delta: dict[str, Any], kind: str = "text", text: str = "one", **more: Any) -> Repeats:
    template = Repeats()
    chunk = _chunk(delta, **more)
    template.learn(json.dumps(chunk).encode(), chunk, kind, text)
    return template


def _again(template: Repeats, delta: dict[str, Any], **more: Any) -> str:
    return template.text_of(json.dumps(_chunk(delta, **more)).encode())


def test_a_chunk_that_repeats_is_not_read_in_full() -> None:
    template = _learnt({"content": "one"})
    assert _again(template, {"content": 'two "quoted" \\ é'}) == 'two "quoted" \\ é'
    call = {"tool_calls": [{"index": 0, "function": {"arguments": "one"}}]}
    template = _learnt(call, "tool_use")
    assert _again(template, {"tool_calls": [{"index": 0, "function": {"arguments": '"a"'}}]}) == '"a"'
    assert _again(template, {"tool_calls": [{"index": 1, "function": {"arguments": '"a"'}}]}) == ""


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
def test_what_says_more_than_one_text_is_no_template(
    delta: dict[str, Any], kind: str, more: dict[str, Any]
) -> None:
    template = _learnt(delta, kind, **more)
    assert template.kind == ""


def test_servers_that_never_repeat_are_noticed() -> None:
    template = Repeats()
    for number in range(repeats._MAX_LEARNT):
        chunk = _chunk({"content": "one"}, created=number)
        data = json.dumps(chunk).encode()
        assert template.text_of(data) == ""
        template.learn(data, chunk, "text", "one")
        assert template.kind == "text"
    chunk = _chunk({"content": "one"})
    template.learn(json.dumps(chunk).encode(), chunk, "text", "one")
    assert template.kind == ""


@pytest.mark.parametrize("text", [b'a"b', b"a\\", b"\xff", b"", b'a","content":"b'])
def test_what_is_not_one_whole_string_is_read_in_full(text: bytes) -> None:
    template = _learnt({"content": "one"})
    data = json.dumps(_chunk({"content": "one"})).encode().replace(b"one", text)
    assert template.text_of(data) == ""
