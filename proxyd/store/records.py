"""Keys, teams and limits as the values of columns, the same in all stores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from proxyd.store.virtual_keys import PERIODS, Limit, Team, VirtualKey

__all__ = [
    "KEPT_S",
    "KEY_COLUMNS",
    "LEARNED_KEPT_S",
    "MAX_LEARNED",
    "key_of",
    "limits_as_text",
    "team_of",
    "values_of",
]

#: Usage of a period is deleted when it began longer ago than this.
KEPT_S = {period: 3_600 if period == "minute" else 62 * 86_400 for period in PERIODS}
#: What was learned is deleted when nobody has learned it again for so long, and where there is more of it.
LEARNED_KEPT_S, MAX_LEARNED = 62 * 86_400, 2_000
KEY_COLUMNS = (
    "name", "id", "digest", "created_at", "models", "limits", "streams", "team", "expires_at", "revoked_at",
)  # fmt: skip


def values_of(key: VirtualKey) -> list[Any]:
    """Return the values of a key, in the order of `KEY_COLUMNS`."""
    values = [getattr(key, name) for name in KEY_COLUMNS]
    values[KEY_COLUMNS.index("models")] = json.dumps(key.models)
    values[KEY_COLUMNS.index("limits")] = limits_as_text(key.limits)
    return values


def key_of(row: Sequence[Any]) -> VirtualKey:
    """Return the key that a row holds.

    Raises:
        ValueError: it holds none.
    """
    values = dict(zip(KEY_COLUMNS, row, strict=True))
    values["models"], values["limits"] = tuple(json.loads(values["models"])), _limits(values["limits"])
    return VirtualKey(**values)


def team_of(row: Sequence[Any]) -> Team:
    """Return the team of a row of name, limits and streams.

    Raises:
        ValueError: it holds none.
    """
    return Team(row[0], _limits(row[1]), row[2])


def limits_as_text(limits: Iterable[Limit]) -> str:
    """Return the value of a column of limits."""
    return json.dumps([[each.amount, each.unit, each.period] for each in limits])


def _limits(text: str) -> tuple[Limit, ...]:
    return tuple(Limit(*each) for each in json.loads(text))
