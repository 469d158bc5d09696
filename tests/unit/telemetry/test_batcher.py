"""Calls that are over, told of by the batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry import batcher as module
from proxyd.telemetry.batcher import Finished, one_by_one
from proxyd.telemetry.call_record import CallRecord
from tests.support.observing import finished


async def until_told(told: list[str], count: int) -> None:
    async def enough() -> None:
        while len(told) < count:
            await asyncio.sleep(0.005)

    await asyncio.wait_for(enough(), 5)


async def test_they_are_told_in_their_order_without_being_asked_for() -> None:
    told: list[str] = []
    calls = Finished()
    calls.observers = (one_by_one(lambda record: told.append(record.request_id)),)
    calls.add(finished(request_id="a"))
    calls.add(finished(request_id="b"))
    assert told == []
    await until_told(told, 2)
    calls.add(finished(request_id="c"))
    calls.flush()
    calls.flush()
    assert told == ["a", "b", "c"]


async def test_many_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GATHER_S", 3600)
    batches: list[int] = []
    calls = Finished()
    calls.observers = (lambda records: batches.append(len(records)),)
    for _ in range(150):
        calls.add(finished())
    assert batches == [64, 64]
    calls.flush()
    assert batches == [64, 64, 22]


async def test_what_fails_with_one_call_or_observer_fails_with_no_other() -> None:
    told: list[str] = []

    def picky(record: CallRecord) -> None:
        if record.request_id == "bad":
            raise KeyError("sk-secret-0123456789")
        told.append(record.request_id)

    def broken(records: Sequence[CallRecord]) -> None:
        raise RuntimeError("no")

    calls = Finished()
    calls.observers = (broken, one_by_one(picky))
    with capture_logs() as lines:
        for name in ("good", "bad", "better"):
            calls.add(finished(request_id=name))
        calls.flush()
    assert told == ["good", "better"]
    assert [line["event"] for line in lines] == ["observer.crashed", "observer.crashed"]


async def test_what_was_left_unread_is_read_before_anybody_is_told() -> None:
    seen: list[int] = []
    record = finished(usage=Usage())

    def settle() -> None:
        record.usage = Usage(output_tokens=7)

    record.settle = settle
    calls = Finished()
    calls.observers = (one_by_one(lambda each: seen.append(each.usage.output_tokens)),)
    calls.add(record)
    calls.flush()
    assert seen == [7]
