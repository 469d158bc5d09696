"""What is remembered is bounded, and belongs to one session."""

from __future__ import annotations

from proxyd.server_tools.auto_mode.memory import MAX_ENTRIES, MAX_SESSIONS, Memory, SessionMemory, digest
from proxyd.server_tools.auto_mode.safeguards import evaluated, no_verdict

ALLOWED = evaluated(is_flagged=False)


def test_a_session_has_its_own_memory_and_a_call_without_session_none() -> None:
    memory = Memory()
    memory.of("a").keep(b"k", ALLOWED)
    assert memory.of("a").verdict(b"k") == ALLOWED
    assert memory.of("b").verdict(b"k") is None
    memory.of(None).keep(b"k", ALLOWED)
    assert memory.of(None).verdict(b"k") is None


def test_what_is_no_verdict_is_not_kept() -> None:
    memory = SessionMemory()
    memory.keep(b"k", no_verdict("timeout"))
    assert memory.verdict(b"k") is None


def test_sessions_and_entries_are_bounded() -> None:
    memory = Memory()
    first = memory.of("0")
    for number in range(MAX_ENTRIES + 1):
        first.keep(str(number).encode(), ALLOWED)
        first.is_first(str(number).encode())
    assert first.verdict(b"0") is None
    assert first.verdict(str(MAX_ENTRIES).encode()) is not None
    assert first.is_first(b"0")
    for number in range(1, MAX_SESSIONS + 1):
        memory.of(str(number))
    assert memory.of("0") is not first


def test_digests_of_equal_values_are_equal() -> None:
    assert digest("a", {"x": [1, "2"]}) == digest("a", {"x": [1, "2"]})
    assert digest("a", {"x": 1}) != digest("a", {"x": True})
    assert digest("a", "b") != digest("ab")
