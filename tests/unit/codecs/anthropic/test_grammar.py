"""Legal and illegal orders of events."""

from __future__ import annotations

import pytest

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    ErrorEvent,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    Unknown,
)
from proxyd.codecs.anthropic.grammar import Grammar, IllegalEvent

START, STOP, DELTA = MessageStart({}), MessageStop(), MessageDelta({}, {})
ERROR, PING, UNKNOWN = ErrorEvent({}), Ping(), Unknown({"type": "new"})


def text(index: int) -> BlockStart:
    return BlockStart(index, {"type": "text"})


@pytest.mark.parametrize(
    "events",
    [
        [START, DELTA, STOP],
        [PING, START, PING, text(0), PING, TextDelta(0, "a"), BlockStop(0), PING, DELTA, PING, STOP],
        [
            START,
            text(0),
            BlockStop(0),
            BlockStart(1, {"type": "tool_use"}),
            JsonDelta(1, "{}"),
            BlockStop(1),
            DELTA,
            STOP,
        ],
        [
            START,
            BlockStart(0, {"type": "thinking"}),
            ThinkingDelta(0, "a"),
            SignatureDelta(0, "s"),
            BlockStop(0),
            DELTA,
            DELTA,
            STOP,
        ],
        [START, text(0), ERROR],
        [ERROR],
        [START, UNKNOWN, text(0), UNKNOWN, ERROR],
    ],
)
def test_legal_order(events: list[StreamEvent]) -> None:
    grammar = Grammar()
    for event in events:
        grammar.accept(event)
    assert grammar.has_ended


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([text(0)], "BlockStart in state START"),
        ([START, START], "MessageStart in state OPEN"),
        ([START, TextDelta(0, "a")], "TextDelta in state OPEN"),
        ([START, text(1)], "block 1 where 0 was due"),
        ([START, text(0), text(1)], "BlockStart in state BLOCK"),
        ([START, text(0), TextDelta(1, "a")], "TextDelta for block 1 while 0 is open"),
        ([START, text(0), JsonDelta(0, "a")], "JsonDelta in a text block"),
        ([START, text(0), BlockStop(1)], "BlockStop for block 1"),
        ([START, text(0), DELTA], "MessageDelta in state BLOCK"),
        ([START, STOP], "MessageStop in state OPEN"),
        ([START, DELTA, text(0)], "BlockStart in state DONE"),
        ([START, DELTA, STOP, PING], "Ping in state ENDED"),
        ([ERROR, ERROR], "ErrorEvent in state ENDED"),
    ],
)
def test_illegal_order_is_refused_without_a_change(events: list[StreamEvent], words: str) -> None:
    grammar = Grammar()
    for event in events[:-1]:
        grammar.accept(event)
    before = grammar.state
    with pytest.raises(IllegalEvent, match=words):
        grammar.accept(events[-1])
    assert grammar.state is before
