"""What is special to the SQLite store: its file. What all stores do is in test_stores.py."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyd.store.interface import StoreFailed
from proxyd.store.sqlite import MIGRATIONS, SqliteKeyStore
from proxyd.store.virtual_keys import Directory, Spent, VirtualKey

KEY = VirtualKey("id-1", "alice", "digest-1", 1000.5)


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


def test_the_file_is_private(store: SqliteKeyStore, path: Path) -> None:
    store.put_key(KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


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
