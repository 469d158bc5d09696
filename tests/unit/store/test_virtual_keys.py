"""Virtual keys: secrets, limits, periods and expiry."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.redaction import redacted
from proxyd.store.virtual_keys import (
    PERIODS,
    Limit,
    Spent,
    VirtualKey,
    digest_of,
    end_of,
    is_virtual,
    new_secret,
    parse_expiry,
    parse_limit,
    start_of,
)

KEY = VirtualKey("1", "alice", "digest", 0.0)


def test_secrets_differ_and_are_masked_by_their_form() -> None:
    secrets = {new_secret() for _ in range(50)}
    assert len(secrets) == len({digest_of(each) for each in secrets}) == 50
    for each in secrets:
        assert is_virtual(each)
        assert redacted(f"the key {each} is unknown", ()) == "the key *** is unknown"
    assert not is_virtual("sk-ant-1234")


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("20/day", "usd", Limit(20, "usd", "day")),
        ("$0.5/week", "usd", Limit(0.5, "usd", "week")),
        ("2m/month", "tokens", Limit(2_000_000, "tokens", "month")),
        ("1.5K / minute", "tokens", Limit(1500, "tokens", "minute")),
        ("500/day", "calls", Limit(500, "calls", "day")),
    ],
)
def test_limits_are_read(text: str, unit: str, expected: Limit) -> None:
    assert parse_limit(text, unit) == expected


@pytest.mark.parametrize(
    "text", ["", "20", "20/", "/day", "20/year", "-1/day", "0/day", "$5/day", "many/day", "1e9/day"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an amount"):
        parse_limit(text, "calls")


def test_limits_are_shown_in_words() -> None:
    assert str(Limit(20, "usd", "day")) == "$20.00 a day"
    assert str(Limit(2_000_000, "tokens", "month")) == "2,000,000 tokens a month"


def test_expiry_is_a_span_or_the_end_of_a_day() -> None:
    now = time.mktime((2026, 11, 30, 12, 0, 0, 0, 0, -1))
    assert parse_expiry("90d", now) == now + 90 * 86_400
    assert parse_expiry("12h", now) == now + 12 * 3_600
    assert time.localtime(parse_expiry("2026-12-31", now))[:5] == (2027, 1, 1, 0, 0)
    for text in ("soon", "2026-11-29", "90", "2026-13-01"):
        with pytest.raises(ValueError, match="expected"):
            parse_expiry(text, now)


def test_periods_begin_where_people_expect() -> None:
    now = time.mktime((2026, 12, 31, 13, 14, 15, 0, 0, -1))  # a Thursday
    starts = {period: time.localtime(start_of(period, now))[:5] for period in PERIODS}
    ends = {period: time.localtime(end_of(period, now))[:5] for period in PERIODS}
    assert starts["day"] == (2026, 12, 31, 0, 0)
    assert starts["week"] == (2026, 12, 28, 0, 0)
    assert starts["month"] == (2026, 12, 1, 0, 0)
    assert (ends["day"], ends["week"], ends["month"]) == (
        (2027, 1, 1, 0, 0),
        (2027, 1, 4, 0, 0),
        (2027, 1, 1, 0, 0),
    )
    assert end_of("minute", now) - start_of("minute", now) == 60


@given(st.floats(1_600_000_000, 2_000_000_000), st.sampled_from(PERIODS))
def test_each_moment_is_in_its_period_and_the_next_begins_where_it_ends(now: float, period: str) -> None:
    start, end = start_of(period, now), end_of(period, now)
    assert start <= now < end
    assert start_of(period, end) == end
    assert start_of(period, start) == start


def test_states_and_models() -> None:
    assert KEY.state_at(5) == "active"
    assert VirtualKey("1", "a", "d", 0, expires_at=5).state_at(5) == "expired"
    assert VirtualKey("1", "a", "d", 0, expires_at=50, revoked_at=1).state_at(5) == "revoked"
    some = VirtualKey("1", "a", "d", 0, models=("claude-*", "kimi"))
    assert [some.may_use([name]) for name in ("claude-opus", "kimi", "kimi-2")] == [True, True, False]
    assert some.may_use(["other-id", "kimi"])
    assert KEY.may_use(["anything"])


def test_what_was_used_adds_up() -> None:
    assert Spent(1, 2, 3) + Spent(0.5, 1, 1) - Spent(1, 1, 1) == Spent(0.5, 2, 3)
    assert Spent(1.5, 2, 3).of("usd") == 1.5
