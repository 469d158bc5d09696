"""The retry policy: delays, the budget, and which failures lead to a fallback."""

from __future__ import annotations

import pytest

from proxyd.errors import (
    NO_RETRY,
    BadCredential,
    BadReply,
    KeysAside,
    NotRunning,
    Overloaded,
    ProxyError,
    Refused,
    TimedOut,
    TooLong,
    Truncated,
    Unreachable,
    WrongAddress,
)
from proxyd.proxy.retries import (
    RetryBudget,
    delay_before_retry,
    is_at_limit,
    may_fall_back,
    retry_after_in_seconds,
)


def test_limits_and_overloads_are_told_from_other_failures() -> None:
    limits = (
        Refused("x", status=429, kind="rate_limit_error"),
        Refused("x", status=529, kind="overloaded_error"),
        KeysAside("x"),
    )
    others = (Refused("x", status=502, kind="api_error"), Overloaded("x"), Unreachable("x"))
    assert all(map(is_at_limit, limits))
    assert not any(map(is_at_limit, others))


def test_keys_that_are_back_soon_are_waited_for() -> None:
    soon, later = (KeysAside("x", headers={"retry-after": text}) for text in ("3", "30"))
    assert delay_before_retry(soon, 0, is_direct=False) == 3
    assert delay_before_retry(soon, 0, is_direct=True) is None
    assert delay_before_retry(later, 0, is_direct=False) is None


@pytest.mark.statement("D2")
def test_delays_are_those_of_the_sdk() -> None:
    busy = Refused("busy", status=529, kind="overloaded_error")
    for retry, most in enumerate((0.5, 1, 2, 4, 8, 8, 8)):
        seen = [delay_before_retry(busy, retry, is_direct=False) for _ in range(200)]
        assert all(delay is not None and 0.75 * most <= delay <= most for delay in seen)
        assert len(set(seen)) > 100, "jitter keeps clients apart"
    assert delay_before_retry(Unreachable("x"), 0, is_direct=True) == 0
    assert delay_before_retry(Truncated("x"), 0, is_direct=False) is None
    assert delay_before_retry(Overloaded("x"), 0, is_direct=False) is None


@pytest.mark.parametrize("is_direct", [True, False])
@pytest.mark.parametrize(
    "failure",
    [
        Unreachable("no such host", headers=NO_RETRY),
        WrongAddress("a page"),
        Refused("busy", status=503, kind="overloaded_error", headers=NO_RETRY),
        Refused("quota", status=429, kind="rate_limit_error", headers={"retry-after": "7200"}),
    ],
)
def test_what_is_sure_to_fail_again_is_not_retried(failure: ProxyError, is_direct: bool) -> None:
    assert delay_before_retry(failure, 0, is_direct=is_direct) is None


@pytest.mark.parametrize("is_direct", [True, False])
def test_server_of_this_machine_has_a_second_to_restart(is_direct: bool) -> None:
    failure = NotRunning("connection refused", headers=NO_RETRY)
    delays = [delay_before_retry(failure, retry, is_direct=is_direct) or 0 for retry in range(2)]
    assert 1 <= sum(delays) <= 1.5
    assert delays[0] > 0, "a port that was refused just now is still closed"


@pytest.mark.statement("D3")
def test_budget_is_a_fifth_of_the_calls_and_at_least_three() -> None:
    budget = RetryBudget()
    budget.take()
    budget.take()
    assert budget.has_room(1)
    budget.take()
    assert not budget.has_room(1)
    assert not budget.has_room(19)
    assert budget.has_room(20)
    budget.give_back()
    assert budget.has_room(0)


@pytest.mark.parametrize(
    ("failure", "falls_back"),
    [
        (Unreachable("refused"), True),
        (TimedOut("silent"), True),
        (BadReply("not HTTP"), True),
        (Overloaded("circuit open"), True),
        (Refused("slow down", status=429, kind="rate_limit_error"), True),
        (Refused("no credit", status=402, kind="billing_error"), True),
        (Refused("no credit", status=400, kind="billing_error"), True),
        (Refused("broken", status=500, kind="api_error"), True),
        (Refused("bad request", status=400, kind="invalid_request_error"), False),
        (Refused("wrong key", status=401, kind="authentication_error"), False),
        (TooLong("prompt is too long"), False),
        (BadCredential("no key"), False),
    ],
)
def test_which_failures_lead_to_a_fallback(failure: ProxyError, falls_back: bool) -> None:
    assert may_fall_back(failure) is falls_back


NOON, LATER = "Mon, 23 Nov 2026 12:00:00 GMT", "Mon, 23 Nov 2026 12:01:30 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": LATER, "date": NOON}, "90"),
        ({"retry-after": NOON, "date": LATER}, "1"),
        ({"retry-after": "Monday, 23-Nov-26 12:01:30 GMT", "date": NOON}, "90"),
        ({"retry-after": "17", "date": NOON}, None),
        ({"retry-after": "soon"}, None),
        ({"date": NOON}, None),
    ],
)
def test_date_in_retry_after_becomes_seconds(headers: dict[str, str], seconds: str | None) -> None:
    assert retry_after_in_seconds(headers).get("retry-after") == seconds


def test_date_without_a_server_clock_is_compared_with_ours() -> None:
    assert retry_after_in_seconds({"retry-after": "Mon, 23 Nov 2020 12:00:00 GMT"}) == {"retry-after": "1"}
