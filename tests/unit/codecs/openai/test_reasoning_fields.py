"""The reasoning of deltas, and the items of ``reasoning_details``."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.openai.reasoning_fields import ReasoningDetails, reasoning_of


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"reasoning_content": "a"}, ("reasoning_content", "a")),
        ({"reasoning": "a"}, ("reasoning", "a")),
        ({"reasoning_content": "", "reasoning": "a"}, ("reasoning", "a")),
        ({"reasoning_content": "a", "reasoning": "a"}, ("reasoning_content", "a")),
        ({"reasoning": "a", "reasoning_details": [{"text": "a"}]}, ("reasoning", "a")),
        ({"reasoning_details": [{"text": "a"}, 1, {"summary": "b"}]}, ("reasoning_details", "ab")),
        ({"reasoning_details": [{"data": "x"}], "thinking": "a"}, ("thinking", "a")),
        ({"thought": "a"}, ("thought", "a")),
        ({"reasoning": {"content": "a"}}, ("reasoning", "a")),
        ({"reasoning_content": [{"type": "text", "text": "a"}]}, ("reasoning_content", "a")),
        ({"thinking_blocks": [{"thinking": "a"}, 3]}, ("thinking_blocks", "a")),
        ({"reasoning": {"effort": "high"}, "thinking": True, "content": "a"}, (None, "")),
    ],
)
def test_one_field_is_read(delta: dict[str, Any], expected: tuple[str | None, str]) -> None:
    assert reasoning_of(delta) == expected


def test_details_are_joined_by_type_and_index() -> None:
    details = ReasoningDetails()
    details.add([{"type": "reasoning.text", "index": 0, "text": "a"}])
    details.add([{"type": "reasoning.text", "index": 0, "text": "b", "format": "f"}, "no object"])
    assert not details.is_signed
    details.add([{"type": "reasoning.text", "index": 0, "signature": "s", "format": None}])
    assert details.is_signed
    details.add([{"type": "reasoning.encrypted", "index": 1, "data": "x"}])
    assert details.take() == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "format": "f", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "x"},
    ]
    assert details.take() is None
    assert not details.is_signed
