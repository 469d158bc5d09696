"""The events of a message that a codec writes block by block."""

from __future__ import annotations

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
)
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.translation.message_writer import MessageWriter


def new_writer() -> MessageWriter:
    numbers = iter(range(1, 9))
    context = ResponseContext(model="m", tool_names={"short": "long"}, used_ids=("call_0",))
    return MessageWriter(context, lambda prefix: f"{prefix}{next(numbers)}", Usage(7, reasoning_tokens=3))


def test_blocks_follow_each_other_and_the_message_starts_once() -> None:
    writer = new_writer()
    writer.open("thinking")
    writer.write("hm")
    writer.close("sig")
    writer.open("text")
    writer.write("a")
    writer.open_tool_use("short", writer.client_id_of("call_1"))
    writer.write("{}")
    writer.write_redacted_thinking("data")
    writer.finish({"stop_reason": "tool_use"}, Usage(7, 2))
    start, *rest = writer.take_events()
    assert isinstance(start, MessageStart)
    assert start.message["usage"]["output_tokens"] == 0
    assert "output_tokens_details" not in start.message["usage"]
    assert rest == [
        BlockStart(0, {"type": "thinking", "thinking": "", "signature": ""}),
        ThinkingDelta(0, "hm"),
        SignatureDelta(0, "sig"),
        BlockStop(0),
        BlockStart(1, {"type": "text", "text": ""}),
        TextDelta(1, "a"),
        BlockStop(1),
        BlockStart(2, {"type": "tool_use", "id": "call_1", "name": "long", "input": {}}),
        JsonDelta(2, "{}"),
        BlockStop(2),
        BlockStart(3, {"type": "redacted_thinking", "data": "data"}),
        BlockStop(3),
        MessageDelta({"stop_reason": "tool_use"}, Usage(7, 2).to_anthropic()),
        MessageStop(),
    ]
    assert writer.emitted_chars == len("hm" + "a" + "long" + "{}")
    assert writer.take_events() == []


def test_ids_are_never_used_twice() -> None:
    writer = new_writer()
    ids = [writer.client_id_of(call_id) for call_id in ("call_0", "call_1", "call_1", "")]
    assert ids == ["toolu_1", "call_1", "toolu_2", "toolu_3"]


def test_a_message_without_blocks_is_a_message() -> None:
    writer = new_writer()
    writer.close()
    writer.finish({"stop_reason": "end_turn"}, Usage())
    assert [type(event) for event in writer.take_events()] == [MessageStart, MessageDelta, MessageStop]
