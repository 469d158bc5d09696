"""Deadlines near and far, on the loop's own clock."""

from __future__ import annotations

import asyncio
import gc

import pytest

from proxyd.transport import timers as module
from proxyd.transport.timers import Timers


class Log:
    """Actions that note when they were called."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        self.times: dict[str, float] = {}

    def action(self, name: str) -> None:
        assert name not in self.times, f"{name} was called twice"
        self.times[name] = self.loop.time() - self.begun


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks so often that a test meets several of them."""
    monkeypatch.setattr(module, "_LOOK_S", 0.05)


async def test_each_action_is_called_when_it_is_due_and_once() -> None:
    log, deadlines = Log(), Timers(asyncio.get_running_loop())
    due = {"near": 0.01, "within the look": 0.04, "at the look": 0.05, "behind it": 0.12, "far": 0.31}
    for name, delay_s in due.items():
        deadlines.set(lambda name=name: log.action(name), delay_s)  # type: ignore[misc]
    await asyncio.sleep(0.5)
    deadlines.close()
    assert list(log.times) == list(due)
    for name, at in log.times.items():
        assert at >= due[name] - 0.002, f"{name} came too early"


async def test_a_deadline_that_is_moved_or_cleared_is_not_kept() -> None:
    log, deadlines = Log(), Timers(asyncio.get_running_loop())

    def moved() -> None:
        log.action("moved")

    def cleared() -> None:
        log.action("cleared")

    deadlines.set(moved, 0.02)
    deadlines.set(cleared, 0.02)
    deadlines.set(moved, 0.15)
    deadlines.clear(cleared)
    deadlines.set(cleared, 0)  # never
    await asyncio.sleep(0.3)
    assert list(log.times) == ["moved"]
    assert log.times["moved"] >= 0.148


async def test_none_is_called_behind_the_end() -> None:
    log, deadlines = Log(), Timers(asyncio.get_running_loop())
    deadlines.set(lambda: log.action("near"), 0.01)
    deadlines.set(lambda: log.action("far"), 0.12)
    deadlines.close()
    await asyncio.sleep(0.2)
    assert log.times == {}


async def test_an_action_may_set_itself_again() -> None:
    log, deadlines = Log(), Timers(asyncio.get_running_loop())
    calls: list[float] = []

    def again() -> None:
        calls.append(log.loop.time())
        deadlines.set(again, 0.03)

    deadlines.set(again, 0.03)
    await asyncio.sleep(0.4)
    deadlines.close()
    assert 5 <= len(calls) <= 13
    count = len(calls)
    await asyncio.sleep(0.1)
    assert len(calls) == count


async def test_a_loop_that_has_ended_is_let_go_of() -> None:
    def other() -> None:
        loop = asyncio.new_event_loop()
        deadlines = Timers(loop)
        deadlines.set(lambda: None, 0.2)
        loop.call_later(0.1, loop.stop)
        loop.run_forever()
        deadlines.close()
        loop.close()

    before = len(module._looks)
    await asyncio.to_thread(other)
    gc.collect()
    assert len(module._looks) <= before
