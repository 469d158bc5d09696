"""Observers are notified of finished calls in batches and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from proxyd.telemetry import batcher as module
from proxyd.telemetry.batcher import CallBatcher, one_by_one
from proxyd.telemetry.finished_call import FinishedCall
from tests.support.observing import finished


async def until_observed(observed: list[str], count: int) -> None:
    async def enough() -> None:
        while len(observed) < count:
            await asyncio.sleep(0.005)

    await asyncio.wait_for(enough(), 30)


async def test_observers_are_notified_in_order_without_a_flush() -> None:
    observed: list[str] = []
    calls = CallBatcher()
    calls.observers = (one_by_one(lambda record: observed.append(record.request_id)),)
    calls.add(finished(request_id="a"))
    calls.add(finished(request_id="b"))
    assert observed == []
    await until_observed(observed, 2)
    calls.add(finished(request_id="c"))
    calls.flush()
    calls.flush()
    assert observed == ["a", "b", "c"]


async def test_full_batches_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DELAY_S", 3600)
    batches: list[int] = []
    calls = CallBatcher()
    calls.observers = (lambda records: batches.append(len(records)),)
    for _ in range(150):
        calls.add(finished())
    assert batches == [64, 64]
    calls.flush()
    assert batches == [64, 64, 22]


async def test_failure_of_an_observer_affects_no_other_call_or_observer() -> None:
    observed: list[str] = []

    def picky(record: FinishedCall) -> None:
        if record.request_id == "bad":
            raise KeyError("sk-secret-0123456789")
        observed.append(record.request_id)

    def broken(records: Sequence[FinishedCall]) -> None:
        raise RuntimeError("no")

    calls = CallBatcher()
    calls.observers = (broken, one_by_one(picky))
    with capture_logs() as lines:
        for name in ("good", "bad", "better"):
            calls.add(finished(request_id=name))
        calls.flush()
    assert observed == ["good", "better"]
    assert [line["event"] for line in lines] == ["observer.crashed", "observer.crashed"]
