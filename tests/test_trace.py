"""What passed at once is noted in its order, and no more of it than there is room for."""

from __future__ import annotations

import pytest

from proxyd.codecs.openai_errors import ErrorContext
from proxyd.providers.base import ClientKeys, Clocks, UpstreamRequest
from proxyd.trace import MAX_ATTEMPTS, MAX_MARKS, MOST_PASSED, CallTrace

REQUEST = UpstreamRequest(url="http://u/v1", headers={}, body=b"{}", clocks=Clocks())


def sent(trace: CallTrace, times: int = 1) -> CallTrace:
    for _ in range(times):
        trace.on_sent(REQUEST, "r", "direct", ErrorContext())
    return trace


@pytest.fixture
def trace() -> CallTrace:
    return CallTrace(method="POST", path="/", headers={}, body=b"", keys=ClientKeys(), keeps_bodies=False)


def passed(trace: CallTrace, at: float, came: int, went: int) -> None:
    assert trace.passed is not None
    trace.passed.extend((at, came, went))


def test_pieces_are_noted_in_their_order(trace: CallTrace) -> None:
    sent(trace)
    trace.on_chunk(b"head")
    passed(trace, 1.5, 10, 20)
    passed(trace, 2.5, 11, 21)
    trace.on_chunk(b"more of it")
    passed(trace, 3.5, 12, 22)
    trace.on_written(b"what it became")
    passed(trace, 4.5, 13, 23)
    (attempt,) = trace.attempts
    assert attempt.flow.sizes == [4, 10, 11, 10, 12, 13]
    assert trace.answer.sizes == [20, 21, 22, 14, 23]
    assert list(trace.answer.times)[:3] == [1.5, 2.5, 3.5]
    assert list(attempt.flow.times)[1:3] == [1.5, 2.5]
    assert not trace.has_failed
    assert not trace.passed


def test_what_passed_belongs_to_its_own_attempt(trace: CallTrace) -> None:
    sent(trace)
    passed(trace, 1.5, 10, 20)
    sent(trace)
    passed(trace, 2.5, 11, 21)
    assert [attempt.flow.sizes for attempt in trace.attempts] == [[10], [11]]
    assert trace.answer.sizes == [20, 21]


def test_of_attempts_beyond_those_that_are_kept_only_the_answer_is_noted(trace: CallTrace) -> None:
    sent(trace, MAX_ATTEMPTS + 1)
    passed(trace, 1.5, 10, 20)
    trace.on_chunk(b"x")
    assert {attempt.flow.size for attempt in trace.attempts} == {0}
    assert trace.answer.sizes == [20]
    assert not trace.has_failed


def test_beyond_so_many_marks_pieces_are_only_counted(trace: CallTrace) -> None:
    sent(trace)
    for number in range(MAX_MARKS + 100):
        passed(trace, float(number), 10, 20)
        if len(trace.passed or ()) >= MOST_PASSED:
            trace.spread()
    (attempt,) = trace.attempts
    for flow, size in ((attempt.flow, 10), (trace.answer, 20)):
        assert len(flow.times) == MAX_MARKS
        assert flow.count == MAX_MARKS + 100
        assert flow.size == size * (MAX_MARKS + 100)


def test_with_bodies_nothing_is_noted_in_passing() -> None:
    trace = CallTrace(method="POST", path="/", headers={}, body=b"", keys=ClientKeys(), keeps_bodies=True)
    assert trace.passed is None
    sent(trace).on_chunk(b"abc")
    assert trace.attempts[0].flow.pieces == [b"abc"]
