"""Calibration of token estimates, learned from what upstreams report.

Every vendor counts with a tokenizer of its own, which we do not have. But each response reports the true number of
input tokens, and the error of our estimate is nearly the same factor throughout a conversation: so a model's ratio of
reported to estimated tokens corrects the next estimate. On conversations counted by three tokenizers the corrected
estimate is within 5 % after ten calls (``tests/unit/telemetry/test_token_calibration.py``).

The ratios are kept in the state folder as ``calibration.json``: model names and two numbers each, nothing of a prompt.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

from proxyd import jsonio
from proxyd.config.paths import make_private_folder
from proxyd.logs.setup import get_logger
from proxyd.telemetry.call_record import CallRecord

__all__ = ["FILE", "Calibration"]

#: In the state folder.
FILE = "calibration.json"

#: The weight of a call relative to the next one. The mix of text, code and tool results changes during a session; a
#: call that is ten calls old counts a third.
_DECAY = 0.9
#: The number of calls after which a ratio is taken to be within `_MARGIN`.
_ENOUGH_CALLS = 10
#: The largest error of an estimate after enough calls, and before. The ratios of the three tokenizers of the tests are
#: within the second, with a reserve for scripts and languages that are not among them.
_MARGIN, _FIRST_MARGIN = 0.05, 0.35
#: Below this many tokens the vendor's template outweighs the text.
_MIN_TOKENS = 100
#: Beyond this factor the upstream has counted something else, such as pages that a server tool has fetched.
_MAX_FACTOR = 4.0
#: Models kept; the least recently used one is evicted first.
_MAX_MODELS = 200
#: A change is written within this time, and when the daemon stops.
_SAVE_S = 30.0

log = get_logger("calibration")


class Calibration:
    """The ratios of all models.

    Args:
        path: the file; None keeps the ratios in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        #: upstream model -> [tokens reported, tokens estimated, calls], the first two with older calls decayed.
        self._sums: dict[str, list[float]] = {} if path is None else _read(path)
        self._saving: asyncio.TimerHandle | None = None
        self._writing = threading.Lock()

    def corrected(self, model: str, estimate: int) -> int:
        """Correct `estimate` by the ratio of `model`, a name of the upstream's."""
        sums = self._sums.get(model)
        return estimate if sums is None else max(1, round(estimate * sums[0] / sums[1]))

    def is_surely_above(self, limit: int, model: str, estimate: int) -> bool:
        """Whether a prompt has more than `limit` tokens even if `estimate` is as wrong as it may be."""
        sums = self._sums.get(model)
        margin = _MARGIN if sums is not None and sums[2] >= _ENOUGH_CALLS else _FIRST_MARGIN
        return self.corrected(model, estimate) * (1 - margin) > limit

    def observe(self, record: CallRecord) -> None:
        """Learn from a finished call."""
        usage, estimate = record.usage, record.estimated_input_tokens
        reported = usage.total_input_tokens
        if record.outcome != "ok" or estimate is None or usage.is_estimated:
            return
        if min(reported, estimate) < _MIN_TOKENS or not 1 / _MAX_FACTOR <= reported / estimate <= _MAX_FACTOR:
            return
        sums = self._sums.pop(record.upstream_model, None) or [0.0, 0.0, 0]
        self._sums[record.upstream_model] = [
            sums[0] * _DECAY + reported,
            sums[1] * _DECAY + estimate,
            sums[2] + 1,
        ]
        if len(self._sums) > _MAX_MODELS:
            del self._sums[next(iter(self._sums))]
        if self._path is not None and self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(
                _SAVE_S, lambda: loop.run_in_executor(None, self._write, self._take_changes())
            )

    def save(self) -> None:
        """Write unsaved changes now, before the process ends."""
        if self._saving is not None:
            self._write(self._take_changes())

    def _take_changes(self) -> bytes:
        """The document to write; a later change schedules another write."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        models = {name: [round(value, 1) for value in sums] for name, sums in self._sums.items()}
        return jsonio.dumps({"models": models})

    def _write(self, document: bytes) -> None:
        """Write the file: in a thread, since a disk may be slow, except for the last time."""
        path = self._path
        assert path is not None, "called only where there is a file"
        temporary = path.with_suffix(".new")
        try:
            with self._writing:
                make_private_folder(path.parent)
                temporary.write_bytes(document)
                os.replace(temporary, path)
        except OSError as exc:
            log.warning("calibration.not_saved", file=str(path), why=exc.strerror)


def _read(path: Path) -> dict[str, list[float]]:
    """Read the ratios; an invalid file is ignored, since they are soon learned again."""
    try:
        document: Any = jsonio.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, jsonio.JSONError) as exc:
        log.warning("calibration.not_read", file=str(path), why=str(exc))
        return {}
    models = document.get("models") if isinstance(document, dict) else None
    return (
        {name: sums for name, sums in models.items() if _is_sound(sums)} if isinstance(models, dict) else {}
    )


def _is_sound(sums: Any) -> bool:
    return (
        isinstance(sums, list)
        and len(sums) == 3
        and all(
            isinstance(each, (int, float)) and not isinstance(each, bool) and 0 < each < 1e12 for each in sums
        )
        and 1 / _MAX_FACTOR <= sums[0] / sums[1] <= _MAX_FACTOR
    )
