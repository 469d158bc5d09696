"""One timer for all the clocks of a call.

A stream re-starts its clocks with every chunk. Doing that with a timer each would cost more than the rewriting; here it
is a number in a dict, and the one timer looks at the dict when it fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["TICK_S", "Deadlines"]

#: The loop may wake its timers early by a clock tick; what is due within that tick is due.
TICK_S = 0.001
#: The timer is never set for later than this, so that the deadlines that a call usually sets, one shorter than the
#: other, move it once. What it costs is a look at the dict every so often.
_LOOK_S = 10.0


class Deadlines:
    """Calls an action once its time has come. Each action has at most one deadline; setting it again moves it."""

    __slots__ = ("_armed_for", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[Callable[[], None], float] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    def set(self, action: Callable[[], None], delay_s: float) -> None:
        """Call `action` in `delay_s` seconds unless it is moved or cleared before; 0 means never."""
        if not delay_s:
            self._due.pop(action, None)
            return
        when = self._due[action] = self._loop.time() + delay_s
        if self._handle is None or when < self._armed_for:
            self._arm(when)

    def clear(self, action: Callable[[], None]) -> None:
        self._due.pop(action, None)

    def close(self) -> None:
        """Nothing will be called any more."""
        self._due.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_for = min(when, self._loop.time() + _LOOK_S)
        self._handle = self._loop.call_at(self._armed_for, self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._loop.time()
        due = [action for action, when in self._due.items() if when <= now + TICK_S]
        for action in due:
            del self._due[action]
        for action in due:
            action()
        if self._due and self._handle is None:
            self._arm(min(self._due.values()))
