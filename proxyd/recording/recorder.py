"""The recorder: one readable folder for each call that is kept, written by a thread of its own.

::

    trace, filled by the call ─▶ observe: is it kept? ─▶ queue (bounded) ─▶ thread ─▶ records/…
                                                            └─fails─▶ reported once, dropped, counted

The setting ``record`` says which calls are kept: ``all``, or ``failures``: every outcome but ``ok``, and calls that
needed another attempt. A client that left is a failure only where the upstream had been silent before: people press
Escape all day, and those calls would displace the interesting ones.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from proxyd.config.settings import Settings
from proxyd.logs.setup import get_logger
from proxyd.recording.serializer import files_of
from proxyd.recording.store import folder_name, prune, write_folder
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.finished_call import FinishedCall

__all__ = ["Recorder", "is_kept"]

log = get_logger("recorder")

#: Seconds of silence of an upstream after which a client that leaves is taken to have given up on it.
SILENCE_S = 10.0
#: Bytes of bodies that may wait to be written.
_MAX_WAITING_BYTES = 64 * 1024 * 1024
#: Pause between two records, so that many failures do not take the machine from the streams.
_PAUSE_S = 0.02
#: How long `Recorder.close` waits for what is left.
_CLOSE_S = 2.0


def is_kept(record: CallRecord | FinishedCall, which: str) -> bool:
    """Whether a finished call is kept under the setting ``record``."""
    if which == "off":
        return False
    if which == "all" or record.retries or record.fallback_from is not None:
        return True
    if record.outcome == "client_gone" and record.trace is not None:
        received = [flow.times[-1] for flow in (each.flow for each in record.trace.attempts) if flow.times]
        return (record.ended or 0.0) - max([record.begun, *received]) >= SILENCE_S
    return record.outcome != "ok"


class Recorder:
    """Keeps the last calls.

    Args:
        folder: of the records; created when the first one is written.
        settings: returns those in force.
    """

    def __init__(self, folder: Path, settings: Callable[[], Settings]) -> None:
        self.folder = folder
        self.trouble: str | None = None  # why the last record could not be written, one sentence
        self.dropped = 0  # records that were not written
        self._settings = settings
        self._waiting: deque[FinishedCall] = deque()
        self._is_busy = self._is_closed = False
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def observe(self, record: FinishedCall) -> None:
        """Queue a finished call if it is kept. Does not block."""
        trace, settings = record.trace, self._settings()
        if trace is None or not is_kept(record, settings.record):
            return
        with self._change:
            if self._is_closed:
                self.dropped += 1
                return
            self._waiting.append(record)
            # Not more than are kept: the first would be deleted at once.
            while len(self._waiting) > settings.record_max:
                self._waiting.popleft()
            while len(self._waiting) > 1 and _bytes_of(self._waiting) > _MAX_WAITING_BYTES:
                self._waiting.popleft()
                self.dropped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="records", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until everything is written; returns whether it was within that time."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting and not self._is_busy, timeout_s)

    def close(self) -> None:
        """Write what is left, for at most `_CLOSE_S`, and stop."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        self.flush()
        with self._change:
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _run(self) -> None:
        while True:
            with self._change:
                self._is_busy = False
                self._change.notify_all()
                self._change.wait_for(lambda: bool(self._waiting) or self._is_closed)
                if not self._waiting:
                    return
                record = self._waiting.popleft()
                self._is_busy = True
            self._write(record)
            if not self._is_closed:
                time.sleep(_PAUSE_S)

    def _write(self, record: FinishedCall) -> None:
        try:
            name = folder_name(record.started_at, record.request_id)
            write_folder(self.folder, name, files_of(record))
            prune(self.folder, self._settings().record_max)
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
            self._failed(
                f"{self.folder} cannot be written ({reason.lower()}): free space or correct its permissions"
            )
        except Exception:
            self.dropped += 1
            log.error("record.crashed", request_id=record.request_id, exc_info=True)
        else:
            if self.trouble is not None:
                log.info("record.recovered", folder=str(self.folder), records_lost=self.dropped)
                self.trouble = None

    def _failed(self, trouble: str) -> None:
        self.dropped += 1
        if self.trouble != trouble:
            log.error("record.write_failed", why=f"{trouble}; until then no call is recorded")
        self.trouble = trouble


def _bytes_of(records: deque[FinishedCall]) -> int:
    return sum(record.trace.kept_bytes for record in records if record.trace is not None)
