"""Whatever a hook does, the client's stream follows the grammar and has the upstream's end."""

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


def mended(steps: list[tuple[StreamEvent, list[StreamEvent]]]) -> list[StreamEvent]:
    mender = StreamRepair()
    return [event for original, made in steps for event in mender.repair(original, made)]


def check_legal(events: list[StreamEvent]) -> None:
    grammar = Grammar()
    for event in events:
        grammar.accept(event)
    assert grammar.has_ended


@given(st.lists(st.lists(any_event, max_size=3), min_size=len(STREAM), max_size=len(STREAM)))
def test_any_hook_leaves_a_legal_stream(made: list[list[StreamEvent]]) -> None:
    check_legal(mended(list(zip(STREAM, made, strict=True))))


@given(st.integers(1, len(STREAM) - 1), st.lists(any_event, max_size=3))
def test_an_error_of_the_upstream_always_arrives(cut: int, made: list[StreamEvent]) -> None:
    steps: list[tuple[StreamEvent, list[StreamEvent]]] = [(event, [event]) for event in STREAM[:cut]]
    events = mended([*steps, (ERROR, made)])
    check_legal(events)


def test_what_no_hook_changes_is_the_same_objects() -> None:
    events = mended([(event, [event]) for event in STREAM])
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
            id="a block without its start is gone, the next one counts from its place",
        ),
        pytest.param({5: []}, STREAM, id="a missing stop comes before the next start"),
        pytest.param({6: []}, [*STREAM[:6], END, MessageStop()], id="without its tool use a turn has ended"),
        pytest.param(
            {3: [JsonDelta(0, "x"), TextDelta(7, "y"), TextDelta(0, "a")]},
            STREAM,
            id="deltas that do not fit",
        ),
        pytest.param({0: [], 9: [], 10: []}, STREAM, id="beginning and end stay"),
        pytest.param({3: [ERROR, TextDelta(0, "a")]}, [*STREAM[:3], ERROR], id="an error is the end"),
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
            id="a block of the hook's own moves the others",
        ),
    ],
)
def test_what_becomes_of(replaced: dict[int, list[StreamEvent]], expected: list[StreamEvent]) -> None:
    steps = [(event, replaced.get(place, [event])) for place, event in enumerate(STREAM)]
    assert mended(steps) == expected


def test_an_upstream_that_forgets_the_message_delta_still_ends() -> None:
    events: list[StreamEvent] = [START, TEXT, MessageStop()]
    assert mended([(event, [event]) for event in events]) == [START, TEXT, BlockStop(0), MessageStop()]
