"""Correct our estimates of a model's input tokens by what its upstream reports.

Every vendor counts with a tokenizer of its own, and none of them is here. But each response comes with the true number
of input tokens. Per model we fit

    reported = template + per_tool_token * tools + per_text_token * text

where ``tools`` and ``text`` are the two parts of our estimate. Learned apart, the fixed cost of small calls (the
server's template, tool definitions) does not raise the estimate of long ones. The fit is a ridge regression: with few
calls, or calls that do not determine all three, the coefficients stay near 0, 1 and 1. Older calls count less. On
conversations counted by three tokenizers the corrected estimate is within 5 % after ten calls
(``tests/unit/telemetry/test_token_calibration.py``).

The sums of the fit are kept in the state folder as ``calibration.json``: model names and nine numbers each, no prompt.
Daemons with a store share them (`proxyd.proxy.shared_learning`). Sums of calls of two daemons add up, so each sends
what its own calls have added, and no call is lost.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyd import jsonio
from proxyd.config.paths import replace_private_file
from proxyd.logs.setup import get_logger
from proxyd.telemetry.call_record import CallRecord

__all__ = ["FILE", "Calibration", "News"]

#: In the state folder.
FILE = "calibration.json"

#: Weight of an older call relative to the next one. The mix of text, code and tool results shifts as a session goes on;
#: ten calls back, a call counts a third.
_DECAY = 0.9
#: Coefficients before anything is known, in tokens and tokens per estimated token, and how far they usually are off.
_PRIOR = (0.0, 1.0, 1.0)
_DEVIATIONS = (300.0, 0.5, 0.35)
#: How far a single call is off the fit: a share of its tokens, and some tokens.
_NOISE_SHARE, _NOISE_TOKENS = 0.05, 5.0
#: Beyond this factor and these tokens something else was counted than was sent: pages that a server tool fetched.
_MAX_FACTOR, _MAX_EXTRA = 4.0, 2000
#: Models that are kept; the one that was unused for longest goes first.
_MAX_MODELS = 200
#: A change is saved within this time, and when the process ends.
_SAVE_S = 30.0

_FEATURES = range(3)
#: Sums of a model: the upper triangle of the weighted products of the features, their products with the reported
#: tokens.
_PAIRS = tuple((row, column) for row in _FEATURES for column in _FEATURES if row <= column)
_SUMS = len(_PAIRS) + len(_FEATURES)

log = get_logger("calibration")


@dataclass(frozen=True, slots=True)
class News:
    """What one daemon has learned of a model since it shared its sums last.

    Attributes:
        sums: its own, the news included; for whoever has none of the model.
        decay: how much less the calls before count now.
        added: the sums of the calls since then alone.
    """

    sums: list[float]
    decay: float
    added: list[float]

    def onto(self, sums: Any) -> list[float]:
        """Return shared sums with these news; one's own where the shared ones are missing or damaged."""
        if not _is_sound(sums):
            return _rounded(self.sums)
        return _rounded([self.decay * old + new for old, new in zip(sums, self.added, strict=True)])

    def after(self, earlier: News) -> News:
        """Return earlier news and these as one."""
        added = [self.decay * old + new for old, new in zip(earlier.added, self.added, strict=True)]
        return News(self.sums, earlier.decay * self.decay, added)


