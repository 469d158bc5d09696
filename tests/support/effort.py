"""How much the property tests try: the environment variable ``TEST_EFFORT`` is fast, normal or deep.

`make test-fast` runs the unit tests with few examples, `make test` with enough to catch a regression, and `make
test-deep` with many more than anybody waits for at a desk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, settings

__all__ = ["EFFORT", "examples", "load_profile", "newest", "sampled"]

T = TypeVar("T")

EFFORT = os.environ.get("TEST_EFFORT", "normal")
_FACTORS = {"fast": 0.05, "normal": 0.1, "deep": 10.0}


def examples(usual: int) -> int:
    """Number of examples for a property that is worth `usual` of them when time does not matter."""
    return max(5, int(usual * _FACTORS[EFFORT]))


def sampled(values: Sequence[T], step: int = 3) -> Sequence[T]:
    """Return every `step`-th value, every seventh for the fast tests, all for the deep ones."""
    return values[:: {"fast": 7, "normal": step, "deep": 1}[EFFORT]]


def newest(versions: list[str]) -> list[str]:
    """Return all versions, the newest first, or that one alone for the fast tests."""
    return versions[:1] if EFFORT == "fast" else versions


def load_profile() -> None:
    """Apply the effort to all properties; no example has a time limit, and making them none either.

    The examples are the same in each run, so that what fails is due to the change. `make test-deep` tries new
    ones each time.
    """
    is_deep = EFFORT == "deep"
    settings.register_profile(
        EFFORT,
        max_examples=examples(100),
        deadline=None,
        derandomize=not is_deep,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile(EFFORT)
