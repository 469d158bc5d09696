"""Whole messages: completions as chunks, events as messages."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
)
from proxyd.codecs.openai.completion import MessageCollector, completion_to_chunk


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


def collected(*events: StreamEvent) -> dict[str, Any]:
    collector = MessageCollector()
    for event in events:
        collector.add(event)
    return collector.message()


def test_events_become_a_message() -> None:
    message = collected(
        MessageStart({"id": "m", "content": [], "usage": {"input_tokens": 9, "output_tokens": 0}}),
        BlockStart(0, {"type": "thinking", "thinking": "", "signature": ""}),
        ThinkingDelta(0, "H"),
        ThinkingDelta(0, "m."),
        SignatureDelta(0, "s"),
        BlockStop(0),
        BlockStart(1, {"type": "text", "text": ""}),
        TextDelta(1, "a"),
        TextDelta(1, "b"),
        BlockStop(1),
        BlockStart(2, {"type": "tool_use", "id": "t", "name": "T", "input": {}}),
        JsonDelta(2, '{"p"'),
        JsonDelta(2, ":1}"),
        BlockStop(2),
        MessageDelta({"stop_reason": "tool_use"}, {"output_tokens": 5}),
        MessageStop(),
    )
    assert message == {
        "id": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "t", "name": "T", "input": {"p": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 9, "output_tokens": 5},
    }


@pytest.mark.parametrize("arguments", ['{"p":', "ls -la", "[1]", "null", '"text"'])
def test_arguments_that_are_no_object_become_unparsed_input(arguments: str) -> None:
    message = collected(
        BlockStart(0, {"type": "tool_use", "id": "t", "name": "T", "input": {}}),
        JsonDelta(0, arguments),
        BlockStop(0),
    )
    raw = {"raw": arguments, "len": len(arguments)}
    assert message["content"][0]["input"] == {"__unparsedToolInput": raw}
