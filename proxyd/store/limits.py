"""How much of the limits of keys and teams is used, for the daemon's checks, its pages and the status line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from proxyd.store.interface import Window
from proxyd.store.virtual_keys import Spent, Team, VirtualKey, end_of, start_of

__all__ = ["WARN_SHARE", "described_limits", "moment", "title_of"]

#: The share of a limit from which it is warned of.
WARN_SHARE = 0.75


def described_limits(
    holder: VirtualKey | Team, usage: Mapping[Window, Spent], now: float
) -> Iterator[dict[str, Any]]:
    """Describe how much of each limit is used."""
    for limit in holder.limits:
        used = usage.get((holder.owner, limit.period, start_of(limit.period, now)), Spent()).of(limit.unit)
        yield {
            "limit": str(limit),
            "used": used,
            "of": limit.amount,
            "unit": limit.unit,
            "period": limit.period,
            "share": round(used / limit.amount, 4),
            "is_near": used >= WARN_SHARE * limit.amount,
            "resets_at": end_of(limit.period, now),
        }


def title_of(holder: VirtualKey | Team) -> str:
    """Return what messages call it."""
    return f"the {'team' if isinstance(holder, Team) else 'key'} {holder.name!r}"


def moment(at: float) -> str:
    """Return a time for people, in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(at))
