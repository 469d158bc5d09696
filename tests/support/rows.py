"""Many rows of a table in one test, where a test for each row would cost more than the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["check_rows"]

T = TypeVar("T")


def check_rows(rows: Iterable[T], check: Callable[[T], None]) -> None:
    """Call `check` for all rows.

    Raises:
        AssertionError: there is no row, or some of them failed; it names each of these.
    """
    count, failed = 0, []
    for row in rows:
        count += 1
        try:
            check(row)
        except Exception as exc:
            failed.append(f"{row}: {type(exc).__name__}: {exc}")
    assert count, "the table is empty"
    assert not failed, f"{len(failed)} of {count} rows failed:\n" + "\n".join(failed)
