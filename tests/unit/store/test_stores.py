"""What every store of virtual keys does: each test runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from proxyd.config.database_url import parse_database_url
from proxyd.store import postgres, sqlite
from proxyd.store.interface import KeyStore, LearnedRow, Window
from proxyd.store.opening import open_key_store
from proxyd.store.virtual_keys import Directory, Limit, Spent, Team, VirtualKey

KEY = VirtualKey(
    "id-1",
    "alice",
    "digest-1",
    1000.5,
    models=("claude-*", "kimi"),
    limits=(Limit(20, "usd", "day"), Limit(60, "calls", "minute")),
    streams=8,
    team="research",
    expires_at=2000.0,
)
OTHER = VirtualKey("id-2", "Bob", "digest-2", 1001.25)
TEAM = Team("research", (Limit(1e6, "tokens", "month"),), 4)

#: Opens another connection to the same store, as another process would.
Open = Callable[[], KeyStore]


@pytest.fixture(params=["sqlite", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    url = None
    if request.param == "postgresql":
        url = parse_database_url(request.getfixturevalue("postgres").new_database())
    opened: list[KeyStore] = []

    def open_it() -> KeyStore:
        opened.append(open_key_store(url, tmp_path / "state"))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


def test_there_is_nothing_at_first(open_store: Open) -> None:
    store = open_store()
    store.add_usage({})
    assert (store.directory(), store.usage([("day", 0)]), store.all_usage()) == (Directory(), {}, {})


def test_keys_and_teams_come_back_as_they_were(open_store: Open) -> None:
    store, other = open_store(), open_store()
    store.put_team(TEAM)
    store.put_key(KEY)
    store.put_key(OTHER)
    assert other.directory() == store.directory() == Directory((OTHER, KEY), (TEAM,))
    store.put_key(replace(KEY, revoked_at=1500.0, digest="digest-3"))
    store.put_team(replace(TEAM, streams=None))
    revoked = other.directory().key("alice")
    assert revoked == replace(KEY, revoked_at=1500.0, digest="digest-3")
    assert other.directory().team("research") == replace(TEAM, streams=None)
    other.remove_team("research")
    assert store.directory().teams == ()


def test_usage_adds_up_over_processes(open_store: Open) -> None:
    today = int(time.time()) // 86_400 * 86_400
    window, other = ("key:1", "day", today), ("team:1", "month", today)

    def add(_: int) -> None:
        store = open_store()
        store.add_usage({window: Spent(0.5, 10, 1), other: Spent(1, 1, 1)})
        store.add_usage({window: Spent(0.25, 0, 0)})
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(8)))
    store = open_store()
    assert store.usage([("day", today), ("week", today)]) == {window: Spent(6, 80, 8)}
    assert store.all_usage() == {window: Spent(6, 80, 8), other: Spent(8, 8, 8)}


def test_usage_of_periods_that_are_long_over_is_deleted(open_store: Open) -> None:
    now = int(time.time())
    kept: dict[Window, Spent] = {
        ("key:1", "minute", now): Spent(1, 1, 1),
        ("key:1", "day", now - 40 * 86_400): Spent(1, 1, 1),
    }
    old: dict[Window, Spent] = {
        ("key:1", "minute", now - 2 * 86_400): Spent(1, 1, 1),
        ("key:1", "day", now - 90 * 86_400): Spent(1, 1, 1),
    }
    store = open_store()
    store.add_usage({**kept, **old})
    assert store.all_usage() == kept


def row(name: str, value: str, kind: str = "quirks") -> LearnedRow:
    return LearnedRow(kind, name, value)


def replace_it(news: LearnedRow, stored: str | None) -> str | None:
    return news.value


def test_what_was_learned_is_read_from_a_position_on(open_store: Open) -> None:
    store, other = open_store(), open_store()
    assert other.learned(0) == (0, [])
    store.merge_learned([row("b", "1"), row("a", "1"), row("a", "2", "window")], replace_it)
    first, found = other.learned(0)
    assert found == [row("a", "1"), row("b", "1"), row("a", "2", "window")]
    assert other.learned(first) == (first, [])
    seen: list[tuple[str, str | None]] = []

    def note(news: LearnedRow, stored: str | None) -> str | None:
        seen.append((news.name, stored))
        return None if news.name == "a" else news.value

    store.merge_learned([row("a", "3"), row("b", "1"), row("c", "\u00e4 \U0001f600")], note)
    assert seen == [("a", "1"), ("b", "1"), ("c", None)]
    second, found = other.learned(first)
    assert second > first
    assert found == [row("c", "\u00e4 \U0001f600")], "what did not change is not read again"
    assert len(other.learned(second + 7)[1]) == 4, "a position of another database"
    store.merge_learned([row("a", "3")], replace_it)
    assert other.learned(second)[1] == [row("a", "3")]


def test_what_daemons_learn_at_once_is_merged_one_after_the_other(open_store: Open) -> None:
    def add(_: int) -> None:
        store = open_store()
        for _ in range(3):
            store.merge_learned(
                [row("b", "1"), row("a", "1")], lambda news, old: str(int(news.value) + int(old or 0))
            )
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert open_store().learned(0)[1] == [row("a", "12"), row("b", "12")]


def test_the_oldest_of_too_much_that_was_learned_is_deleted(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in (sqlite, postgres):
        monkeypatch.setattr(engine, "MAX_LEARNED", 3)
    store = open_store()
    for number in range(6):
        store.merge_learned([row(f"n{number}", "1")], replace_it)
    assert [each.name for each in store.learned(0)[1]] == ["n3", "n4", "n5"]
    for engine in (sqlite, postgres):
        monkeypatch.setattr(engine, "LEARNED_KEPT_S", -60)
    store.merge_learned([row("n6", "1")], replace_it)
    assert store.learned(0)[1] == [], "all are too old"
