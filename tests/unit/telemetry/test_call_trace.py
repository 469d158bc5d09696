"""The trace of a call: order, attempts, limits, and failures that cost no stream."""

from __future__ import annotations

from typing import Any

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
    return CallRecord(request_id="req", trace=trace), trace


def passed(record: CallRecord, received: int, written: int) -> None:
    record.on_chunk(b"r" * received)
    record.on_written(b"w" * written)


def test_chunks_keep_their_order() -> None:
    record, trace = traced()
    send(trace)
    record.on_chunk(b"head")
    passed(record, 10, 20)
    passed(record, 11, 21)
    record.on_chunk(b"more of it")
    passed(record, 12, 22)
    record.on_written(b"what it became")
    passed(record, 13, 23)
    (attempt,) = trace.attempts
    assert attempt.flow.sizes == [4, 10, 11, 10, 12, 13]
    assert trace.response.sizes == [20, 21, 22, 14, 23]
    assert list(attempt.flow.times) == sorted(attempt.flow.times)
    assert not trace.has_failed


@pytest.mark.parametrize("is_traced", [True, False])
def test_written_bytes_count_in_the_record(is_traced: bool) -> None:
    record, _ = traced()
    if not is_traced:
        record.trace = None
    record.on_written(b"head")
    for _ in range(3):
        passed(record, 10, 20)
    assert record.bytes_out == 4 + 60


def test_chunks_belong_to_their_attempt() -> None:
    record, trace = traced()
    for received, written in ((10, 20), (11, 21)):
        send(trace)
        passed(record, received, written)
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
    passed(record, 10, 20)
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
    nothing: Any = None
    trace.on_chunk(nothing)
    assert not trace.has_failed, "no attempt yet"
    send(trace)
    trace.on_chunk(nothing)
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
    passed(record, 10, 20)
    record.on_chunk(b"x")
    assert len(trace.attempts) == MAX_ATTEMPTS
    assert trace.further_attempts == 1
    assert {attempt.flow.size for attempt in trace.attempts} == {0}
    assert {attempt.status for attempt in trace.attempts} == {0}
    assert trace.response.sizes == [20]
    assert not trace.has_failed


def test_chunks_beyond_the_limit_are_counted() -> None:
    record, trace = traced()
    send(trace)
    for _ in range(MAX_MARKS + 100):
        passed(record, 10, 20)
    (attempt,) = trace.attempts
    for flow, size in ((attempt.flow, 10), (trace.response, 20)):
        assert len(flow.times) == MAX_MARKS
        assert flow.count == MAX_MARKS + 100
        assert flow.size == size * (MAX_MARKS + 100)


def test_with_bodies_each_chunk_is_kept() -> None:
    record, trace = traced(keeps_bodies=True)
    send(trace)
    record.on_chunk(b"abc")
    record.on_written(b"ABCDE")
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
