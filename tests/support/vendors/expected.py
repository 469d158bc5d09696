"""Cells of the matrix that are not right yet. A cell that is right and listed here fails, so the list shrinks."""

from __future__ import annotations

from tests.captures import Capture

__all__ = ["expected_failures"]

#: Route, as in the table -> why, and which captures.
EXPECTED: dict[str, tuple[str, tuple[str, ...]]] = {}


def expected_failures(route: str, captures: list[Capture]) -> set[str]:
    """Return the names of the captures that are expected to fail on a route."""
    _, wanted = EXPECTED.get(route, ("", ()))
    return {capture.name for capture in captures} & set(wanted)
