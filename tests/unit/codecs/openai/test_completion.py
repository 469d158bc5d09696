"""Completions as chunks."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.openai.completion import completion_to_chunk


def call(index: Any, name: str) -> dict[str, Any]:
    return {"index": index, "id": "c", "function": {"name": name, "arguments": "{}"}}


@pytest.mark.parametrize("indices", [[0, 0], [None, None], [5, 1]])
def test_calls_of_a_completion_are_numbered_by_position(indices: list[Any]) -> None:
    calls: list[Any] = [call(index, name) for index, name in zip(indices, "AB", strict=True)]
    completion = {"choices": [{"message": {"content": "x", "tool_calls": [*calls, "junk"]}}], "usage": {}}
    chunk = completion_to_chunk(completion)
    (choice,) = chunk["choices"]
    found = [(each["index"], each["function"]["name"]) for each in choice["message"]["tool_calls"]]
    assert found == [(0, "A"), (1, "B")]
    assert choice["message"]["content"] == "x"
    assert completion["choices"][0]["message"]["tool_calls"] == [*calls, "junk"], "the original is unchanged"


@pytest.mark.parametrize(
    "completion",
    [
        {"choices": []},
        {"choices": "x"},
        {"choices": [1]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"tool_calls": None}}]},
    ],
)
def test_completion_without_calls_is_unchanged(completion: dict[str, Any]) -> None:
    assert completion_to_chunk(completion) is completion
