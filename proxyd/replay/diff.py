"""Differences of JSON values, in a readable form.

Random ids cannot be equal. They are not ignored either: the replay draws its ids from `FreshIds`, and a fresh id
corresponds to one recorded id of its kind throughout, so that a response which mixes up two of them still differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Difference", "FreshIds", "differences", "one_line", "shown"]

#: Characters of a text that are shown before and after the first difference.
_SHOWN_BEFORE, _SHOWN_AFTER = 30, 60
#: The most characters of a value that is missing on the other side.
_SHOWN_VALUE = 120
_NOTHING = "(nothing)"
#: Characters that a terminal interprets; JSON escapes the others itself.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; `recorded` and `now` are shortened for display."""

    place: str
    recorded: str
    now: str


class FreshIds:
    """Draws predictable ids, and maps each of them to the recorded id that it corresponds to."""

    def __init__(self) -> None:
        self.drawn: set[str] = set()
        self._recorded: dict[str, str] = {}
        self._taken: set[str] = set()

    def new_id(self, prefix: str) -> str:
        found = f"{prefix}{len(self.drawn) + 1:024}"
        self.drawn.add(found)
        return found

    def stands_for(self, now: str, recorded: Any) -> bool:
        """Whether `now` is a fresh id and `recorded` the id that corresponds to it."""
        if now not in self.drawn or not isinstance(recorded, str):
            return False
        if now not in self._recorded:
            prefix = now[:-24]
            has_form = re.fullmatch(re.escape(prefix) + r"[A-Za-z0-9]{24}", recorded) is not None
            if not has_form or recorded in self._taken:
                return False
            self._recorded[now] = recorded
            self._taken.add(recorded)
        return self._recorded[now] == recorded


def differences(
    recorded: Any, now: Any, ids: FreshIds | None = None, place: str = ""
) -> Iterator[Difference]:
    """Yield all differences of two JSON values, in order."""
    level = [(place, recorded, now)]
    while level:  # not by recursion: values may be nested deeply
        place, recorded, now = level.pop(0)
        if isinstance(recorded, dict) and isinstance(now, dict):
            names = [*recorded, *(name for name in now if name not in recorded)]
            level[:0] = [
                (
                    f"{place}.{name}" if place else str(name),
                    recorded.get(name, _Missing),
                    now.get(name, _Missing),
                )
                for name in names
            ]
        elif isinstance(recorded, list) and isinstance(now, list):
            level[:0] = [
                (
                    f"{place}[{index}]",
                    recorded[index] if index < len(recorded) else _Missing,
                    now[index] if index < len(now) else _Missing,
                )
                for index in range(max(len(recorded), len(now)))
            ]
        elif not _is_equal(recorded, now) and not (
            isinstance(now, str) and ids is not None and ids.stands_for(now, recorded)
        ):
            yield Difference(place, *_excerpts(recorded, now))


class _Missing:
    """A value that one side does not have."""


def _is_equal(recorded: Any, now: Any) -> bool:
    # 1 is not true, and 1 is not 1.0 either: they are written differently.
    return type(recorded) is type(now) and bool(recorded == now)


def _excerpts(recorded: Any, now: Any) -> tuple[str, str]:
    if isinstance(recorded, str) and isinstance(now, str):
        pairs = enumerate(zip(recorded, now, strict=False))
        at = next((at for at, (one, other) in pairs if one != other), min(len(recorded), len(now)))
        return _around(recorded, at), _around(now, at)
    return shown(recorded), shown(now)


def _around(text: str, at: int) -> str:
    start, end = max(0, at - _SHOWN_BEFORE), at + _SHOWN_AFTER
    before, after = "…" if start else "", "…" if end < len(text) else ""
    return f"{before}{one_line(json.dumps(text[start:end], ensure_ascii=False))}{after}"


def shown(value: Any) -> str:
    """Format a value as one short line."""
    if value is _Missing:
        return _NOTHING
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    try:
        line = one_line(json.dumps(text, ensure_ascii=False))
    except RecursionError:
        return "(a deeply nested value)"
    return line if len(line) <= _SHOWN_VALUE else f"{line[:_SHOWN_VALUE]}…"


def one_line(text: str) -> str:
    """Escape the characters of `text` that a terminal interprets."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode("utf-8", "replace").decode()
