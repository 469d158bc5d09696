"""Deadlines near and far, on the event loop's clock."""

from __future__ import annotations

import asyncio
import gc

import pytest

from proxyd.transport import timers as module
from proxyd.transport.timers import Timers
from tests.support.raw_sockets import until


class Log:
    """Actions that record when they were called."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        self.times: dict[str, float] = {}

    def action(self, name: str) -> None:
        assert name not in self.times, f"{name} was called twice"
        self.times[name] = self.loop.time() - self.begun


@pytest.fixture(autouse=True)
def frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep so often that several sweeps fall into one test."""
    monkeypatch.setattr(module, "_SWEEP_S", 0.05)


async def test_each_action_is_called_when_it_is_due_and_once() -> None:
    log, timers = Log(), Timers(asyncio.get_running_loop())
    due = {"near": 0.01, "before the sweep": 0.04, "at the sweep": 0.05, "after it": 0.12, "far": 0.31}
    for name, delay_s in due.items():
        timers.set(lambda name=name: log.action(name), delay_s)  # type: ignore[misc]
    await until(lambda: len(log.times) == len(due))
    timers.close()
    assert list(log.times) == list(due)
    for name, at in log.times.items():
        assert at >= due[name] - 0.002, f"{name} came too early"


async def test_moved_or_cleared_deadline_does_not_fire() -> None:
    log, timers = Log(), Timers(asyncio.get_running_loop())

    def moved() -> None:
        log.action("moved")

    def cleared() -> None:
        log.action("cleared")

    timers.set(moved, 0.02)
    timers.set(cleared, 0.02)
    timers.set(moved, 0.15)
    timers.clear(cleared)
    timers.set(cleared, 0)  # never
    await until(lambda: "moved" in log.times)
    await asyncio.sleep(0.05)
    assert list(log.times) == ["moved"]
    assert log.times["moved"] >= 0.148


async def test_nothing_fires_after_close() -> None:
    log, timers = Log(), Timers(asyncio.get_running_loop())
    timers.set(lambda: log.action("near"), 0.01)
    timers.set(lambda: log.action("far"), 0.12)
    timers.close()
    await asyncio.sleep(0.2)
    assert log.times == {}


async def test_action_may_set_itself_again() -> None:
    log, timers = Log(), Timers(asyncio.get_running_loop())
    calls: list[float] = []

    def again() -> None:
        calls.append(log.loop.time())
        timers.set(again, 0.03)

    timers.set(again, 0.03)
    await until(lambda: len(calls) >= 5)
    timers.close()
    count = len(calls)
    await asyncio.sleep(0.1)
    assert len(calls) == count


async def test_closed_loop_is_released() -> None:
    def other() -> None:
        loop = asyncio.new_event_loop()
        timers = Timers(loop)
        timers.set(lambda: None, 0.2)
        loop.call_later(0.1, loop.stop)
        loop.run_forever()
        timers.close()
        loop.close()

    before = len(module._sweeps)
    await asyncio.to_thread(other)
    gc.collect()
    assert len(module._sweeps) <= before
