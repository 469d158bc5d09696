"""Whether a call that failed is tried again, and when (docs/spec/operations.md#d2, #d3).

Only before the client has been promised anything. A translated route is tried again for what may pass: no connection,
429, 408, 5xx. On a direct route Claude Code does that itself, so only a connection that could not be made is tried
again.
"""

from __future__ import annotations

import random

from proxyd import errors
from proxyd.errors import ProxyError, Refused, Unreachable

__all__ = ["RetryBudget", "delay_before_retry", "may_fall_back"]

#: The SDK's curve (docs/spec/messages-api.md#sdk-retries): 0.5 s × 2ⁿ, at most 8 s, with up to a quarter taken off.
_FIRST_DELAY_S, _MAX_DELAY_S, _JITTER = 0.5, 8.0, 0.25
#: A ``retry-after`` up to this is waited for here; a longer one is passed on.
_MAX_RETRY_AFTER_S = 10.0

#: Envoy's default retry budget.
_BUDGET_SHARE, _BUDGET_FLOOR = 0.2, 3


def delay_before_retry(exc: ProxyError, retry: int, *, is_direct: bool) -> float | None:
    """Seconds to wait before retry number `retry` (from 0), or None where another try would not be right."""
    if isinstance(exc, Unreachable):
        # A stale pooled connection fails like this: the first retry takes a new one, at once.
        return 0.0 if retry == 0 else _backoff(retry - 1)
    if is_direct or not isinstance(exc, Refused) or not _may_pass(exc):
        return None
    after = exc.headers.get("retry-after")
    if after is None:
        return _backoff(retry)
    try:
        seconds = float(after)
    except ValueError:
        return None  # a date: the client knows better how long it wants to wait
    return seconds if 0 <= seconds <= _MAX_RETRY_AFTER_S else None


def may_fall_back(exc: ProxyError) -> bool:
    """Whether `exc` lets the next entry of ``fallback`` serve: unreachable, overloaded, out of quota, rate limited."""
    status, kind = errors.error_response(exc)
    return isinstance(exc, Unreachable) or status >= 500 or status == 429 or kind == "billing_error"


def _may_pass(exc: Refused) -> bool:
    return exc.status == 429 or exc.status >= 500


def _backoff(retry: int) -> float:
    delay_s: float = min(_FIRST_DELAY_S * 2**retry, _MAX_DELAY_S)
    return delay_s * (1 - _JITTER * random.random())  # noqa: S311 - no secret


class RetryBudget:
    """Keeps retries from multiplying the load of an upstream that is down: a share of the calls in flight."""

    __slots__ = ("_retrying",)

    def __init__(self) -> None:
        self._retrying = 0

    def has_room(self, active_calls: int) -> bool:
        return self._retrying < max(_BUDGET_FLOOR, int(active_calls * _BUDGET_SHARE))

    def take(self) -> None:
        """A retry begins to wait; it counts until its upstream has answered."""
        self._retrying += 1

    def give_back(self) -> None:
        """It has an answer, or is over."""
        self._retrying -= 1