class Calibration:
    """The fits of all models.

    Args:
        path: where they are kept; None keeps them for this process alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._sums: dict[str, list[float]] = {} if path is None else _read(path)
        self._saving: asyncio.TimerHandle | None = None
        self._writing = threading.Lock()
        #: Decay and sums of the calls that other daemons do not know of, by model; None where nothing is shared.
        self._unshared: dict[str, tuple[float, list[float]]] | None = None

    def corrected(self, model: str, estimate: int, tools: int = 0) -> int:
        """Return `estimate` as the upstream's `model` would count it.

        Args:
            tools: the part of `estimate` that is tool definitions.
        """
        sums = self._sums.get(model)
        if sums is None:
            return estimate
        template, per_tool_token, per_text_token = _fit(sums)
        count = template + per_tool_token * tools + per_text_token * (estimate - tools)
        return max(1, round(min(max(count, estimate / _MAX_FACTOR), estimate * _MAX_FACTOR + _MAX_EXTRA)))

    def observe(self, record: CallRecord) -> None:
        """Learn from a finished call."""
        usage, estimate = record.usage, record.estimated_input_tokens
        reported = usage.total_input_tokens
        if record.outcome != "ok" or estimate is None or usage.is_estimated:
            return
        if not estimate / _MAX_FACTOR <= reported <= estimate * _MAX_FACTOR + _MAX_EXTRA:
            return
        tools = record.estimated_tool_tokens
        features = (1.0, float(tools), float(estimate - tools))
        weight = (_NOISE_SHARE * reported + _NOISE_TOKENS) ** -2
        news = [
            *(weight * features[row] * features[column] for row, column in _PAIRS),
            *(weight * feature * reported for feature in features),
        ]
        sums = self._sums.pop(record.upstream_model, None) or [0.0] * _SUMS
        self._sums[record.upstream_model] = [_DECAY * old + new for old, new in zip(sums, news, strict=True)]
        if self._unshared is not None:
            decay, before = self._unshared.get(record.upstream_model, _NOTHING)
            added = [_DECAY * old + new for old, new in zip(before, news, strict=True)]
            self._unshared[record.upstream_model] = decay * _DECAY, added
        self._trim()
        self._save_soon()

    def share(self) -> None:
        """Note from now on what other daemons do not know, which is all at first."""
        self._unshared = dict.fromkeys(self._sums, _NOTHING)

    def take_news(self) -> dict[str, News]:
        """Return what other daemons do not know, by model, and note only what comes from now on."""
        unshared, self._unshared = self._unshared or {}, {}
        return {model: News(self._sums[model], *unshared[model]) for model in unshared if model in self._sums}

    def give_back(self, news: Mapping[str, News]) -> None:
        """Note again what could not be shared."""
        later = self.take_news()
        joined = {
            **later,
            **{model: later[model].after(old) for model, old in news.items() if model in later},
        }
        for model, each in {**news, **joined}.items():
            assert self._unshared is not None, "take_news has made it"
            self._unshared[model] = each.decay, each.added

    def take_over(self, model: str, sums: Any) -> None:
        """Replace the sums of a model by those that all daemons share; what they do not know yet is added again."""
        if not _is_sound(sums):
            return
        decay, added = (self._unshared or {}).get(model, _NOTHING)
        self._sums[model] = [decay * old + new for old, new in zip(sums, added, strict=True)]
        self._trim()
        self._save_soon()

    def _trim(self) -> None:
        if len(self._sums) > _MAX_MODELS:
            oldest = next(iter(self._sums))
            del self._sums[oldest]
            if self._unshared is not None:
                self._unshared.pop(oldest, None)

    def _save_soon(self) -> None:
        if self._path is not None and self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(
                _SAVE_S, lambda: loop.run_in_executor(None, self._write, self._serialise())
            )

    def save(self) -> None:
        """Save unsaved changes, before the process ends."""
        if self._saving is not None:
            self._write(self._serialise())

    def _serialise(self) -> bytes:
        """Return the document to save, and cancel the timer: the next change sets another one."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        models = {name: _rounded(sums) for name, sums in self._sums.items()}
        return jsonio.dumps({"models": models})

    def _write(self, document: bytes) -> None:
        """Write the file. It runs in a thread, since a disk may be slow, except when the process ends."""
        path = self._path
        assert path is not None, "a timer is set only where there is a file"
        try:
            with self._writing:
                replace_private_file(path, document)
        except OSError as exc:
            log.warning("calibration.not_saved", file=str(path), why=exc.strerror)


#: Decay and sums where there was no call.
_NOTHING = 1.0, [0.0] * _SUMS


def _rounded(sums: list[float]) -> list[float]:
    return [float(f"{value:.7g}") for value in sums]


def _fit(sums: list[float]) -> list[float]:
    """Solve the normal equations of the ridge regression; they are positive definite because of the prior."""
    matrix = [[0.0] * len(_FEATURES) for _ in _FEATURES]
    for (row, column), value in zip(_PAIRS, sums, strict=False):
        matrix[row][column] = matrix[column][row] = value
    right = list(sums[len(_PAIRS) :])
    for feature in _FEATURES:
        precision = _DEVIATIONS[feature] ** -2
        matrix[feature][feature] += precision
        right[feature] += precision * _PRIOR[feature]
    for pivot in _FEATURES:
        for row in range(pivot + 1, len(_FEATURES)):
            factor = matrix[row][pivot] / matrix[pivot][pivot]
            right[row] -= factor * right[pivot]
            for column in range(pivot, len(_FEATURES)):
                matrix[row][column] -= factor * matrix[pivot][column]
    solution = [0.0] * len(_FEATURES)
    for row in reversed(_FEATURES):
        known = sum(matrix[row][column] * solution[column] for column in range(row + 1, len(_FEATURES)))
        solution[row] = (right[row] - known) / matrix[row][row]
    return solution


def _read(path: Path) -> dict[str, list[float]]:
    """Return the sums in the file; none from a file that cannot be read: they are soon learned again."""
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
    """Whether these can be the sums of a model."""
    if not isinstance(sums, list) or len(sums) != _SUMS:
        return False
    if not all(
        isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < 1e12 for each in sums
    ):
        return False
    # Of a positive semidefinite matrix; a damaged one could have no solution, or a senseless one.
    squares = dict(zip(_PAIRS, sums, strict=False))
    return all(
        squares[row, column] ** 2 <= 1.001 * squares[row, row] * squares[column, column] + 1e-9
        for row, column in _PAIRS
    ) and all(math.isfinite(each) and abs(each) < 1e5 for each in _fit(sums))
