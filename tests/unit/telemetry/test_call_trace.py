"""What passed at once is noted in its order, and no more of it than there is room for."""

from __future__ import annotations

import pytest

from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.call_trace import (
    ANSWERED,
    BEGUN,
    ENDED,
    LEARNED,
    MAX_ATTEMPTS,
    MAX_MARKS,
    MOST_NOTES,
    SENT,
    CallTrace,
)


def sent(trace: CallTrace, times: int = 1) -> CallTrace:
    """As an exchange tells of it."""
    for _ in range(times):
        trace.append((SENT, 1.0, ("POST", "http://u/v1"), {}, 2, "r", "direct", None))
        if trace.room is not None or len(trace) > MOST_NOTES:
            trace.on_sent(b"{}")
    return trace


def traced(*, keeps_bodies: bool = False) -> tuple[CallRecord, CallTrace]:
    trace = CallTrace()
    if keeps_bodies:
        trace.keep_bodies(b"")
    return CallRecord(request_id="req", trace=trace, events_a_piece=1), trace


def passed(record: CallRecord, at: float, came: int, went: int) -> None:
    record.passed.extend((at - 0.25, at, came, went))


def test_pieces_are_noted_in_their_order() -> None:
    record, trace = traced()
    sent(trace)
    record.on_chunk(b"head")
    passed(record, 1.5, 10, 20)
    passed(record, 2.5, 11, 21)
    record.on_chunk(b"more of it")
    passed(record, 3.5, 12, 22)
    record.on_written(b"what it became")
    passed(record, 4.5, 13, 23)
    record.add_up()
    (attempt,) = trace.attempts
    assert attempt.flow.sizes == [4, 10, 11, 10, 12, 13]
    assert trace.answer.sizes == [20, 21, 22, 14, 23]
    assert list(trace.answer.times)[:3] == [1.5, 2.5, 3.5]
    assert list(attempt.flow.times)[1:3] == [1.5, 2.5]
    assert not trace.has_failed
    assert not record.passed


@pytest.mark.parametrize("is_traced", [True, False])
def test_what_passed_counts_in_the_record(is_traced: bool) -> None:
    record, _ = traced()
    if not is_traced:
        record.trace = None
    record.on_written(b"head")
    began_at = record.written_at
    for number in (1, 2, 3):
        passed(record, began_at + number, 10, 20)
    record.add_up()
    record.add_up()
    assert (record.events, record.bytes_out) == (3, 4 + 60)
    assert record.codec_s == pytest.approx(0.75)
    assert record.heard_at == record.written_at == began_at + 3


def test_what_passed_belongs_to_its_own_attempt() -> None:
    record, trace = traced()
    for at, came, went in ((1.5, 10, 20), (2.5, 11, 21)):
        sent(trace)
        passed(record, at, came, went)
        record.add_up()
    assert [attempt.flow.sizes for attempt in trace.attempts] == [[10], [11]]
    assert trace.answer.sizes == [20, 21]


def test_what_is_noted_is_there_for_who_asks() -> None:
    record, trace = traced()
    lessons = LearnedQuirks(max_tokens=5)
    trace.append((BEGUN, "keys", 7))
    trace.append((LEARNED, lessons))
    sent(trace)
    trace.append((ANSWERED, 2.0, 503, {"a": "b"}.items()))
    sent(trace)
    trace.append((ANSWERED, 3.0, 200, {}.items()))
    passed(record, 3.5, 10, 20)
    record.add_up()
    trace.append((ENDED,))
    assert (trace.holds, trace.body_size) == ("keys", 7)
    first, last = trace.attempts
    assert (first.status, first.head_at, dict(first.response_headers)) == (503, 2.0, {"a": "b"})
    assert (first.lessons, last.lessons) == (lessons, None)
    assert (first.flow.is_whole, last.flow.is_whole) == (False, True)
    assert (last.request, last.size, last.route, last.mode) == (("POST", "http://u/v1"), 2, "r", "direct")
    assert not trace, "all is sorted in"
    assert not trace.has_failed


def test_a_mistake_of_ours_costs_what_it_was_about() -> None:
    _, trace = traced()
    trace.append((ANSWERED, 2.0, 200, {}.items()))  # to nothing
    sent(trace)
    assert len(trace.attempts) == 1
    assert trace.has_failed


def test_it_shows_nothing_of_what_it_holds() -> None:
    record, trace = traced()
    trace.append(
        (SENT, 1.0, ("POST", "http://u/v1"), {"authorization": "Bearer sk-1"}, 2, "r", "direct", None)
    )
    assert "sk-1" not in f"{trace!r} {trace} {record!r}"


def test_of_attempts_beyond_those_that_are_kept_only_the_answer_is_noted() -> None:
    record, trace = traced()
    sent(trace, MAX_ATTEMPTS + 1)
    passed(record, 1.5, 10, 20)
    record.on_chunk(b"x")
    record.add_up()
    assert {attempt.flow.size for attempt in trace.attempts} == {0}
    assert trace.answer.sizes == [20]
    assert not trace.has_failed


def test_retries_that_bring_nothing_do_not_pile_up() -> None:
    _, trace = traced()
    sent(trace, 200)
    assert len(trace) < 40
    assert len(trace.attempts) == MAX_ATTEMPTS
    assert trace.further_attempts == 200 - MAX_ATTEMPTS


@pytest.mark.parametrize("at_once", [1, 64, MAX_MARKS + 100])
def test_beyond_so_many_marks_pieces_are_only_counted(at_once: int) -> None:
    record, trace = traced()
    sent(trace)
    for number in range(MAX_MARKS + 100):
        passed(record, float(number), 10, 20)
        if number % at_once == at_once - 1:
            record.add_up()
    record.add_up()
    (attempt,) = trace.attempts
    for flow, size in ((attempt.flow, 10), (trace.answer, 20)):
        assert len(flow.times) == MAX_MARKS
        assert flow.count == MAX_MARKS + 100
        assert flow.size == size * (MAX_MARKS + 100)


def test_with_bodies_each_piece_is_told_of_by_itself() -> None:
    record, trace = traced(keeps_bodies=True)
    sent(trace)
    passed(record, 1.5, 3, 5)
    record.add_up()
    trace.on_chunk(b"abc")
    trace.on_written(b"ABCDE")
    assert (trace.attempts[0].flow.pieces, trace.answer.pieces) == ([b"abc"], [b"ABCDE"])
    assert record.bytes_out == 5
