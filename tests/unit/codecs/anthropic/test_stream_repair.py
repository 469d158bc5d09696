"""The client's stream follows the grammar and has the upstream's end, whatever hooks do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.anthropic.stream_repair import StreamRepair

ERROR = ErrorEvent({"type": "error", "error": {"type": "api_error", "message": "m"}})
START = MessageStart({"id": "msg_1", "content": []})
END = MessageDelta({"stop_reason": "end_turn", "stop_sequence": None}, {"output_tokens": 1})
TOOL_END = MessageDelta({"stop_reason": "tool_use", "stop_sequence": None}, {"output_tokens": 1})
TEXT = BlockStart(0, {"type": "text", "text": ""})
TOOL = BlockStart(1, {"type": "tool_use", "id": "t", "name": "n", "input": {}})
STREAM: list[StreamEvent] = [
    START,
    TEXT,
    Ping(),
    TextDelta(0, "a"),
    TextDelta(0, "b"),
    BlockStop(0),
    TOOL,
    JsonDelta(1, "{}"),
    BlockStop(1),
    TOOL_END,
    MessageStop(),
]

indices = st.integers(0, 3)
any_event: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([START, END, TOOL_END, MessageStop(), Ping(), ERROR, Unknown({"type": "new"})]),
    st.builds(
        BlockStart,
        indices,
        st.sampled_from([{"type": "text"}, {"type": "thinking"}, {"type": "tool_use"}, {}]),
    ),
    st.builds(TextDelta, indices, st.just("x")),
    st.builds(ThinkingDelta, indices, st.just("x")),
    st.builds(SignatureDelta, indices, st.just("x")),
    st.builds(JsonDelta, indices, st.just("x")),
    st.builds(BlockStop, indices),
    st.builds(
        lambda i: Unknown({"type": "content_block_delta", "index": i, "delta": {"type": "citations_delta"}}),
        indices,
    ),
)


def repaired(steps: list[tuple[StreamEvent, list[StreamEvent]]]) -> list[StreamEvent]:
    repair = StreamRepair().repair
    return [event for original, replacement in steps for event in repair(original, replacement)]


def check_legal(events: list[StreamEvent]) -> None:
    grammar = Grammar()
    for event in events:
        grammar.accept(event)
    assert grammar.has_ended


@given(st.lists(st.lists(any_event, max_size=3), min_size=len(STREAM), max_size=len(STREAM)))
def test_stream_is_legal_after_any_hook(replacements: list[list[StreamEvent]]) -> None:
    check_legal(repaired(list(zip(STREAM, replacements, strict=True))))


@given(st.integers(1, len(STREAM) - 1), st.lists(any_event, max_size=3))
def test_upstream_error_always_arrives(cut: int, replacement: list[StreamEvent]) -> None:
    steps: list[tuple[StreamEvent, list[StreamEvent]]] = [(event, [event]) for event in STREAM[:cut]]
    events = repaired([*steps, (ERROR, replacement)])
    check_legal(events)


def test_unchanged_events_are_passed_through() -> None:
    events = repaired([(event, [event]) for event in STREAM])
    assert all(a is b for a, b in zip(events, STREAM, strict=True))


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        pytest.param(
            {1: []},
            [
                START,
                Ping(),
                BlockStart(0, TOOL.block),
                JsonDelta(0, "{}"),
                BlockStop(0),
                TOOL_END,
                MessageStop(),
            ],
            id="block without a start is dropped, the next is renumbered",
        ),
        pytest.param({5: []}, STREAM, id="missing stop is restored before the next start"),
        pytest.param({6: []}, [*STREAM[:6], END, MessageStop()], id="stop reason changes without a tool use"),
        pytest.param(
            {3: [JsonDelta(0, "x"), TextDelta(7, "y"), TextDelta(0, "a")]},
            STREAM,
            id="deltas that do not fit are dropped",
        ),
        pytest.param({0: [], 9: [], 10: []}, STREAM, id="start and end of the message are restored"),
        pytest.param({3: [ERROR, TextDelta(0, "a")]}, [*STREAM[:3], ERROR], id="error ends the stream"),
        pytest.param(
            {1: [BlockStart(0, {"type": "thinking"}), ThinkingDelta(0, "t"), BlockStop(0), TEXT]},
            [
                START,
                BlockStart(0, {"type": "thinking"}),
                ThinkingDelta(0, "t"),
                BlockStop(0),
                BlockStart(1, TEXT.block),
                Ping(),
                TextDelta(1, "a"),
                TextDelta(1, "b"),
                BlockStop(1),
                BlockStart(2, TOOL.block),
                JsonDelta(2, "{}"),
                BlockStop(2),
                TOOL_END,
                MessageStop(),
            ],
            id="added block renumbers the others",
        ),
    ],
)
def test_repaired_stream(replaced: dict[int, list[StreamEvent]], expected: list[StreamEvent]) -> None:
    steps = [(event, replaced.get(place, [event])) for place, event in enumerate(STREAM)]
    assert repaired(steps) == expected


def test_stream_without_message_delta_ends() -> None:
    events: list[StreamEvent] = [START, TEXT, MessageStop()]
    assert repaired([(event, [event]) for event in events]) == [START, TEXT, BlockStop(0), MessageStop()]
