"""The fuzzing target on its seeds, on what fuzzing has found, and on what hypothesis makes up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import examples
from tests.system.fuzz.stream_target import SEEDS, check

FINDINGS = sorted((Path(__file__).parent / "findings").glob("*.bin"))

_WORDS = (
    b'{"choices":[{"delta":{"content":"a"}}]}',
    b'{"choices":[{"delta":{"reasoning_content":"b"}}]}',
    b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}]}}]}',
    b'{"choices":[{"delta":{},"finish_reason":"stop"}]}',
    b'{"error":{"message":"no"}}',
    b'{"type":"message_stop"}',
    b"[DONE]",
    b"data: ",
    b"event: error",
    b"\n\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b": comment",
    b"<think>",
    b"\xef\xbb\xbf",
    b'"\\ud83d"',
)


@pytest.mark.parametrize(
    "data", [*SEEDS, *(path.read_bytes() for path in FINDINGS)], ids=lambda data: data[2:22]
)
def test_seeds_and_findings(data: bytes) -> None:
    check(data)
    for cut in range(8):
        check(data[:1] + bytes([cut]) + data[2:])


@settings(max_examples=examples(150), deadline=None)
@given(
    st.binary(min_size=2, max_size=2),
    st.lists(st.sampled_from(_WORDS) | st.binary(max_size=6), max_size=25).map(b"".join),
)
def test_any_bytes(head: bytes, stream: bytes) -> None:
    check(head + stream)
