"""Event-loop lag: code that blocks the loop shows here (docs/spec/operations.md#a8).

A timer is due every half second; `last_s` is how late it fired and feeds the metrics. A lag that a user could feel is
logged, at most once a minute. `on_beat` is called at each firing, which also feeds the service manager's watchdog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxyd.logs.setup import get_logger

__all__ = ["LoopLag"]

log = get_logger("loop")

_EVERY_S = 0.5
#: Somebody who watches text appear notices an event that is half a second late.
_FELT_S = 0.5
_LOG_EVERY_S = 60.0


class LoopLag:
    """Measures the lag of the running loop from `start` to `stop`.

    Attributes:
        last_s: the latest lag, in seconds.
    """

    def __init__(self, on_beat: Callable[[], None] = lambda: None) -> None:
        self.last_s = 0.0
        self._on_beat = on_beat
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._logged_at = float("-inf")

    def start(self) -> None:
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _EVERY_S
        self._timer = loop.call_at(self._due, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self.last_s = max(0.0, now - self._due)
        if self.last_s > _FELT_S and now - self._logged_at > _LOG_EVERY_S:
            self._logged_at = now
            log.warning("loop.late", lag_ms=round(self.last_s * 1000))
        self._on_beat()
        self._schedule(loop)
