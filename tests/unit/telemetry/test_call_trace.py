"""The trace of a call: order, attempts, limits, and failures that cost no stream."""

from __future__ import annotations

import pytest

from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.call_trace import MAX_ATTEMPTS, MAX_BYTES, MAX_MARKS, CallTrace

REQUEST = ("POST", "http://u/v1")


def send(trace: CallTrace, times: int = 1, body: bytes = b"{}") -> None:
    for _ in range(times):
        trace.on_sent(REQUEST, {}, body, route="r", mode="direct")


def traced(*, keeps_bodies: bool = False) -> tuple[CallRecord, CallTrace]:
    trace = CallTrace()
    if keeps_bodies:
        trace.keep_bodies(b"")
    return CallRecord(request_id="req", trace=trace, events_per_chunk=1), trace


def passed(record: CallRecord, at: float, received: int, written: int) -> None:
    record.passed.extend((at - 0.25, at, received, written))


def test_chunks_keep_their_order() -> None:
    record, trace = traced()
    send(trace)
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
    assert trace.response.sizes == [20, 21, 22, 14, 23]
    assert list(trace.response.times)[:3] == [1.5, 2.5, 3.5]
    assert list(attempt.flow.times)[1:3] == [1.5, 2.5]
    assert not trace.has_failed
    assert not record.passed


@pytest.mark.parametrize("is_traced", [True, False])
def test_passed_chunks_count_in_the_record(is_traced: bool) -> None:
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


def test_chunks_belong_to_their_attempt() -> None:
    record, trace = traced()
    for at, received, written in ((1.5, 10, 20), (2.5, 11, 21)):
        send(trace)
        passed(record, at, received, written)
        record.add_up()
    assert [attempt.flow.sizes for attempt in trace.attempts] == [[10], [11]]
    assert trace.response.sizes == [20, 21]


def test_attempts_have_their_heads() -> None:
    record, trace = traced()
    learned = LearnedQuirks(max_tokens=5)
    trace.on_learned(learned)
    send(trace)
    trace.on_response_head(503, {"a": "b"}.items())
    send(trace)
    trace.on_response_head(200, {}.items())
    passed(record, 3.5, 10, 20)
    record.add_up()
    trace.on_end()
    first, last = trace.attempts
    assert (first.status, dict(first.response_headers)) == (503, {"a": "b"})
    assert (first.head_at or 0) >= first.sent_at
    assert (first.learned, last.learned) == (learned, None)
    assert (first.flow.is_whole, last.flow.is_whole) == (False, True)
    assert (last.request, last.size, last.route, last.mode) == (REQUEST, 2, "r", "direct")
    assert not trace.has_failed


def test_exceptions_are_noted_and_not_raised() -> None:
    _, trace = traced()
    trace.on_passed([1.0], [1.0, 2.0], [1.0])  # lists of different lengths
    assert not trace.has_failed, "no attempt yet, and the second direction fits"
    send(trace)
    trace.on_passed([1.0], [1.0, 2.0], [1.0])
    assert trace.has_failed
    assert len(trace.attempts) == 1


def test_repr_shows_no_headers() -> None:
    record, trace = traced()
    trace.on_sent(REQUEST, {"authorization": "Bearer sk-1"}, b"", route="r", mode="direct")
    assert "sk-1" not in f"{trace!r} {trace} {record!r}"


def test_attempts_beyond_the_limit_are_counted() -> None:
    record, trace = traced()
    send(trace, MAX_ATTEMPTS + 1)
    trace.on_response_head(200, {}.items())
    passed(record, 1.5, 10, 20)
    record.on_chunk(b"x")
    record.add_up()
    assert len(trace.attempts) == MAX_ATTEMPTS
    assert trace.further_attempts == 1
    assert {attempt.flow.size for attempt in trace.attempts} == {0}
    assert {attempt.status for attempt in trace.attempts} == {0}
    assert trace.response.sizes == [20]
    assert not trace.has_failed


@pytest.mark.parametrize("batch", [1, 64, MAX_MARKS + 100])
def test_chunks_beyond_the_limit_are_counted(batch: int) -> None:
    record, trace = traced()
    send(trace)
    for number in range(MAX_MARKS + 100):
        passed(record, float(number), 10, 20)
        if number % batch == batch - 1:
            record.add_up()
    record.add_up()
    (attempt,) = trace.attempts
    for flow, size in ((attempt.flow, 10), (trace.response, 20)):
        assert len(flow.times) == MAX_MARKS
        assert flow.count == MAX_MARKS + 100
        assert flow.size == size * (MAX_MARKS + 100)


def test_with_bodies_each_chunk_is_kept() -> None:
    record, trace = traced(keeps_bodies=True)
    send(trace)
    passed(record, 1.5, 3, 5)
    record.add_up()
    trace.on_chunk(b"abc")
    trace.on_written(b"ABCDE")
    assert (trace.attempts[0].flow.chunks, trace.response.chunks) == ([b"abc"], [b"ABCDE"])
    assert record.bytes_out == 5
    assert trace.kept_bytes == len(b"{}abcABCDE")


def test_equal_bodies_are_kept_once_and_large_ones_left_out() -> None:
    _, trace = traced(keeps_bodies=True)
    send(trace, 2, b"x" * 1000)
    assert trace.kept_bytes == 1000
    send(trace, body=b"y" * MAX_BYTES)
    assert [attempt.is_truncated for attempt in trace.attempts] == [False, False, True]
    assert trace.attempts[-1].body == b""
