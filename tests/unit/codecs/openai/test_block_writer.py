"""Blocks of one message: order, waiting, alternation, signatures and ids."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from proxyd.codecs.anthropic.events import BlockStart, JsonDelta, SignatureDelta, StreamEvent
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.codecs.anthropic.thinking_signature import decode_signature
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.openai.block_writer import BlockWriter
from proxyd.errors import BadReply
from tests.support.text_calls import offered


class Writer(BlockWriter):
    """A writer whose warnings are kept."""

    __slots__ = ("warnings",)

    def __init__(self, *, holds_calls: bool = False, **context: Any) -> None:
        numbers = itertools.count(1)
        self.warnings: list[str] = []
        super().__init__(
            ResponseContext("asked", upstream_model="m", **context),
            lambda prefix: f"{prefix}{next(numbers)}",
            self.warnings.append,
            initial_usage=Usage(input_tokens=7),
            holds_calls=holds_calls,
        )


def call(
    arguments: str | None = None, name: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    return {"index": index, "function": {"name": name, "arguments": arguments}, **more}


def ended(writer: BlockWriter, *, is_cut: bool = False) -> list[StreamEvent]:
    """All events of the message, once it has ended."""
    writer.flush(is_cut=is_cut)
    writer.close_blocks()
    writer.finish({"stop_reason": "end_turn"}, Usage(7, 1))
    return writer.take_events()


def blocks(writer: BlockWriter, *, is_cut: bool = False) -> list[tuple[str, Any]]:
    """Type and content of each block of the message."""
    collector = MessageCollector()
    collector.add_all(ended(writer, is_cut=is_cut))
    content = collector.message()["content"]
    return [(block["type"], block.get("input", block.get(block["type"]))) for block in content]


def test_blocks_in_order_of_arrival() -> None:
    writer = Writer()
    writer.write_reasoning("Hm.", "reasoning_content")
    writer.add("text", "I ")
    writer.add("text", "read.")
    writer.add_fragment(call('{"p"', "Read", id="c1"))
    writer.add("text", "Done.")
    assert writer.is_waiting
    writer.add_fragment(call(":1}"))
    assert not writer.is_waiting
    assert blocks(writer) == [
        ("thinking", "Hm."),
        ("text", "I read."),
        ("tool_use", {"p": 1}),
        ("text", "Done."),
    ]


def test_call_opens_with_its_first_arguments() -> None:
    writer = Writer()
    writer.add_fragment(call("", "Read", id="c1"))
    assert writer.take_events() == []
    writer.add_fragment(call('{"p"'))
    assert any(isinstance(event, BlockStart) for event in writer.take_events())


@pytest.mark.parametrize(("is_cut", "expected"), [(False, [("tool_use", {})]), (True, [])])
def test_call_without_arguments(is_cut: bool, expected: list[Any]) -> None:
    writer = Writer()
    writer.add_fragment(call("", "Read", id="c1"))
    assert blocks(writer, is_cut=is_cut) == expected
    assert (writer.has_cut_call, writer.has_calls) == (is_cut, not is_cut)


def test_placeholder_is_kept_where_the_text_was_cut() -> None:
    writer = Writer()
    writer.add_fragment(call("{}", "Read", id="c1"))
    assert blocks(writer, is_cut=True) == [("tool_use", {})]


def test_short_reasoning_after_text_waits_for_a_call() -> None:
    writer = Writer()
    for number in range(3):
        writer.write_reasoning(f"t{number}", "reasoning")
        writer.add("text", f"w{number}")
    writer.add_fragment(call("{", "Read", id="c1"))
    writer.add_fragment(call("}"))
    assert blocks(writer) == [
        ("thinking", "t0"),
        ("text", "w0w1w2"),
        ("thinking", "t1t2"),
        ("tool_use", {}),
    ]


def test_short_reasoning_after_the_last_text_is_dropped() -> None:
    writer = Writer()
    writer.add("text", "a")
    writer.write_reasoning("t", "reasoning")
    assert blocks(writer) == [("text", "a")]
    assert writer.warnings == ["stream.reasoning_after_text"]


def test_long_reasoning_after_text_is_a_block() -> None:
    writer = Writer()
    writer.add("text", "a")
    for _ in range(50):
        writer.write_reasoning("0123456789", "reasoning")
    writer.add("text", "b")
    assert blocks(writer) == [("text", "a"), ("thinking", "0123456789" * 50), ("text", "b")]


def test_blank_text_waits_for_other_text() -> None:
    writer = Writer()
    writer.add("text", "\n")
    writer.write_reasoning("t", "reasoning")
    writer.add("text", "\n")
    assert writer.take_events()
    writer.write_reasoning("u", "reasoning")
    writer.add("text", "a")
    assert writer.index == 1
    writer = Writer()
    writer.add("text", " ")
    assert writer.has_content
    assert blocks(writer) == [("text", " ")]


def test_call_without_a_name_is_dropped_and_alone_an_error() -> None:
    writer = Writer()
    writer.add("text", "a")
    writer.add_fragment(call("{}"))
    assert blocks(writer) == [("text", "a")]
    assert writer.warnings == ["stream.tool_call_without_name"]
    writer = Writer()
    writer.add_fragment(call("{}"))
    with pytest.raises(BadReply):
        writer.flush()


def test_ids_are_unique() -> None:
    writer = Writer(used_ids=("c1",))
    for index, call_id in enumerate(("c1", "c2", "c2", None)):
        writer.add_fragment(call('{"p":1}', f"T{index}", index, id=call_id))
    starts = [event.block for event in ended(writer) if isinstance(event, BlockStart)]
    ids = [block["id"] for block in starts]
    assert ids[1] == "c2"
    assert len({*ids, "c1"}) == 5


def test_late_thought_signature_is_sent_before_its_call() -> None:
    writer = Writer(holds_calls=True)
    writer.add_fragment(call('{"p":1}', "Read", id="c1"))
    assert writer.take_events() == []
    writer.add_fragment({"index": 0, "extra_content": {"google": {"thought_signature": "s"}}})
    events = ended(writer)
    assert [event.block["type"] for event in events if isinstance(event, BlockStart)] == [
        "thinking",
        "tool_use",
    ]
    (signature,) = (event.signature for event in events if isinstance(event, SignatureDelta))
    decoded = decode_signature(signature)
    assert decoded is not None
    assert decoded.tool_signatures == {"c1": "s"}


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (['{"p"', ": 1}"], [{"p": 1}]),
        (['{"p"', ": 1}", "}"], [{"p": 1}]),
        (['{"p"', ": 2}"], [{"p": 1}, {"p": 2}]),
        (['{"p": 1}', '{"p": 2}'], [{"p": 1}, {"p": 2}]),
    ],
)
def test_second_object_without_id_is_a_call_unless_it_is_a_copy(
    second: list[str], expected: list[Any]
) -> None:
    writer = Writer()
    writer.add_fragment(call('{"p":1}', "Read", id="c1"))
    for arguments in second:
        writer.add_fragment(call(arguments))
    writer.add("text", "Done.")
    assert blocks(writer) == [*(("tool_use", value) for value in expected), ("text", "Done.")]


SPOILT = [
    ("Bash<|channel|>commentary", '{"command":"ls"}', "Bash", {"command": "ls"}),
    ("functions.Bash", '{"command":"ls"}', "Bash", {"command": "ls"}),
    ("Bash", '"command": "ls"}', "Bash", {"command": "ls"}),
    ("Bash", '"cmd": "ls"}', "Bash", '"cmd": "ls"}'),
    ("Shell<|channel|>json", '{"command":"ls"}', "Shell<|channel|>json", {"command": "ls"}),
]


@pytest.mark.parametrize(("name", "arguments", "wanted", "value"), SPOILT)
def test_spoilt_calls_of_offered_tools(name: str, arguments: str, wanted: str, value: Any) -> None:
    writer = Writer(tools=offered())
    writer.add_fragment(call("", name=name))
    for char in arguments:
        writer.add_fragment(call(char))
    events = ended(writer)
    (start,) = [event for event in events if isinstance(event, BlockStart)]
    assert start.block["name"] == wanted
    sent = "".join(event.partial_json for event in events if isinstance(event, JsonDelta))
    assert sent == value or json.loads(sent) == value
