"""The daemon, whose log lines of calls, ledger, metrics, feed and records are switched off, and on again, as it works.

Two processes that run the same code differ by more than all of these cost, for as long as they live. One process that
works with them and without them by turns does not. `SWITCH` switches once: within a stream, what its record notes is
all that there is to switch. From one `TAKE_TURNS` to the next it switches by itself behind every second batch of calls
that it tells of. Then all are on, and `TURNS` has, as a JSON list, of each batch: whether they were on, whether it was
the second, its calls, and the CPU nanoseconds of the process since the batch before, less those of the ledger's
transactions, and of these. In a first batch the turn before still echoes: calls that were open, lines on their way. The
ledger's rows wait for longer than a turn: what they cost is told by sums.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proxyd.cli.main import main
from proxyd.daemon.server import Daemon
from proxyd.proxy.relay import Relay
from proxyd.telemetry.batcher import Observer
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.call_trace import CallTrace
from proxyd.telemetry.hub import TelemetryHub
from proxyd.telemetry.ledger import Ledger

__all__ = ["SWITCH", "TAKE_TURNS", "TURNS"]

#: Signals; the daemon itself listens to others. No window changes its size here, no socket has urgent data.
SWITCH, TAKE_TURNS = signal.SIGWINCH, signal.SIGURG
#: In the folder in which the daemon runs.
TURNS = "turns.json"

_is_on = True
_observers = TelemetryHub.observers.fget  # type: ignore[attr-defined]
_switch_recording = Daemon._switch_recording
_relays: list[Relay] = []
_on_passed = CallTrace.on_passed
_insert = Ledger._insert
_turns: list[tuple[bool, bool, int, int, int]] | None = None
_batches = 0
_written_ns = 0
_since = (0, 0)


def _switch(*_: object) -> None:
    _be_on(not _is_on)


def _be_on(is_on: bool) -> None:
    global _is_on
    _is_on = is_on
    for relay in _relays:
        relay.is_traced = is_on


def _take_turns(*_: object) -> None:
    global _turns, _batches
    _be_on(True)
    if _turns is None:
        _turns, _batches = [], 0
    else:
        Path(TURNS).write_text(json.dumps(_turns))
        _turns = None


def _switched(observe: Observer) -> Observer:
    def observe_if_on(records: Sequence[CallRecord]) -> None:
        if _is_on:
            observe(records)

    return observe_if_on


def _batch_is_over(records: Sequence[CallRecord]) -> None:
    """The last observer: all that a batch costs the loop has been done."""
    global _batches, _since
    now = time.process_time_ns(), _written_ns
    if _turns is not None:
        if _batches:
            written_ns = now[1] - _since[1]
            _turns.append(
                (_is_on, _batches % 2 == 0, len(records), now[0] - _since[0] - written_ns, written_ns)
            )
            if _batches % 2 == 0:
                _switch()
        _batches += 1
    _since = time.process_time_ns(), _written_ns


def _note_relay(daemon: Daemon, relay: Relay) -> None:
    _switch_recording(daemon, relay)
    _relays.append(relay)


def _on_passed_if_on(trace: CallTrace, *arguments: Any) -> None:
    if _is_on:
        _on_passed(trace, *arguments)


def _timed_insert(ledger: Ledger, *arguments: Any) -> None:
    global _written_ns
    begun = time.thread_time_ns()
    try:
        _insert(ledger, *arguments)
    finally:
        _written_ns += time.thread_time_ns() - begun


if __name__ == "__main__":
    assert _observers is not None, "it is a property"
    TelemetryHub.observers = property(  # type: ignore[assignment,method-assign]
        lambda observers: (*map(_switched, _observers(observers)), _batch_is_over)
    )
    Daemon._switch_recording = _note_relay  # type: ignore[assignment,method-assign]
    CallTrace.on_passed = _on_passed_if_on  # type: ignore[assignment,method-assign]
    Ledger._insert = _timed_insert  # type: ignore[method-assign]
    signal.signal(SWITCH, _switch)
    signal.signal(TAKE_TURNS, _take_turns)
    main()
