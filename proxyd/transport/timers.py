"""Timeouts of a call, with at most one event-loop timer for all of them.

A stream restarts its timeouts with every chunk. A loop timer for each would cost more than rewriting the chunk; here it
is a number in a dict. Most calls end long before any of their timeouts, so a call gets a loop timer only for what is
due before the next sweep, which checks all calls together every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from weakref import WeakKeyDictionary

__all__ = ["TICK_S", "Timers"]

#: The loop may run its timers early by a tick of the clock, so what is due within a tick is due now.
TICK_S = 0.001
#: Interval of sweeps.
_SWEEP_S = 5.0


class Timers:
    """Calls actions at their deadlines. Each action has at most one; setting it again moves it.

    To be closed at the end of the call.
    """

    __slots__ = ("_armed_for", "_due", "_handle", "_loop", "_sweep")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[Callable[[], None], float] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = inf
        sweep = _sweeps.get(loop)
        if sweep is None:
            sweep = _sweeps[loop] = _Sweep()
        self._sweep = sweep
        sweep.open.add(self)

    def set(self, action: Callable[[], None], delay_s: float) -> None:
        """Call `action` in `delay_s` seconds unless it is moved or cleared before; 0 means never."""
        if not delay_s:
            self._due.pop(action, None)
            return
        when = self._due[action] = self._loop.time() + delay_s
        if when < self._armed_for and when < self._sweep.until(self._loop):
            self._arm(when)

    def clear(self, action: Callable[[], None]) -> None:
        self._due.pop(action, None)

    def close(self) -> None:
        """Cancel all deadlines."""
        self._sweep.open.discard(self)
        self._due.clear()
        self._disarm()

    def arm_before(self, until: float) -> None:
        """Set a loop timer if an action is due before `until`."""
        when = min(self._due.values(), default=inf)
        if when < self._armed_for and when < until:
            self._arm(when)

    def _arm(self, when: float) -> None:
        self._disarm()
        self._armed_for = when
        self._handle = self._loop.call_at(when, self._fire)

    def _disarm(self) -> None:
        self._armed_for = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._disarm()
        now = self._loop.time()
        due = [action for action, when in self._due.items() if when <= now + TICK_S]
        for action in due:
            del self._due[action]
        for action in due:
            action()
        self.arm_before(self._sweep.until(self._loop))


class _Sweep:
    """Periodic check of all calls of a loop: each gets a loop timer for what is due before the next sweep.

    It has no reference to its loop, which would keep the loop in `_sweeps` for ever.
    """

    def __init__(self) -> None:
        self.open: set[Timers] = set()
        self._until: float | None = None  # the next sweep; None if none is scheduled

    def until(self, loop: asyncio.AbstractEventLoop) -> float:
        """Return when the next sweep is, and schedule it if need be."""
        if self._until is None:
            self._until = loop.time() + _SWEEP_S
            loop.call_at(self._until, self._run, loop)
        return self._until

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._until = None
        if self.open:
            until = self.until(loop)
            for each in tuple(self.open):
                each.arm_before(until)


_sweeps: WeakKeyDictionary[asyncio.AbstractEventLoop, _Sweep] = WeakKeyDictionary()
