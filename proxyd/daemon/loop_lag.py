"""How late the event loop is: everything that blocks it shows here (docs/spec/operations.md#a8).

A timer asks to be called every half second and notes by how much it is called too late. `last_s` and `worst_s` feed the
metrics; a lag that a user could feel is logged, once a minute at most. `on_beat` is called each time the loop got round
to it, which is what a watchdog wants to hear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxyd.logs.setup import get_logger

__all__ = ["LoopLag"]

log = get_logger("loop")

_EVERY_S = 0.5
#: An event that is half a second late is seen by somebody who watches text appear.
_FELT_S = 0.5
_LOG_EVERY_S = 60.0


class LoopLag:
    """Watches the running loop from `start` to `stop`.

    Attributes:
        last_s: the latest lag, in seconds.
        worst_s: the largest since `take_worst` was called last.
    """

    def __init__(self, on_beat: Callable[[], None] = lambda: None) -> None:
        self.last_s = 0.0
        self.worst_s = 0.0
        self._on_beat = on_beat
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._logged_at = float("-inf")

    def start(self) -> None:
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_worst(self) -> float:
        """The largest lag since the last call of this."""
        worst, self.worst_s = self.worst_s, 0.0
        return worst

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _EVERY_S
        self._timer = loop.call_at(self._due, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self.last_s = max(0.0, now - self._due)
        self.worst_s = max(self.worst_s, self.last_s)
        if self.last_s > _FELT_S and now - self._logged_at > _LOG_EVERY_S:
            self._logged_at = now
            log.warning("loop.late", lag_ms=round(self.last_s * 1000))
        self._on_beat()
        self._arm(loop)
