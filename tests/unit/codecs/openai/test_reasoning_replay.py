"""Reasoning that is sent back to its upstream, in each style, and reasoning that is not."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.openai.reasoning_fields import ReasoningDetails, reasoning_of
from proxyd.codecs.openai.reasoning_replay import Reasoning
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translation_notes import Notes

CALL = {"id": "c1", "type": "function", "function": {"name": "T", "arguments": "{}"}}
DETAILS = [{"type": "reasoning.encrypted", "data": "b3A="}]


def block(text: str, field: str | None, model: str = "m", details: Any = None) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": encode_signature(model, field, details, None)}


def returned(dialect: Dialect, *blocks: dict[str, Any], calls: bool = False) -> dict[str, Any]:
    """Return the fields that the assistant message gains."""
    reasoning = Reasoning("m")
    for each in blocks:
        reasoning.add(each)
    message: dict[str, Any] = {"role": "assistant", "content": "said"}
    if calls:
        message["tool_calls"] = [dict(CALL)]
    before = dict(message)
    reasoning.write_to(message, ["c1"] if calls else [], dialect, Notes())
    return {key: value for key, value in message.items() if before.get(key) != value}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_received(field: str) -> None:
    assert returned(Dialect(), block("Hm.", field)) == {field: "Hm."}
    assert returned(Dialect(), block("Hm.", field), block(" So.", field)) == {field: "Hm. So."}


@pytest.mark.parametrize(
    "blocks",
    [
        [block("Hm.", "think")],  # was inside the content
        [block("Hm.", "thinking")],  # Mistral's chunks, which another server would refuse
        [block("Hm.", "reasoning_content", model="other")],
        [{"type": "thinking", "thinking": "Hm.", "signature": "EqQBCkYI"}],  # Anthropic's own
        [{"type": "thinking", "thinking": "Hm.", "signature": ""}],
        [block("Hm.", "reasoning"), block("So.", "reasoning_content")],  # which of the two, nobody can tell
    ],
)
def test_unknown_servers_get_no_reasoning(blocks: list[dict[str, Any]]) -> None:
    assert returned(Dialect(), *blocks) == {}


def test_field() -> None:
    dialect = Dialect(reasoning_return="field", reasoning_field="reasoning_content")
    assert returned(dialect, block("Hm.", "reasoning")) == {"reasoning_content": "Hm."}
    assert returned(dialect, block("Hm.", None, model="other")) == {"reasoning_content": "Hm."}, (
        "text is text"
    )
    assert returned(dialect, block("", None), calls=True) == {}


def test_placeholder_for_lost_reasoning() -> None:
    dialect = Dialect(
        reasoning_return="field",
        reasoning_field="reasoning_content",
        reasoning_placeholder="",
        reasoning_with_calls_only=True,
    )
    assert returned(dialect, calls=True) == {"reasoning_content": ""}
    assert returned(dialect, block("Hm.", None), calls=True) == {"reasoning_content": "Hm."}
    assert returned(dialect, block("Hm.", None)) == {}, "only tool turns carry it"


def test_details() -> None:
    dialect = Dialect(reasoning_return="details", reasoning_field="reasoning")
    assert returned(dialect, block("Hm.", "reasoning", details=DETAILS)) == {"reasoning_details": DETAILS}
    foreign = block("Hm.", "reasoning", model="other", details=DETAILS)
    assert returned(dialect, foreign) == {"reasoning": "Hm."}, "signed data is of use to its vendor alone"


def test_tags_and_chunks() -> None:
    dialect = Dialect(reasoning_return="tags", think_tags=("thought", "think"))
    assert returned(dialect, block("Hm.", "think")) == {"content": "<thought>Hm.</thought>\nsaid"}
    chunks = Dialect(reasoning_return="chunks")
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    assert returned(chunks, block("Hm.", "thinking")) == {
        "content": [thinking, {"type": "text", "text": "said"}]
    }
    assert returned(chunks, block("Hm.", "reasoning", model="other")) == {}


def test_none() -> None:
    assert returned(Dialect(reasoning_return="none"), block("Hm.", "reasoning_content"), calls=True) == {}


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"reasoning_content": "a", "reasoning": "a"}, ("reasoning_content", "a")),
        ({"reasoning_content": "", "reasoning": "b"}, ("reasoning", "b")),
        ({"reasoning_content": None, "thinking": "c", "thought": "d"}, ("thinking", "c")),
        ({"thought": "d"}, ("thought", "d")),
        (
            {"reasoning_details": [{"text": "e"}, "x", {"summary": "f"}], "thinking": "g"},
            ("reasoning_details", "ef"),
        ),
        ({"reasoning_details": [{"data": "secret"}]}, (None, "")),
        ({"content": "h"}, (None, "")),
        ({"reasoning": [3]}, (None, "")),
    ],
)
def test_where_a_delta_keeps_its_reasoning(delta: dict[str, Any], expected: tuple[str | None, str]) -> None:
    assert reasoning_of(delta) == expected


def test_details_are_joined_by_type_and_index() -> None:
    details = ReasoningDetails()
    details.add(
        [{"type": "t", "index": 0, "text": "a"}, {"type": "t", "index": 0, "text": "b", "signature": None}]
    )
    assert not details.is_signed
    details.add([{"type": "t", "index": 0, "signature": "s"}, "junk", {"type": "t", "index": 1, "text": "c"}])
    assert details.is_signed
    assert details.take() == [
        {"type": "t", "index": 0, "text": "ab", "signature": "s"},
        {"type": "t", "index": 1, "text": "c"},
    ]
    assert details.take() is None
