"""One timer for all the clocks of a call, and none while all of them are far off.

A stream re-starts its clocks with every chunk. Doing that with a timer each would cost more than the rewriting; here
it is a number in a dict. Most calls are over before any of their clocks comes near, so a call gets a timer only for
what is due before the next look, which is taken at all calls together every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from weakref import WeakKeyDictionary

__all__ = ["TICK_S", "Timers"]

#: The loop may wake its timers early by a clock tick; what is due within that tick is due.
TICK_S = 0.001
#: How often all calls are looked at.
_LOOK_S = 5.0


class Timers:
    """Calls an action once its time has come. Each action has at most one deadline; setting it again moves it.

    To be closed when nothing is to be called any more.
    """

    __slots__ = ("_armed_for", "_due", "_handle", "_look", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[Callable[[], None], float] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = inf
        look = _looks.get(loop)
        if look is None:
            look = _looks[loop] = _Look()
        self._look = look
        look.open.add(self)

    def set(self, action: Callable[[], None], delay_s: float) -> None:
        """Call `action` in `delay_s` seconds unless it is moved or cleared before; 0 means never."""
        if not delay_s:
            self._due.pop(action, None)
            return
        when = self._due[action] = self._loop.time() + delay_s
        if when < self._armed_for and when < self._look.until(self._loop):
            self._arm(when)

    def clear(self, action: Callable[[], None]) -> None:
        self._due.pop(action, None)

    def close(self) -> None:
        """Nothing will be called any more."""
        self._look.open.discard(self)
        self._due.clear()
        self._disarm()

    def arm_before(self, until: float) -> None:
        """Have a timer for what is due before `until`."""
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
        self.arm_before(self._look.until(self._loop))


class _Look:
    """The look at all calls of a loop: each then has a timer for what is due before the next one.

    It holds no reference to its loop, which would keep it in `_looks` for ever.
    """

    def __init__(self) -> None:
        self.open: set[Timers] = set()
        self._until: float | None = None  # the next look; None while nobody has asked for one

    def until(self, loop: asyncio.AbstractEventLoop) -> float:
        """When the next look is: what is due later can wait for it."""
        if self._until is None:
            self._until = loop.time() + _LOOK_S
            loop.call_at(self._until, self._take, loop)
        return self._until

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        self._until = None
        if self.open:
            until = self.until(loop)
            for each in tuple(self.open):
                each.arm_before(until)


_looks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Look] = WeakKeyDictionary()
