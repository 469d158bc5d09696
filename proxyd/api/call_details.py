"""What is known of one finished call, for the dashboard: its recording, and what its translation altered.

Heads only, with secrets masked: bodies stay on disk (docs/observability.md).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxyd.recording.store import BadRecord, folders, heads_of
from proxyd.telemetry.call_record import CallRecord

__all__ = ["CallDetails"]

#: Calls whose alterations are remembered: as many as the feed shows.
_REMEMBERED = 200
_REQUEST_ID = re.compile(r"req_[A-Za-z0-9_]{1,64}\Z")


class CallDetails:
    """Finds the details of finished calls.

    Args:
        folder: where calls are recorded; None where nothing is kept.
        recorded: the setting ``record`` in force.
    """

    def __init__(self, folder: Path | None, recorded: Callable[[], str]) -> None:
        self._folder = folder
        self._recorded = recorded
        self._altered: OrderedDict[str, list[dict[str, str]]] = OrderedDict()

    def observe(self, record: CallRecord) -> None:
        """Remember what the translation of a finished call altered."""
        if record.alterations:
            self._altered[record.request_id] = [
                {"field": note.path, "what": note.what, "why": note.why} for note in record.alterations
            ]
            if len(self._altered) > _REMEMBERED:
                self._altered.popitem(last=False)

    def find(self, request_id: str) -> dict[str, Any] | None:
        """Return the details of a call, or None if `request_id` is not an id. Reads files."""
        if not _REQUEST_ID.match(request_id):
            return None
        heads, problem = self._heads(request_id)
        has_bodies = heads is not None and heads["call"].get("has_bodies") is True
        return {
            "request_id": request_id,
            "altered": self._altered.get(request_id, []),
            "record": heads,
            "problem": problem,
            "replay": f"claude-proxy replay {request_id}" if has_bodies else None,
        }

    def _heads(self, request_id: str) -> tuple[dict[str, Any] | None, str | None]:
        """Return the heads of the recording, or why there is none."""
        if self._folder is None:
            return None, "this daemon records no calls"
        found = [path for path in folders(self._folder) if path.name.partition("-")[2] == request_id]
        if found:
            try:
                return heads_of(found[-1]), None
            except BadRecord as exc:
                return None, str(exc)
        return None, {
            "off": "calls are not recorded: set 'record: failures' or 'record: all' under 'settings'",
            "failures": "only calls that failed or were retried are recorded: set 'record: all' under 'settings'",
        }.get(self._recorded(), "its recording is not there: it is being written, or newer ones replaced it")
