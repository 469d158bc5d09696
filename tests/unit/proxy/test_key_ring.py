"""Virtual keys in memory: identity, limits, estimates, and the exchange with a store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.errors import BadCredential, Forbidden, LimitReached, Overloaded, error_response, response_headers
from proxyd.proxy.key_ring import KeyRing, estimate_of
from proxyd.store.interface import StoreFailed, Window
from proxyd.store.virtual_keys import Directory, Limit, Spent, Team, VirtualKey, digest_of, end_of
from proxyd.telemetry.call_record import CallRecord

SECRET = "sk-cp-0123456789012345678901234567890123456789"
NOON = time.mktime((2026, 11, 30, 12, 0, 0, 0, 0, -1))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class MemoryStore:
    """A store that can fail."""

    def __init__(self) -> None:
        self.held = Directory()
        self.spent: dict[Window, Spent] = {}
        self.fails = self.fails_after_writing = False

    def directory(self) -> Directory:
        if self.fails_after_writing:
            raise StoreFailed("locked")
        return self.held

    def add_usage(self, spent: Mapping[Window, Spent]) -> None:
        if self.fails:
            raise StoreFailed("the disk is full")
        for window, each in spent.items():
            self.spent[window] = self.spent.get(window, Spent()) + each

    def usage(self, since: Iterable[tuple[str, int]]) -> dict[Window, Spent]:
        periods = set(since)
        return {window: each for window, each in self.spent.items() if (window[1], window[2]) in periods}


class Bench:
    """A ring with a store, and calls of one key."""

    def __init__(self, *limits: Limit, team: Team | None = None, **key: Any) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.ring = KeyRing(self.clock)
        self.key = VirtualKey("1", "alice", digest_of(SECRET), 0.0, limits=limits, **key)
        if team is not None:
            self.key = replace(self.key, team=team.name)
        self.store.held = Directory((self.key,), () if team is None else (team,))
        self.exchange()
        self._calls = 0

    def exchange(self) -> None:
        exchange = self.ring.begin_exchange()
        try:
            exchange.run(self.store)
        except StoreFailed as exc:
            self.ring.end_exchange(exchange, exc)
        else:
            self.ring.end_exchange(exchange)

    def begin(self, estimate: Spent = Spent(0.0, 0, 1)) -> CallRecord:  # noqa: B008
        self._calls += 1
        record = CallRecord(f"req_{self._calls}", virtual_key=self.key, pricing=Pricing(1.0, 1.0))
        self.ring.admit(self.key, record, estimate)
        return record

    def end(self, record: CallRecord, tokens: int = 10, outcome: str = "ok") -> None:
        record.usage, record.outcome = Usage(tokens, 0), outcome
        self.ring.book(self.key, record)


# -- who


def refusal(ring: KeyRing, *offered: str) -> str:
    with pytest.raises(BadCredential) as caught:
        ring.identify(offered)
    assert error_response(caught.value) == (401, "authentication_error")
    assert response_headers(caught.value)["x-should-retry"] == "false"
    assert SECRET not in caught.value.message
    return caught.value.message


def test_only_keys_that_are_in_force_are_taken() -> None:
    bench = Bench()
    assert bench.ring.identify(["", "any", SECRET]) is not None
    assert "asks for a key of its own" in refusal(bench.ring)
    assert "does not know the key" in refusal(bench.ring, SECRET + "x")
    bench.store.held = Directory((replace(bench.key, expires_at=NOON + 5),))
    bench.exchange()
    assert bench.ring.identify([SECRET]).name == "alice"
    bench.clock.now += 5
    assert refusal(bench.ring, SECRET) == "the key 'alice' of this proxy has expired; ask for a new one"
    bench.store.held = Directory((replace(bench.key, revoked_at=1.0),))
    bench.exchange()
    assert refusal(bench.ring, SECRET) == "the key 'alice' of this proxy was revoked; ask for a new one"


def test_models_that_a_key_may_not_use_are_named() -> None:
    bench = Bench(models=("claude-*", "kimi"))
    bench.ring.check_model(bench.key, ("kimi", "alias"))
    with pytest.raises(Forbidden, match=r"may not use model 'glm', only claude-\*, kimi"):
        bench.ring.check_model(bench.key, ("glm", "alias"))


# -- how much


@pytest.mark.parametrize(("unit", "amount"), [("usd", 0.00003), ("tokens", 30), ("calls", 3)])
@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_a_limit_ends_with_its_period(unit: str, amount: float, period: str) -> None:
    bench = Bench(Limit(amount, unit, period))
    for _ in range(3):
        bench.end(bench.begin())
    with pytest.raises(LimitReached) as caught:
        bench.begin()
    exc = caught.value
    assert error_response(exc) == (429, "billing_error")
    resets_at = end_of(period, NOON)
    assert exc.headers == {"x-should-retry": "false", "retry-after": str(int(resets_at - NOON))}
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(resets_at))
    assert exc.message.startswith(
        f"the key 'alice' of this proxy has reached its limit of {Limit(amount, unit, period)}"
    )
    assert f"it resets at {when}" in exc.message
    bench.clock.now = resets_at
    bench.end(bench.begin())


def test_a_limit_of_a_minute_is_worth_waiting_for() -> None:
    bench = Bench(Limit(2, "calls", "minute"))
    bench.end(bench.begin())
    bench.end(bench.begin())
    with pytest.raises(LimitReached) as caught:
        bench.begin()
    assert error_response(caught.value) == (429, "rate_limit_error")
    assert caught.value.headers == {"retry-after": "60"}
    bench.clock.now += 60
    bench.begin()


def test_calls_in_flight_count_with_their_estimates() -> None:
    bench = Bench(Limit(100, "tokens", "day"))
    first = bench.begin(Spent(0, 60, 1))
    second = bench.begin(Spent(0, 60, 1))
    with pytest.raises(
        LimitReached,
        match="has used 0 tokens of its limit of 100 tokens a day, and 2 calls in flight may use the rest",
    ) as caught:
        bench.begin(Spent(0, 60, 1))
    assert error_response(caught.value) == (429, "rate_limit_error"), "there may be room again in a moment"
    assert caught.value.headers == {"retry-after": "5"}
    bench.end(first, tokens=10)
    bench.end(second, tokens=10)
    bench.begin(Spent(0, 60, 1))


def test_a_limit_that_the_calls_in_flight_reach_for_certain_is_reached() -> None:
    bench = Bench(Limit(2, "calls", "day"), Limit(100, "tokens", "day"))
    bench.begin()
    bench.begin()
    with pytest.raises(LimitReached, match="has reached its limit of 2 calls a day") as caught:
        bench.begin()
    assert caught.value.kind == "billing_error"


def test_calls_in_flight_are_limited() -> None:
    bench = Bench(streams=2)
    first = bench.begin()
    bench.begin()
    with pytest.raises(LimitReached, match="has 2 calls in flight, its limit") as caught:
        bench.begin()
    assert (caught.value.kind, caught.value.headers) == ("rate_limit_error", {"retry-after": "1"})
    bench.end(first)
    bench.begin()


def test_a_team_shares_its_limits() -> None:
    team = Team("research", (Limit(25, "tokens", "day"),), streams=5)
    bench = Bench(team=team)
    other = VirtualKey("2", "bob", "digest-2", 0.0, team="research")
    bench.store.held = Directory((bench.key, other), (team,))
    bench.exchange()
    bench.end(bench.begin())
    record = CallRecord("of-bob", virtual_key=other)
    bench.ring.admit(other, record, Spent(0, 0, 1))
    record.usage = Usage(20, 0)
    bench.ring.book(other, record)
    with pytest.raises(
        LimitReached, match="the team 'research' of this proxy has reached its limit of 25 tokens a day"
    ):
        bench.begin()


def test_a_refused_call_without_an_estimate_costs_nothing_and_an_inner_one_counts() -> None:
    bench = Bench(Limit(1, "calls", "day"))
    bench.end(bench.begin())
    refused = CallRecord("refused", virtual_key=bench.key)
    with pytest.raises(LimitReached):
        bench.ring.admit(bench.key, refused, Spent(0, 0, 1))
    bench.end(refused, outcome="refused")
    bench.end(CallRecord("inner", virtual_key=bench.key, pricing=Pricing(1.0, 1.0)))
    (key,) = bench.ring.describe()
    assert key["limits"][0]["used"] == 2


def test_estimates_come_from_the_size_of_the_request() -> None:
    record = CallRecord("r", bytes_in=4000, pricing=Pricing(3.0, 15.0))
    assert estimate_of(record) == Spent((1000 * 3 + 1000 * 15) / 1e6, 2000, 1)
    assert estimate_of(CallRecord("r", bytes_in=4000)) == Spent(0, 2000, 1)


def test_a_limit_is_warned_of_once_in_each_period() -> None:
    bench = Bench(Limit(100, "tokens", "day"), Limit(4, "calls", "minute"))
    with capture_logs() as lines:
        for _ in range(9):
            bench.clock.now += 61
            bench.end(bench.begin())
            bench.exchange()
        assert [line["event"] for line in lines] == ["limit.near"]
        assert (lines[0]["who"], lines[0]["limit"]) == ("the key 'alice'", "100 tokens a day")
        bench.clock.now = end_of("day", NOON)
        bench.exchange()
        bench.end(bench.begin(), tokens=80)
    assert len(lines) == 2


# -- the store


def test_usage_of_several_daemons_adds_up() -> None:
    bench, other = Bench(Limit(100, "tokens", "day")), Bench(Limit(100, "tokens", "day"))
    other.store = bench.store
    bench.end(bench.begin(), tokens=60)
    other.end(other.begin(), tokens=60)
    bench.exchange()
    other.exchange()
    bench.exchange()
    for each in (bench, other):
        with pytest.raises(LimitReached):
            each.begin()


def test_a_store_that_fails_stops_nothing_and_loses_nothing() -> None:
    bench = Bench(Limit(100, "tokens", "day"))
    bench.store.fails = True
    with capture_logs() as lines:
        for _ in range(3):
            bench.end(bench.begin(), tokens=20)
            bench.exchange()
        assert bench.ring.trouble == "the disk is full"
        assert bench.ring.identify([SECRET]).name == "alice"
        bench.store.fails = False
        bench.exchange()
    assert [line["event"] for line in lines] == ["keys.store_failed", "keys.store_recovered"]
    assert {spent.tokens for spent in bench.store.spent.values()} == {60}
    bench.store.fails_after_writing = True
    bench.end(bench.begin(), tokens=20)
    bench.exchange()
    bench.store.fails_after_writing = False
    bench.exchange()
    assert {spent.tokens for spent in bench.store.spent.values()} == {80}, (
        "what was written is not sent again"
    )
    bench.end(bench.begin(), tokens=20)
    with pytest.raises(LimitReached):
        bench.begin()


def test_a_store_that_fails_refuses_calls_only_if_that_is_wanted() -> None:
    bench, is_closed = Bench(), False
    bench.ring = KeyRing(bench.clock, fail_closed=lambda: is_closed)
    bench.exchange()
    bench.store.fails = True
    bench.exchange()
    bench.end(bench.begin())
    is_closed = True
    with pytest.raises(Overloaded, match="cannot check limits at the moment"):
        bench.begin()
    bench.store.fails = False
    bench.exchange()
    bench.end(bench.begin())


def test_what_waits_for_a_store_does_not_grow_with_the_minutes() -> None:
    bench = Bench()
    bench.store.fails = True
    for _ in range(10):
        bench.clock.now += 60
        bench.end(bench.begin(), tokens=1)
        bench.exchange()
    waiting = bench.ring.begin_exchange().sent
    assert sorted(period for _, period, _ in waiting) == ["day", "minute", "month", "week"]
    assert {spent.tokens for (_, period, _), spent in waiting.items() if period != "minute"} == {10}


def test_calls_that_end_during_an_exchange_are_sent_with_the_next() -> None:
    bench = Bench(Limit(100, "tokens", "day"))
    bench.end(bench.begin(), tokens=10)
    exchange = bench.ring.begin_exchange()
    bench.end(bench.begin(), tokens=30)
    assert bench.ring.describe()[0]["limits"][0]["used"] == 40
    exchange.run(bench.store)
    bench.ring.end_exchange(exchange)
    assert bench.ring.describe()[0]["limits"][0]["used"] == 40
    bench.exchange()
    assert {spent.tokens for spent in bench.store.spent.values()} == {40}


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "end", "exchange", "fail"]), st.integers(0, 50)), max_size=60
    ),
    st.integers(1, 200),
)
def test_the_overshoot_is_at_most_what_calls_in_flight_cost_beyond_their_estimates(
    steps: list[tuple[str, int]], amount: int
) -> None:
    bench = Bench(Limit(amount, "tokens", "day"))
    open_calls: list[tuple[CallRecord, int]] = []
    admitted_at = 0
    total = beyond = 0
    for step, tokens in steps:
        if step == "begin":
            try:
                open_calls.append((bench.begin(Spent(0, 5, 1)), tokens))
            except LimitReached:
                assert total + 5 * len(open_calls) >= amount
            else:
                admitted_at = total
                assert admitted_at < amount
        elif step == "end" and open_calls:
            record, used = open_calls.pop(0)
            bench.end(record, used)
            total += used
            beyond += max(0, used - 5)
        elif step in ("exchange", "fail"):
            bench.store.fails = step == "fail"
            bench.exchange()
    assert total <= amount + 5 + beyond
    bench.store.fails = False
    bench.exchange()
    bench.exchange()
    day = [spent.tokens for (owner, period, _), spent in bench.store.spent.items() if period == "day"]
    assert sum(day) == total
