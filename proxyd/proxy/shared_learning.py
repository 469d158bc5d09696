"""What daemons have learned of upstreams, shared by the store: quirks, windows, and the calibration of token counts.

Nothing waits for the store. Each daemon works on what it has in memory, and every few seconds sends what its calls
have changed and takes over what others have stored. Of quirks and windows the last one learned counts. Calibrations are
sums, to which each daemon adds what its own calls have added; if the answer of the store was lost, these are added
twice, which changes a fit by less than the next call does.

The store gets what ``learned.json`` and ``calibration.json`` have: digests of entries, quirks, sizes, dates, names of
models and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import time
from typing import Any

from proxyd import jsonio
from proxyd.proxy.learned_file import LearnedQuirkFile
from proxyd.store.interface import LearnedRow, LearningStore
from proxyd.telemetry.token_calibration import Calibration, News

__all__ = ["SharedLearning"]

_QUIRKS, _WINDOW, _CALIBRATION = "quirks", "window", "calibration"
#: With a glob as alias, a client may call a model by any name; not all of them fit a database.
_MAX_NAME_CHARS = 200


class SharedLearning:
    """The exchange of one daemon.

    Args:
        now: Unix time.
    """

    def __init__(
        self,
        store: LearningStore,
        learned: LearnedQuirkFile,
        calibration: Calibration,
        now: Callable[[], float] = time,
    ) -> None:
        self._store, self._learned, self._calibration, self._now = store, learned, calibration, now
        self._position = 0
        #: What the store has, by kind and name.
        self._stored: dict[tuple[str, str], str] = {}
        #: `LearnedQuirkFile.changes` of what was sent last; the first time all is sent.
        self._sent_changes: int | None = None
        self._sent_news: dict[str, News] = {}
        calibration.share()

    def begin(self) -> Callable[[], Callable[[], None]]:
        news = [*self._changed(), *self._calibrations()]
        after = self._position

        def exchange() -> Callable[[], None]:
            if news:
                self._store.merge_learned(news, _merge)
            position, found = self._store.learned(after)
            parsed = [(row, _parsed(row.value)) for row in found]
            return lambda: self._take_over(position, parsed)

        return exchange

    def leave(self) -> Callable[[], Callable[[], None]]:
        return self.begin()

    def fail(self) -> None:
        """Send again what may not be stored."""
        self._sent_changes = None
        self._calibration.give_back(self._sent_news)
        self._sent_news = {}

    def _changed(self) -> Iterator[LearnedRow]:
        """The quirks and windows that the store does not have."""
        if self._sent_changes == self._learned.changes:
            return
        self._sent_changes = self._learned.changes
        for row in self._rows():
            if self._stored.get((row.kind, row.name)) != row.value:
                yield row

    def _rows(self) -> Iterator[LearnedRow]:
        store = self._learned.store
        document = store.to_document()
        for row in document["learned"]:
            kind = f"{row['tools']:d}{row['thinking']:d}"
            yield LearnedRow(_QUIRKS, f"{row['entry']}:{kind}", _text(row))
        for row in document["windows"]:
            yield LearnedRow(_WINDOW, row["entry"], _text(row))
        for kind, entry in self._stored:
            if kind == _WINDOW and store.sizes.is_refuted(entry):
                refuted = _parsed(self._stored[kind, entry])
                if refuted is not None and refuted.get("window") is not None:
                    at = int(store.sizes.at(entry))
                    yield LearnedRow(kind, entry, _text({"entry": entry, "window": None, "at": at}))

    def _calibrations(self) -> Iterator[LearnedRow]:
        self._sent_news = self._calibration.take_news()
        for model, news in self._sent_news.items():
            # Not those with lone surrogates either, which no database holds.
            if len(model) <= _MAX_NAME_CHARS and model.isprintable():
                value = {"sums": news.sums, "decay": news.decay, "added": news.added}
                yield LearnedRow(_CALIBRATION, model, _text(value))

    def _take_over(self, position: int, found: list[tuple[LearnedRow, dict[str, Any] | None]]) -> None:
        if position < self._position:  # of another database, which has not what the one before had
            self._stored.clear()
            self.fail()
            self._calibration.share()
        self._position, self._sent_news = position, {}
        quirks: list[dict[str, Any]] = []
        windows: list[dict[str, Any]] = []
        own = {row.name: _at(row.value) for row in self._rows() if row.kind == _QUIRKS} if found else {}
        has_sent_all = self._sent_changes == self._learned.changes
        for row, value in found:
            self._stored[row.kind, row.name] = row.value
            if value is None:
                continue
            if row.kind == _CALIBRATION:
                self._calibration.take_over(row.name, value.get("sums"))
                continue
            at, own_at = _at(row.value), own.get(row.name, -1)
            if row.kind == _WINDOW:
                own_at = int(self._learned.store.sizes.at(row.name))
            if at > own_at or (at == own_at and has_sent_all):
                (quirks if row.kind == _QUIRKS else windows).append(value)
        if quirks or windows:
            self._learned.store.load({"learned": quirks, "windows": windows}, self._now())
            self._learned.write()


def _merge(row: LearnedRow, stored: str | None) -> str | None:
    """Return what is to be stored; see `proxyd.store.interface.Merge`."""
    old = {} if stored is None else _parsed(stored) or {}
    if row.kind != _CALIBRATION:
        return row.value if stored is None or _at(row.value) >= _at(stored) else None
    value = _parsed(row.value) or {}
    return _text({"sums": News(value["sums"], value["decay"], value["added"]).onto(old.get("sums"))})


def _text(value: dict[str, Any]) -> str:
    return jsonio.dumps(value).decode()


def _parsed(text: str) -> dict[str, Any] | None:
    """Return a value of the store; None where another version wrote something else."""
    try:
        value = jsonio.loads(text.encode())
    except jsonio.JSONError:
        return None
    return value if isinstance(value, dict) else None


def _at(text: str) -> int:
    """Return when a quirk or a window was learned, in seconds since the epoch."""
    at = (_parsed(text) or {}).get("at")
    return at if type(at) is int else -1
