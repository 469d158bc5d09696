"""The daemon, whose log lines of calls, ledger, metrics, feed and records a signal switches off, and on again.

Two processes that run the same code differ by more than all of these cost, for as long as they live. One process that
is asked with them and without them by turns does not. So that a turn pays for all that it causes, the ledger writes
sooner than it does else: in smaller transactions, which cost more.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from proxyd import ledger
from proxyd.app_status import Watchers
from proxyd.calls import CallRecord
from proxyd.cli.main import main
from proxyd.finished import Observer
from proxyd.records import Recorder

__all__ = ["SWITCH"]

#: The signal; the daemon itself listens to others, and no window changes its size here.
SWITCH = signal.SIGWINCH
_is_on = True
_observers = Watchers.observers.fget
_begin = Recorder.begin


def _switch(*_: object) -> None:
    global _is_on
    _is_on = not _is_on


def _switched(observe: Observer) -> Observer:
    def observe_if_on(records: Sequence[CallRecord]) -> None:
        if _is_on:
            observe(records)

    return observe_if_on


def _begin_if_on(recorder: Recorder, *arguments: Any) -> Any:
    return _begin(recorder, *arguments) if _is_on else None


if __name__ == "__main__":
    assert _observers is not None, "it is a property"
    Watchers.observers = property(  # type: ignore[assignment,method-assign]
        lambda watchers: tuple(map(_switched, _observers(watchers)))
    )
    Recorder.begin = _begin_if_on  # type: ignore[assignment,method-assign]
    ledger._BATCH_S = 0.02
    signal.signal(SWITCH, _switch)
    main()
