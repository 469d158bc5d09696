"""The SQLite store of virtual keys: what one process writes, others read."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from proxyd.store.interface import StoreFailed
from proxyd.store.sqlite import MIGRATIONS, SqliteKeyStore
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
TEAM = Team("research", (Limit(1e6, "tokens", "month"),), 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteKeyStore]:
    store = SqliteKeyStore(path)
    yield store
    store.close()


def test_without_a_file_there_are_no_keys_and_none_is_made(store: SqliteKeyStore, path: Path) -> None:
    assert (store.directory(), store.usage([("day", 0)])) == (Directory(), {})
    store.add_usage({})
    assert not path.exists()


def test_keys_and_teams_come_back_as_they_were(store: SqliteKeyStore, path: Path) -> None:
    store.put_team(TEAM)
    store.put_key(KEY)
    other = SqliteKeyStore(path)
    assert other.directory() == store.directory() == Directory((KEY,), (TEAM,))
    store.put_key(replace(KEY, revoked_at=1500.0))
    assert other.directory().keys[0].revoked_at == 1500.0
    other.remove_team("research")
    assert store.directory().teams == ()
    other.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_usage_adds_up_over_processes(path: Path) -> None:
    window, other = ("key:1", "day", 900_000_000), ("key:1", "day", 900_086_400)

    def add(_: int) -> None:
        store = SqliteKeyStore(path)
        store.add_usage({window: Spent(0.5, 10, 1), other: Spent(1, 1, 1)})
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    store = SqliteKeyStore(path)
    assert store.usage([("day", 900_000_000)]) == {window: Spent(10, 200, 20)}
    store.add_usage({("key:1", "day", 900_000_000 + 90 * 86_400): Spent(1, 1, 1)})
    assert store.usage([("day", 900_000_000)]) == {}, "periods that are long over are deleted"
    store.close()


def test_a_file_that_is_removed_is_begun_anew(store: SqliteKeyStore, path: Path) -> None:
    store.put_key(KEY)
    path.unlink()
    assert store.directory() == Directory()
    store.put_key(KEY)
    assert store.directory().keys == (KEY,)


def test_what_is_no_database_is_reported(store: SqliteKeyStore, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"this is no database, whatever its name" * 100)
    for use in (
        store.directory,
        lambda: store.put_key(KEY),
        lambda: store.add_usage({("a", "day", 1): Spent()}),
    ):
        with pytest.raises(StoreFailed, match=r"keys\.db cannot be read or written"):
            use()


def test_a_newer_format_is_not_touched(store: SqliteKeyStore, path: Path) -> None:
    store.put_key(KEY)
    store.close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.commit()
    database.close()
    with pytest.raises(StoreFailed, match="newer claude-proxy: update"):
        store.directory()
