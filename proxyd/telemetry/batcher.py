"""Calls that are over, on their way to those who remember them: the log, the ledger, the metrics, the feed.

They are told of many calls at once, a twentieth of a second later. Between two calls a daemon does other things, and
what remembers a call is code and data that are not in the processor's caches then: one by one, calls cost three times
as much to remember as in a row. Whoever shows what is remembered calls `Finished.flush` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from proxyd.logs.setup import get_logger
from proxyd.telemetry.call_record import CallRecord

__all__ = ["Finished", "Observer", "one_by_one"]

#: How long a call waits for others. A log line's thread gathers, too; the ledger's rows wait ten times as long.
_GATHER_S = 0.05
#: So many are told of at once at the latest: some milliseconds' work.
_MAX_WAITING = 64

log = get_logger("finished")


#: Is told of calls that are over. Must not block.
Observer = Callable[[Sequence[CallRecord]], None]


class Finished:
    """Gathers calls and tells `observers` of them, in the order in which they ended."""

    def __init__(self) -> None:
        self.observers: tuple[Observer, ...] = ()
        self._waiting: list[CallRecord] = []
        self._keys: list[object] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: CallRecord, keys: object = None) -> None:
        """A call is over.

        Args:
            keys: those of the call. They are found by their values while they live (`proxyd.secret`).
        """
        self._waiting.append(record)
        self._keys.append(keys)
        if len(self._waiting) >= _MAX_WAITING:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self.flush)

    def flush(self) -> None:
        """Tell of all that wait, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        records, self._waiting = self._waiting, []
        prepare = one_by_one(CallRecord.settle_now), one_by_one(CallRecord.redact)
        for observe in (*prepare, *self.observers):
            try:
                observe(records)
            except Exception:
                log.error("observer.crashed", calls=len(records), exc_info=True)
        self._keys.clear()


def one_by_one(observe: Callable[[CallRecord], None]) -> Observer:
    """An observer that is told of each call by itself; where it fails at one, it is told of the others all the same."""

    def observe_all(records: Sequence[CallRecord]) -> None:
        for record in records:
            try:
                observe(record)
            except Exception:
                log.error("observer.crashed", request_id=record.request_id, exc_info=True)

    return observe_all
