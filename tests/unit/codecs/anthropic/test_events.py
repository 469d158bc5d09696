"""Events, their data and their frames."""

from __future__ import annotations

import json
from typing import Any

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
    data_of,
    encode_event,
    encode_events,
    event_from_data,
)
from proxyd.codecs.wire.sse import SSEDecoder

EVENTS: list[StreamEvent] = [
    MessageStart({"id": "msg_1", "content": []}),
    BlockStart(0, {"type": "text", "text": ""}),
    TextDelta(0, 'a "quoted"\nline, né \ud83d'),
    ThinkingDelta(1, "hm"),
    SignatureDelta(1, "s/+="),
    JsonDelta(2, '{"a":'),
    BlockStop(2),
    MessageDelta({"stop_reason": "end_turn", "stop_sequence": None}, {"output_tokens": 3}),
    MessageDelta({"stop_reason": "end_turn"}, {"output_tokens": 3}, {"applied_edits": []}),
    MessageStop(),
    Ping(),
    ErrorEvent({"type": "error", "error": {"type": "api_error", "message": "m"}}),
    Unknown({"type": "new_event", "x": [1]}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_frame_has_the_type_and_data_of_the_event(event: StreamEvent) -> None:
    (frame,) = SSEDecoder().feed(encode_event(event))
    data = json.loads(frame.data)
    assert data == data_of(event)
    assert frame.event.decode() == data["type"]
    assert event_from_data(data) == event


def test_events_are_encoded_one_after_the_other() -> None:
    assert encode_events(EVENTS) == b"".join(map(encode_event, EVENTS))


@pytest.mark.parametrize(
    "data",
    [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a", "more": 1}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        {"type": "content_block_stop", "index": 0, "more": 1},
        {"type": "content_block_stop", "index": "0"},
        {"type": "message_start", "message": None},
        {"type": "message_delta", "delta": {}, "usage": {}, "diagnostics": {}},
        {"type": "ping", "more": 1},
        {"type": "error", "error": "text"},
        {},
    ],
)
def test_data_that_no_class_can_carry_is_unknown_and_kept(data: dict[str, Any]) -> None:
    event = event_from_data(data)
    assert event == Unknown(data)
    assert data_of(event) is data
