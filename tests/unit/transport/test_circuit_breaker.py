"""The circuit's states, with a clock that the test sets (docs/spec/operations.md#d4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import Overloaded
from proxyd.transport.circuit_breaker import Circuits, CircuitState, State

ORIGIN = "https://api.example.com"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[tuple[str, State]]:
    return []


@pytest.fixture
def circuits(clock: Clock, changes: list[tuple[str, State]]) -> Circuits:
    return Circuits(5, 30, clock, on_change=lambda seen: changes.append((seen.origin, seen.state)))


def fail(circuits: Circuits, times: int) -> None:
    for _ in range(times):
        circuits.admit(ORIGIN)
        circuits.failed(ORIGIN, "connection refused")


def retry_after(circuits: Circuits) -> int:
    with pytest.raises(Overloaded) as caught:
        circuits.admit(ORIGIN)
    assert "api.example.com" in caught.value.message
    seconds = int(caught.value.headers["retry-after"])
    assert ("x-should-retry" in caught.value.headers) is (seconds > 8)
    return seconds


@pytest.mark.statement("D4")
def test_five_failures_in_a_row_open_the_circuit(
    circuits: Circuits, clock: Clock, changes: list[tuple[str, State]]
) -> None:
    fail(circuits, 4)
    circuits.succeeded(ORIGIN)
    fail(circuits, 5)
    assert retry_after(circuits) == 30
    clock.now_s += 12.5
    assert retry_after(circuits) == 18
    assert circuits.states() == [CircuitState(ORIGIN, State.OPEN, 5, 17.5, "connection refused")]
    circuits.admit("https://another.example.com")
    assert changes == [(ORIGIN, State.OPEN)]


def test_refused_call_names_the_last_cause(circuits: Circuits) -> None:
    fail(circuits, 5)
    with pytest.raises(Overloaded, match=r"try again in 30 s; the last failure: connection refused$"):
        circuits.admit(ORIGIN)


@pytest.mark.statement("D4")
def test_trial_closes_the_circuit_or_opens_it_for_longer(
    circuits: Circuits, clock: Clock, changes: list[tuple[str, State]]
) -> None:
    fail(circuits, 5)
    for opening in range(2, 14):
        clock.now_s += 300
        circuits.admit(ORIGIN)
        assert retry_after(circuits) == 1, "one trial at a time"
        circuits.failed(ORIGIN)
        assert retry_after(circuits) == min(30 * opening, 300)
    clock.now_s += 300
    circuits.admit(ORIGIN)
    circuits.succeeded(ORIGIN)
    circuits.admit(ORIGIN)
    assert circuits.states() == []
    assert changes[-1] == (ORIGIN, State.CLOSED)
    fail(circuits, 5)
    assert retry_after(circuits) == 30, "a success starts the count of openings anew"


@pytest.mark.statement("D4")
def test_after_a_cancelled_trial_the_next_call_is_the_trial(circuits: Circuits, clock: Clock) -> None:
    fail(circuits, 5)
    clock.now_s += 30
    circuits.admit(ORIGIN)
    circuits.abandoned(ORIGIN)
    circuits.admit(ORIGIN)
    assert retry_after(circuits) == 1


@pytest.mark.statement("D4")
def test_calls_begun_before_the_opening_do_not_prolong_it(circuits: Circuits) -> None:
    for _ in range(9):
        circuits.admit(ORIGIN)
    for _ in range(9):
        circuits.failed(ORIGIN)
    assert retry_after(circuits) == 30


def test_threshold_of_zero_never_opens() -> None:
    circuits = Circuits(0, 30, Clock())
    fail(circuits, 100)
    assert circuits.states() == []


@given(st.lists(st.sampled_from(["succeeded", "failed", "abandoned", "wait"]), max_size=60))
def test_every_circuit_can_close_again(history: list[str]) -> None:
    clock = Clock()
    circuits = Circuits(3, 30, clock)
    for step in history:
        if step == "wait":
            clock.now_s += 40
            continue
        try:
            circuits.admit(ORIGIN)
        except Overloaded:
            continue
        getattr(circuits, step)(ORIGIN)
    clock.now_s += 300
    circuits.admit(ORIGIN)
    circuits.succeeded(ORIGIN)
    assert circuits.states() == []


def test_circuit_of_a_server_on_this_machine_is_open_for_a_second_at_most(clock: Clock) -> None:
    circuits = Circuits(5, 30, clock)
    for _ in range(20):
        for _ in range(5):
            circuits.failed("http://127.0.0.1:8080")
        with pytest.raises(Overloaded):
            circuits.admit("http://127.0.0.1:8080")
        clock.now_s += 1
        circuits.admit("http://127.0.0.1:8080")


@pytest.mark.parametrize("is_permanent", [True, False])
def test_clients_do_not_retry_where_a_repeated_call_would_fail(clock: Clock, is_permanent: bool) -> None:
    origin = "http://127.0.0.1:8000"
    circuits = Circuits(1, 30.0, clock)
    circuits.admit(origin)
    circuits.failed(origin, "connection refused", is_permanent=is_permanent)
    with pytest.raises(Overloaded) as caught:
        circuits.admit(origin)
    assert (caught.value.headers.get("x-should-retry") == "false") is is_permanent
    assert caught.value.headers["retry-after"] == "1"
