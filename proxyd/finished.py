"""Calls that are over, on their way to those who remember them: the log, the ledger, the metrics, the feed.

They are told of many calls at once, a twentieth of a second later. Between two calls a daemon does other things, and
what remembers a call is code and data that are not in the processor's caches then: one by one, calls cost three times
as much to remember as in a row. Whoever shows what is remembered calls `Finished.flush` first.
"""

from __future__ import annotations

import asyncio

from proxyd.calls import CallObserver, CallRecord
from proxyd.logs import get_logger

__all__ = ["Finished"]

#: How long a call waits for others. A log line's thread gathers, too; the ledger's rows wait ten times as long.
_GATHER_S = 0.05
#: So many are told of at once at the latest: some milliseconds' work.
_MAX_WAITING = 64

log = get_logger("finished")


class Finished:
    """Gathers calls and tells `observers` of them, in the order in which they ended."""

    def __init__(self) -> None:
        self.observers: tuple[CallObserver, ...] = ()
        self._waiting: list[tuple[CallRecord, object]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: CallRecord, holds: object = None) -> None:
        """A call is over.

        Args:
            holds: whatever knows the keys of the call: they are found by their values while it lives (`proxyd.secret`).
        """
        self._waiting.append((record, holds))
        if len(self._waiting) >= _MAX_WAITING:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self.flush)

    def flush(self) -> None:
        """Tell of all that wait, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for record, _ in waiting:
            try:
                if record.settle is not None:
                    record.settle()
            except Exception:
                log.error("record.crashed", request_id=record.request_id, exc_info=True)
            record.settle = None
            for observer in self.observers:
                try:
                    observer(record)
                except Exception:
                    log.error("observer.crashed", request_id=record.request_id, exc_info=True)
