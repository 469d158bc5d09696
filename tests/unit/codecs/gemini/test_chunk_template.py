"""The fast path gives what parsing gives, and takes no chunk that says more than its text and counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.gemini.chunk_template import ChunkTemplate
from proxyd.codecs.gemini.stream import GeminiStream
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.wire.sse import SSEFrame
from tests.support.effort import examples


def chunk(text: str, count: int = 5, *, part: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [{"text": text, **(part or {})}], "role": "model"}, "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 1200,
            "candidatesTokenCount": count,
            "totalTokenCount": 1200 + count,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1200}],
        },
        "modelVersion": "gemini-3-pro",
        **fields,
    }


def frame_of(known: dict[str, Any]) -> SSEFrame:
    return SSEFrame(b"", json.dumps(known).encode())


def learned(known: dict[str, Any], text: str) -> ChunkTemplate:
    template = ChunkTemplate()
    template.learn(frame_of(known), known, "text", text)
    return template


def text_of(template: ChunkTemplate, data: bytes) -> str:
    return template.read(b"data: " + data)[0]


@pytest.mark.parametrize("text", ["b", ' \\"quoted\\" ', "\\u00e9\\n", "é", "x" * 900])
def test_a_repetition_with_other_counts(text: str) -> None:
    template = learned(chunk("a"), "a")
    literal = json.dumps(chunk("@@", 987654)).replace("@@", text).encode()
    assert text_of(template, literal) == json.loads(f'"{text}"')


@pytest.mark.parametrize(
    "other",
    [
        chunk("b", part={"thoughtSignature": "s"}),
        chunk("b", part={"thought": True}),
        chunk(""),
        chunk("b", promptFeedback={}),
        chunk("b", modelVersion="gemini-4-pro"),
        {**chunk("b"), "candidates": [{**chunk("b")["candidates"][0], "index": 1}]},
        {**chunk("b"), "candidates": [{**chunk("b")["candidates"][0], "finishReason": "STOP"}]},
        {"error": {"message": "x"}},
    ],
)
def test_what_says_more_is_parsed(other: dict[str, Any]) -> None:
    assert text_of(learned(chunk("a"), "a"), json.dumps(other).encode()) == ""


@pytest.mark.parametrize(
    "known",
    [
        chunk("a", part={"thoughtSignature": "s"}),
        chunk("a", error=None),
        {**chunk("a"), "candidates": chunk("a")["candidates"] * 2},
        {**chunk("a"), "candidates": [{**chunk("a")["candidates"][0], "finishReason": None}]},
        {"candidates": [{"content": {"parts": [{"text": "a"}, {"text": "b"}]}}]},
        {"candidates": [{"content": [{"text": "a"}]}]},
        {"candidates": "a"},
    ],
)
def test_no_template_of_what_says_more(known: dict[str, Any]) -> None:
    assert learned(known, "a").kind == ""


def test_a_text_that_is_cut_is_none() -> None:
    template = learned(chunk("a"), "a")
    whole = json.dumps(chunk("b c")).encode()
    for end in range(len(whole)):
        assert text_of(template, whole[:end]) == ""


def test_after_a_few_chunks_that_never_repeat_nothing_is_learned() -> None:
    template = ChunkTemplate()
    for number in range(12):
        known = chunk("a", responseId=f"r{number}")
        template.learn(frame_of(known), known, "text", "a")
    assert template.kind == ""


def decoder(**context: Any) -> ResponseDecoder:
    codec = GeminiStream(ResponseContext("m", **context), Dialect(), lambda prefix: prefix, lambda name: None)
    return ResponseDecoder(codec, max_body_bytes=1 << 20)


def test_the_usage_of_a_chunk_that_was_not_parsed_counts() -> None:
    known = decoder()
    for count, text in ((3, "a"), (5, "b"), (8, "c"), (9, "d")):
        known.feed(b"data: " + json.dumps(chunk(text, count)).encode() + b"\r\n\r\n")
        assert known.usage.output_tokens == count


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
more = st.sampled_from([{}, {}, {}, {"thought": True}, {"thoughtSignature": "s"}])


@settings(max_examples=examples(150), deadline=None)
@given(
    sent=st.lists(st.tuples(texts, more, st.integers(0, 3000)), max_size=12),
    ascii_only=st.booleans(),
    stops=st.sampled_from([(), ("a",)]),
)
def test_the_events_are_those_of_whole_parsing(
    sent: list[tuple[str, dict[str, Any], int]], ascii_only: bool, stops: tuple[str, ...]
) -> None:
    made = [chunk(text, count, part=part) for text, part, count in sent]
    made.append({"candidates": [{"finishReason": "STOP"}]})
    out = []
    for is_odd in (False, True):  # a new member in front of each chunk, so that no template fits
        known, data = decoder(stop_sequences=stops), b""
        for number, each in enumerate(made):
            odd = {"createTime": str(number)} if is_odd else {}
            text = json.dumps({**odd, **each}, ensure_ascii=ascii_only)
            if not known.has_ended:
                data += known.feed(f"data: {text}\r\n\r\n".encode())
        out.append((data + known.close(), known.usage))
    assert out[0] == out[1]
