"""Retry policy: whether a failed attempt is retried, and when (docs/spec/operations.md#d2, #d3).

Only before the client has been promised anything. On a translated route transient failures are retried: no connection,
429, 408, 5xx. On a direct route Claude Code does that itself, so only a failed connection is retried. What is sure to
fail again is not: a host that does not exist, a certificate that cannot be verified, a quota of hours.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime

from proxyd import errors
from proxyd.errors import KeysAside, NotRunning, ProxyError, Refused, Unreachable

__all__ = ["RetryBudget", "delay_before_retry", "is_at_limit", "may_fall_back", "retry_after_in_seconds"]

#: The SDK's curve (docs/spec/messages-api.md#sdk-retries): 0.5 s × 2ⁿ, at most 8 s, with up to a quarter taken off.
_FIRST_DELAY_S, _MAX_DELAY_S, _JITTER = 0.5, 8.0, 0.25
#: A ``retry-after`` up to this is waited for here; a longer one is passed on.
_MAX_RETRY_AFTER_S = 10.0

#: Envoy's default retry budget.
_BUDGET_SHARE, _BUDGET_FLOOR = 0.2, 3


def delay_before_retry(exc: ProxyError, retry: int, *, is_direct: bool) -> float | None:
    """Return the seconds to wait before retry number `retry` (from 0), or None for no retry."""
    if isinstance(exc, NotRunning):
        return _backoff(retry)  # a server on this machine that is being restarted is back within a second
    if errors.is_permanent(exc):
        return None
    if isinstance(exc, Unreachable):
        # Most of these are over in a moment: the first retry is made at once.
        return 0.0 if retry == 0 else _backoff(retry - 1)
    is_transient = isinstance(exc, KeysAside) or (isinstance(exc, Refused) and _is_transient(exc))
    if is_direct or not is_transient:
        return None
    after = exc.headers.get("retry-after")
    if after is None:
        return _backoff(retry)
    try:
        seconds = float(after)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _MAX_RETRY_AFTER_S else None


def may_fall_back(exc: ProxyError) -> bool:
    """Return whether the next entry of ``fallback`` is tried: unreachable, overloaded, out of quota, rate limited."""
    status, kind = errors.error_response(exc)
    return isinstance(exc, Unreachable) or status >= 500 or status == 429 or kind == "billing_error"


def is_at_limit(exc: ProxyError) -> bool:
    """Return whether the upstream, or each of its keys, is at a limit or overloaded."""
    return isinstance(exc, (Refused, KeysAside)) and errors.error_response(exc)[0] in (429, 529)


def _is_transient(exc: Refused) -> bool:
    return exc.status == 429 or exc.status >= 500


def _backoff(retry: int) -> float:
    delay_s: float = min(_FIRST_DELAY_S * 2**retry, _MAX_DELAY_S)
    return delay_s * (1 - _JITTER * random.random())  # noqa: S311 - no secret


def retry_after_in_seconds(headers: Mapping[str, str]) -> dict[str, str]:
    """Return ``retry-after`` in whole seconds if it is a date, since Claude Code reads no dates.

    Args:
        headers: of a response, names in lower case. Its ``date`` is what the server's clock showed.
    """
    until = _time_of(headers.get("retry-after", ""))
    if until is None:
        return {}
    now = _time_of(headers.get("date", "")) or time.time()
    return {"retry-after": str(max(1, math.ceil(until - now)))}


def _time_of(date: str) -> float | None:
    if not date or date.strip().isdigit():
        return None
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


class RetryBudget:
    """Limit on concurrent retries, as a share of the calls in flight: retries must not multiply the load of an upstream
    that is down.
    """

    __slots__ = ("_retrying",)

    def __init__(self) -> None:
        self._retrying = 0

    def has_room(self, active_calls: int) -> bool:
        return self._retrying < max(_BUDGET_FLOOR, int(active_calls * _BUDGET_SHARE))

    def take(self) -> None:
        """Count a retry, from its delay until the upstream has responded."""
        self._retrying += 1

    def give_back(self) -> None:
        """Stop counting a retry."""
        self._retrying -= 1
