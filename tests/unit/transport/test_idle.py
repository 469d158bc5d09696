"""How long idle connections are used, and whose they are."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxyd.transport.connection import UpstreamConnection
from proxyd.transport.idle import IdleConnections, IdleLife


class _Connection:
    """What the idle connections need of a connection."""

    def __init__(self, *, idle_s: float | None = None) -> None:
        self.idle_s = idle_s
        self.may_be_reused = True
        self.unread = False
        self.closed = False

    def has_unread_bytes(self) -> bool:
        return self.unread

    def close(self) -> None:
        self.closed = True


def connection(**more: Any) -> UpstreamConnection:
    return cast(UpstreamConnection, _Connection(**more))


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def idle(limit_s: float = 300.0) -> tuple[IdleConnections, _Clock]:
    clock = _Clock()
    return IdleConnections(limit_s, clock), clock


def test_the_limit_holds_where_nothing_is_known() -> None:
    assert IdleLife(300).usable_s(0) == 300


def test_what_the_upstream_says_counts_with_a_second_to_spare() -> None:
    life = IdleLife(300)
    life.on_said(5)
    assert life.usable_s(0) == 4
    life.on_said(0)
    assert life.usable_s(0) == 0
    life.on_said(1000)
    assert life.usable_s(0) == 300


def test_one_end_is_no_rule_and_two_are() -> None:
    life = IdleLife(300)
    life.on_closed(60, 100)
    assert life.usable_s(100) == 300
    life.on_closed(60.1, 200)
    assert life.usable_s(200) == pytest.approx(59.1)


def test_a_restart_does_not_shorten_the_life_that_was_observed() -> None:
    life = IdleLife(300)
    for lived, at in ((60, 100), (3, 150), (60, 220)):
        life.on_closed(lived, at)
    assert life.usable_s(220) == 59


def test_a_shorter_limit_of_the_upstream_is_learned_and_a_rule_ends_after_ten_minutes() -> None:
    life = IdleLife(300)
    for number in range(3):
        life.on_closed(60, number * 60)
    for number in range(3):
        life.on_closed(20, 200 + number * 20)
    assert life.usable_s(240) == 19
    assert life.usable_s(240 + 601) == 300
    assert life.usable_s(240 + 602) == 300


def test_a_connection_serves_the_credentials_that_it_has_carried_and_a_new_one_anybody() -> None:
    connections, _ = idle()
    first, second, unused = connection(), connection(), connection()
    connections.put(first, 1)
    connections.put(second, 2)
    connections.put(unused, None)
    assert len(connections) == 3
    assert connections.take(2) is second
    assert connections.take(2) is unused
    assert connections.take(2) is None
    assert connections.take(1) is first
    assert len(connections) == 0


def test_the_most_recently_used_one_is_taken() -> None:
    connections, clock = idle()
    old, new = connection(), connection()
    connections.put(old, 1)
    clock.now += 1
    connections.put(new, 1)
    assert connections.take(1) is new


@pytest.mark.parametrize("what", ["too old", "unread bytes", "ended"])
def test_one_that_is_of_no_use_is_closed(what: str) -> None:
    connections, clock = idle(limit_s=60)
    good, bad = connection(), connection()
    connections.put(good, 1)
    if what == "too old":
        clock.now += 61
        connections.put(bad, 1)
        clock.now += 60
    else:
        connections.put(bad, 1)
        cast(Any, bad).unread = what == "unread bytes"
        cast(Any, bad).may_be_reused = what != "ended"
    assert connections.take(1) is (None if what == "too old" else good)
    assert cast(Any, bad).closed
    assert cast(Any, good).closed is (what == "too old")


def test_an_upstream_that_names_its_limit_is_believed() -> None:
    connections, clock = idle()
    connections.put(connection(idle_s=5), 1)
    assert connections.next_expiry() == clock.now + 4
    clock.now += 4
    assert connections.take(1) is None


def test_lives_of_used_and_of_new_connections_are_learned_apart() -> None:
    connections, clock = idle()
    for _ in range(2):
        new = connection()
        connections.put(new, None)
        clock.now += 10
        connections.on_lost(new)
    connections.put(connection(), None)
    connections.put(used := connection(), 1)
    clock.now += 50
    assert connections.take(1) is used
    assert connections.take(1) is None


def test_an_end_of_a_connection_that_is_not_idle_teaches_nothing() -> None:
    connections, clock = idle()
    for _ in range(3):
        taken = connection()
        connections.put(taken, 1)
        assert connections.take(1) is taken
        connections.on_lost(taken)
    connections.put(last := connection(), 1)
    clock.now += 299
    assert connections.take(1) is last


def test_expired_ones_are_closed_and_the_next_expiry_is_known() -> None:
    connections, clock = idle(limit_s=60)
    assert connections.next_expiry() is None
    old, new = connection(), connection()
    connections.put(old, 1)
    clock.now += 30
    connections.put(new, 2)
    assert connections.next_expiry() == 1060
    clock.now = 1060
    connections.close_expired()
    assert (cast(Any, old).closed, cast(Any, new).closed, len(connections)) == (True, False, 1)
    connections.close()
    assert (cast(Any, new).closed, len(connections)) == (True, 0)


def test_the_number_of_idle_connections_is_bounded() -> None:
    connections, _ = idle()
    for number in range(300):
        connections.put(last := connection(), number)
    assert len(connections) == 256
    assert cast(Any, last).closed
