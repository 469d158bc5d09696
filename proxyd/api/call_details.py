"""What is known of one finished call, for the dashboard: its recording or outline, and what its translation altered.

Heads only, with secrets masked: bodies stay on disk (docs/observability.md).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyd import jsonio
from proxyd.recording.key_masking import Masks
from proxyd.recording.serializer import outline_of
from proxyd.recording.store import BadRecord, folders, heads_of
from proxyd.redaction import masked
from proxyd.telemetry.finished_call import FinishedCall

__all__ = ["CallDetails"]

#: Calls that are remembered: as many as the feed shows.
_REMEMBERED = 200
#: Calls whose outline is larger are not remembered. Claude Code's have 5 KB.
_MAX_OUTLINE_BYTES = 32 * 1024
_REQUEST_ID = re.compile(r"req_[A-Za-z0-9_]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What is kept in memory of one call.

    Attributes:
        outline: JSON, as `proxyd.recording.serializer.outline_of` returns it; "" for none.
    """

    altered: tuple[dict[str, str], ...]
    outline: str


def _without_keys(outline: dict[str, Any]) -> str:
    """Return an outline as JSON without the keys in use; "" if it is too large."""
    text = jsonio.dumps(outline).decode()
    if len(text) > _MAX_OUTLINE_BYTES:
        return ""
    return text if masked(text) is text else jsonio.dumps(Masks().over_json(outline)).decode()


class CallDetails:
    """Finds the details of finished calls.

    Args:
        folder: where calls are recorded; None where nothing is kept.
        recorded: the setting ``record`` in force.
    """

    def __init__(self, folder: Path | None, recorded: Callable[[], str]) -> None:
        self._folder = folder
        self._recorded = recorded
        self._calls: OrderedDict[str, _Remembered] = OrderedDict()

    def observe(self, record: FinishedCall) -> None:
        """Remember a finished call. Its keys are masked now, while they are known."""
        text = "" if record.outline is None else _without_keys(outline_of(record, record.outline))
        altered = tuple(
            {"field": note.path, "what": note.what, "why": note.why} for note in record.alterations
        )
        self._calls[record.request_id] = _Remembered(altered, text)
        if len(self._calls) > _REMEMBERED:
            self._calls.popitem(last=False)

    def find(self, request_id: str) -> dict[str, Any] | None:
        """Return the details of a call, or None if `request_id` is not an id. Reads files."""
        if not _REQUEST_ID.match(request_id):
            return None
        remembered = self._calls.get(request_id)
        heads, problem = self._heads(request_id)
        if heads is None and remembered is not None and remembered.outline:
            heads, problem = Masks().over_json(jsonio.loads(remembered.outline.encode())), None
        has_bodies = heads is not None and heads["call"].get("has_bodies") is True
        return {
            "request_id": request_id,
            "altered": [] if remembered is None else list(remembered.altered),
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
            "off": "calls are not traced: set 'record: failures' or 'record: all' under 'settings'",
            "failures": "the call is not among the last ones, and only calls that failed or were retried are "
            "recorded: set 'record: all' under 'settings'",
        }.get(self._recorded(), "its recording is not there: it is being written, or newer ones replaced it")
