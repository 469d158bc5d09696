"""Batches of finished calls for the observers: access log, ledger, metrics, feed, recorder.

Observers are notified of several calls together, at most `_DELAY_S` after the first of them ended. Code and data of the
observers have left the processor's caches between two calls: notified one by one, calls took three times as long.
Before anything is shown that observers keep, `CallBatcher.flush` is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from proxyd.logs.setup import get_logger
from proxyd.telemetry.finished_call import FinishedCall

__all__ = ["CallBatcher", "Observer", "one_by_one"]

#: How long a call waits for others.
_DELAY_S = 0.05
#: The largest batch: some milliseconds of work.
_MAX_BATCH = 64

log = get_logger("observers")


#: Is notified of finished calls. Must not block.
Observer = Callable[[Sequence[FinishedCall]], None]


class CallBatcher:
    """Collects finished calls and notifies `observers`, in the order in which the calls ended."""

    def __init__(self) -> None:
        self.observers: tuple[Observer, ...] = ()
        self._waiting: list[FinishedCall] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: FinishedCall) -> None:
        """Add a finished call."""
        self._waiting.append(call)
        if len(self._waiting) >= _MAX_BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self.flush)

    def flush(self) -> None:
        """Notify the observers of all waiting calls now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        calls, self._waiting = self._waiting, []
        for observe in self.observers:
            try:
                observe(calls)
            except Exception:
                log.error("observer.crashed", calls=len(calls), exc_info=True)


def one_by_one(observe: Callable[[FinishedCall], None]) -> Observer:
    """Make an observer of a function of one call. Where it fails for one call, it is still called for the others."""

    def observe_all(records: Sequence[FinishedCall]) -> None:
        for record in records:
            try:
                observe(record)
            except Exception:
                log.error("observer.crashed", request_id=record.request_id, exc_info=True)

    return observe_all
