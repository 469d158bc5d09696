"""How the lag of the event loop is measured, on a loop with a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.daemon.loop_lag import LoopLag


class Loop:
    """The clock and the timers of an event loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        self.timers.append((when, action, arguments))

    def fire(self, *, late_s: float) -> None:
        when, action, arguments = self.timers.pop()
        self.now = when + late_s
        action(*arguments)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    found = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: found)
    return found


def test_the_lag_is_how_late_the_timer_fired(loop: Loop) -> None:
    beats: list[float] = []
    lag = LoopLag(lambda: beats.append(lag.last_s))
    lag.start()
    for late_s in (0.0, 0.25, 0.0):
        loop.fire(late_s=late_s)
    assert beats == [0.0, 0.25, 0.0]


def test_a_lag_that_is_felt_is_logged_once_a_minute(loop: Loop) -> None:
    lag = LoopLag()
    lag.start()
    with capture_logs() as lines:
        for late_s in (0.1, 2.0, 3.0, 61.0):
            loop.fire(late_s=late_s)
    assert [line["lag_ms"] for line in lines if line["event"] == "loop.late"] == [2000, 61000]
