"""Events as whole messages."""

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
    encode_events,
    encode_frame,
)
from proxyd.codecs.anthropic.message_collector import MessageCollector


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
        MessageDelta({"stop_reason": "tool_use"}, {"output_tokens": 5}, {"applied_edits": []}),
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
        "context_management": {"applied_edits": []},
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


def test_frames_become_a_message() -> None:
    collector = MessageCollector()
    start = MessageStart({"id": "m", "content": [], "usage": {"input_tokens": 9}})
    collector.add_frames(
        encode_events([start, BlockStart(0, {"type": "text", "text": ""}), TextDelta(0, "é")])
    )
    collector.add_frames(b": a comment\n\n" + encode_events([BlockStop(0)]))
    delta = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {},
        "context_management": {},
    }
    collector.add_frames(encode_frame("message_delta", delta))
    message = collector.message()
    assert message["content"] == [{"type": "text", "text": "é"}]
    assert (message["stop_reason"], message["usage"]) == ("end_turn", {"input_tokens": 9})
