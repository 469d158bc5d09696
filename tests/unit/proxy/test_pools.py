"""Which member of a pool serves a call."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.anthropic.usage import Usage
from proxyd.proxy import pools
from proxyd.proxy.pools import Aside, Member, Pool, State

LIMITED = Aside(State.LIMITED, None, "at its rate limit")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pool_of(*weights: float, balance: str = "weighted") -> tuple[Pool, Clock]:
    clock = Clock()
    return Pool([Member("abcdef"[at], weight) for at, weight in enumerate(weights)], clock, balance), clock


def chosen(pool: Pool, session: str | None = None) -> str:
    member = pool.choose(session)
    assert member is not None
    return member.name


def test_sessions_are_distributed_by_weight() -> None:
    pool, _ = pool_of(1, 1, 2)
    assert Counter(chosen(pool, f"s{number}") for number in range(40)) == {"a": 10, "b": 10, "c": 20}


def test_a_session_stays_and_others_do_not_move_it() -> None:
    pool, _ = pool_of(1, 1)
    first = chosen(pool, "mine")
    for number in range(5):
        chosen(pool, f"s{number}")
        chosen(pool)
    assert chosen(pool, "mine") == first


def test_a_session_moves_when_its_member_is_set_aside_and_does_not_move_back() -> None:
    pool, clock = pool_of(1, 1)
    assert chosen(pool, "mine") == "a"
    pool.set_aside(pool.members[0], LIMITED)
    assert chosen(pool, "mine") == "b"
    clock.now += 31
    assert not pool.is_aside(pool.members[0])
    assert chosen(pool, "mine") == "b", "its prompt cache is there now"


def test_time_aside_grows_until_it_works_again() -> None:
    pool, clock = pool_of(1)
    (member,) = pool.members
    found = []
    for _ in range(8):
        found.append(pool.set_aside(member, LIMITED))
        assert pool.choose(None) is None
        clock.now += found[-1]
    assert found == [30, 60, 120, 240, 480, 960, 1800, 1800]
    pool.has_served(member, Usage(1, 1))
    assert pool.set_aside(member, LIMITED) == 30


def test_calls_that_were_in_flight_do_not_prolong_it() -> None:
    pool, clock = pool_of(1)
    (member,) = pool.members
    pool.set_aside(member, LIMITED)
    clock.now += 10
    assert pool.set_aside(member, LIMITED) == 20
    pool.has_served(member, Usage(1, 1))
    clock.now += 20
    assert pool.set_aside(member, LIMITED) == 60, "a response that began before proves nothing"


@pytest.mark.parametrize(("named", "seconds"), [(0, 1), (5, 5), (1e9, 7 * 86_400)])
def test_a_named_time_holds_within_bounds(named: float, seconds: float) -> None:
    pool, _ = pool_of(1)
    assert pool.set_aside(pool.members[0], Aside(State.LIMITED, named, "")) == seconds
    assert pool.earliest_s() == seconds


def test_the_longer_time_holds() -> None:
    pool, _ = pool_of(1)
    (member,) = pool.members
    pool.set_aside(member, Aside(State.REFUSED, 3600, "refused"))
    assert pool.set_aside(member, Aside(State.LIMITED, 5, "limited")) == 3600
    assert pool.describe(lambda: 5000.0)[0]["state"] == "refused"


def test_members_are_described() -> None:
    pool, _ = pool_of(1, 2)
    pool.has_served(pool.members[0], Usage(7, 3, 2, 1))
    pool.set_aside(pool.members[1], Aside(State.LIMITED, 60, "at its rate limit"))
    counts = {"calls": 1, "failures": 0, "input_tokens": 10, "output_tokens": 3}
    first, second = pool.describe(lambda: 5000.0)
    assert first == {"name": "a", "weight": 1, "state": "works", **counts}
    assert (second["until"], second["for_s"], second["why"]) == (5060, 60, "at its rate limit")


def test_in_order_takes_the_first_that_works() -> None:
    pool, clock = pool_of(1, 1, balance="in_order")
    assert [chosen(pool) for _ in range(3)] == ["a", "a", "a"]
    pool.set_aside(pool.members[0], LIMITED)
    assert chosen(pool) == "b"
    clock.now += 31
    assert chosen(pool) == "a"


def test_least_load_counts_calls_by_weight() -> None:
    pool, _ = pool_of(1, 2, balance="least_load")
    loads = {"a": 2, "b": 3}
    member = pool.choose(None, load_of=lambda each: loads[each.name])
    assert member is not None
    assert member.name == "b"


def test_forged_sessions_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_MAX_SESSIONS", 4)
    pool, _ = pool_of(1, 1)
    mine = chosen(pool, "mine")
    for number in range(100):
        chosen(pool, f"forged-{number}")
        assert chosen(pool, "mine") == mine, "a session in use is kept"
    assert len(pool.sessions) == 4


@given(
    st.lists(st.floats(0.5, 5), min_size=1, max_size=5),
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 4), st.one_of(st.none(), st.floats(0, 90)), st.floats(0, 40)
        ),
        max_size=60,
    ),
)
def test_no_session_moves_while_its_member_works(
    weights: list[float], steps: list[tuple[int, int, float | None, float]]
) -> None:
    pool, clock = pool_of(*weights)
    at: dict[str, Member] = {}
    for session, failing, seconds, passed in steps:
        name = f"s{session}"
        member = pool.choose(name)
        before = at.get(name)
        if member is None:
            assert all(map(pool.is_aside, pool.members))
        else:
            assert not pool.is_aside(member)
            if before is not None and not pool.is_aside(before):
                assert member is before or before is not at[name]
            at[name] = member
        if failing < len(pool.members):
            failed = pool.members[failing]
            pool.set_aside(failed, Aside(State.LIMITED, seconds, ""))
            for other, where in list(at.items()):
                if where is failed:
                    del at[other]
        clock.now += passed
        assert pool.in_order(name)[-1] in pool.members
        at.pop(name, None)
        again = pool.choose(name)
        if again is not None:
            at[name] = again
