"""Other forms of texts, calls and chunks; the transcripts generic/forms_* show them in streams."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.openai.delta_shapes import call_fragments, parts_of, text_of, unwrapped

CHUNK: dict[str, Any] = {"choices": [{"delta": {"content": "a"}}]}


@pytest.mark.parametrize("wrapper", ["data", "result", "response", "body"])
def test_wrapped_chunk(wrapper: str) -> None:
    assert unwrapped({"code": 0, wrapper: CHUNK}) is CHUNK


@pytest.mark.parametrize(
    "chunk", [CHUNK, {"data": "x"}, {"data": {"choices": None}}, {"choices": None, "data": CHUNK}]
)
def test_chunk_that_wraps_none(chunk: dict[str, Any]) -> None:
    assert unwrapped(chunk) is chunk


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"type": "text", "text": "a"}, [{"type": "text", "text": "a"}]),
        (["a", {"type": "output_text"}, 3], [{"type": "text", "text": "a"}, {"type": "output_text"}]),
        (5, []),
    ],
)
def test_parts(content: Any, parts: list[Any]) -> None:
    assert parts_of(content) == parts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ({"content": "a"}, "a"),
        ([{"type": "text", "text": "a"}, "b", 3], "ab"),
        ({"summary": [{"text": "a"}]}, "a"),
        ({"text": {"text": {"text": {"text": {"text": "too deep"}}}}}, ""),
        (None, ""),
        (True, ""),
    ],
)
def test_text(value: Any, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("call", "function"),
    [
        ({"function": {"name": "T", "arguments": "{}"}}, {"name": "T", "arguments": "{}"}),
        ({"function": {"name": "T", "parameters": {"a": 1}}}, {"arguments": {"a": 1}}),
        ({"function": {"name": "T", "input": "{}"}}, {"arguments": "{}"}),
        ({"name": "T", "arguments": "{}"}, {"name": "T", "arguments": "{}"}),
        ({"name": "T", "input": {"a": 1}}, {"name": "T", "arguments": {"a": 1}}),
        ({"function": {"arguments": "x", "parameters": {"a": 1}}}, {"arguments": "x"}),
    ],
)
def test_calls(call: dict[str, Any], function: dict[str, Any]) -> None:
    for given in (call, [call]):
        (fragment,) = call_fragments(given)
        assert function.items() <= fragment["function"].items()


def test_calls_that_are_none() -> None:
    assert call_fragments("none") == []
    assert call_fragments(["junk", {"index": 0}]) == ["junk", {"index": 0}]
