"""Notes on what a translation dropped or altered, for the debug log and the dry run. They never hold content."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Note", "Notes"]


class Note(NamedTuple):
    """One change: the field's path in the client's request, what was done, why, and how often."""

    path: str
    what: str
    why: str
    times: int = 1


#: Most notes of one request; what comes after them is counted together.
_MAX_NOTES = 100
_OTHERS = "other fields", "dropped or altered", f"a request gets no more than {_MAX_NOTES} notes"


class Notes:
    """Collects notes; equal ones are counted."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, path: str, what: str, why: str, times: int = 1) -> None:
        key = path, what, why
        if len(self._counts) >= _MAX_NOTES and key not in self._counts:
            key = _OTHERS
        self._counts[key] = self._counts.get(key, 0) + times

    def add_all(self, other: Notes) -> None:
        """Add all notes of another collection."""
        for key, times in other._counts.items():
            self.add(*key, times)

    def take(self) -> tuple[Note, ...]:
        """Return all notes in the order of their first occurrence."""
        return tuple(Note(*key, count) for key, count in self._counts.items())
