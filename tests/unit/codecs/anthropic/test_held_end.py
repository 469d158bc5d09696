"""The end of a stream is held back, however the frames arrive."""

from __future__ import annotations

import itertools
import json
from typing import Any

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
    encode_event,
    encode_events,
    encode_frame,
)
from proxyd.codecs.anthropic.held_end import HeldEnd

BODY = [
    MessageStart({"id": "m", "content": [], "usage": {}}),
    BlockStart(0, {"type": "tool_use", "id": "t", "name": "Bash", "input": {}}),
    JsonDelta(0, '{"command":'),
    JsonDelta(0, '"ls"}'),
    BlockStop(0),
]
END = [MessageDelta({"stop_reason": "tool_use", "stop_sequence": None}, {"output_tokens": 3}), MessageStop()]


@given(st.sets(st.integers(1, len(BODY) + len(END) - 1)))
def test_everything_but_the_end_passes_at_once(cuts: set[int]) -> None:
    held, passed = HeldEnd(), b""
    events = [*BODY, *END]
    for start, end in itertools.pairwise([0, *sorted(cuts), len(events)]):
        passed += held.feed(encode_events(events[start:end]))
    assert passed == encode_events(BODY)
    assert held.is_complete
    assert held.message()["content"][0]["input"] == {"command": "ls"}
    assert held.message()["stop_reason"] == "tool_use"
    assert held.release() == encode_events(END)
    assert held.release() == b""


def test_addition_goes_into_the_delta_and_changes_nothing_else() -> None:
    held = HeldEnd()
    data: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None, "new": 1},
        "usage": {"output_tokens": 3},
        "context_management": {"applied_edits": []},
    }
    ending = [encode_frame("message_delta", data), encode_event(Ping()), encode_event(MessageStop())]
    assert held.feed(encode_events(BODY) + b"".join(ending)) == encode_events(BODY)
    released = held.release({"safeguard_results": [1]})
    changed = {**data, "delta": {**data["delta"], "safeguard_results": [1]}}
    assert released == encode_frame("message_delta", changed) + ending[1] + ending[2]


def test_usage_amid_the_stream_is_not_the_end() -> None:
    held = HeldEnd()
    usage = MessageDelta({"stop_reason": None}, {"output_tokens": 1})
    assert held.feed(encode_events([*BODY[:3], usage, *BODY[3:]])) == encode_events(
        [*BODY[:3], usage, *BODY[3:]]
    )
    held.feed(encode_event(END[0]))
    assert not held.is_complete


def test_an_error_releases_what_is_held() -> None:
    held = HeldEnd()
    error = encode_event(ErrorEvent({"type": "error", "error": {"type": "api_error", "message": "x"}}))
    assert held.feed(encode_event(END[0])) == b""
    assert held.feed(error) == encode_event(END[0]) + error
    assert not held.is_complete
    assert json.loads(error.partition(b"data: ")[2])["type"] == "error"
