"""What is special to the PostgreSQL store: migrations, news, outages, and answers that are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.config.database_url import parse_database_url
from proxyd.store.interface import StoreFailed
from proxyd.store.postgres import PostgresKeyStore
from proxyd.store.postgres_schema import MIGRATIONS
from proxyd.store.virtual_keys import Directory, Spent, VirtualKey
from tests.support.postgres import PASSWORD, Postgres, losing_answers, running_postgres

KEY = VirtualKey("id-1", "alice", "digest-1", 1000.5)
TODAY = int(time.time()) // 86_400 * 86_400
WINDOW = ("key:1", "day", TODAY)

#: Opens a store on one database.
Open = Callable[..., PostgresKeyStore]


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def open_store(url: str) -> Iterator[Open]:
    opened: list[PostgresKeyStore] = []

    def open_it(spool: Path | None = None, **more: Any) -> PostgresKeyStore:
        opened.append(PostgresKeyStore(parse_database_url(url), spool, **{"timeout_s": 20.0, **more}))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


def until_stored(store: PostgresKeyStore, spent: Spent) -> None:
    """Try again as the daemon does: on a busy machine one second may be too little."""
    for _ in range(20):
        try:
            return store.add_usage({WINDOW: spent})
        except StoreFailed:
            time.sleep(0.1)
    raise AssertionError("it could not be stored")


# -- migrations


def test_of_daemons_that_start_together_one_makes_the_tables(
    open_store: Open, postgres: Postgres, url: str
) -> None:
    stores = [open_store() for _ in range(6)]
    with ThreadPoolExecutor(len(stores)) as pool:
        assert list(pool.map(PostgresKeyStore.directory, stores)) == [Directory()] * len(stores)
    assert postgres.sql(url, "SELECT version FROM schema_version") == str(len(MIGRATIONS))


def test_a_newer_database_is_used_if_it_allows_it(open_store: Open, postgres: Postgres, url: str) -> None:
    open_store().put_key(KEY)
    newer = len(MIGRATIONS) + 1
    postgres.sql(url, f"UPDATE schema_version SET version = {newer}")
    assert open_store().directory().keys == (KEY,), "a migration that only adds something"
    postgres.sql(url, f"UPDATE schema_version SET usable_from = {newer}")
    with pytest.raises(StoreFailed, match=f"have format {newer}, that of a newer claude-proxy"):
        open_store().directory()


# -- news


def test_a_change_is_announced_and_read_again_only_then(open_store: Open) -> None:
    news = threading.Event()
    watcher, other = open_store(on_change=news.set), open_store()
    first = watcher.directory()
    assert watcher.directory() is first
    other.put_key(KEY)
    assert news.wait(5)
    assert watcher.directory().keys == (KEY,)
    news.clear()
    other.put_key(replace(KEY, revoked_at=5.0))
    assert news.wait(5)
    assert watcher.directory().keys[0].revoked_at == 5.0


def test_news_that_were_lost_with_the_connection_are_found_by_asking(
    open_store: Open, postgres: Postgres, url: str
) -> None:
    watcher = open_store(on_change=lambda: None)
    watcher.directory()
    postgres.sql(
        url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'claude-proxy'"
    )
    open_store().put_key(KEY)
    with suppress(StoreFailed):  # unless the end of the connection has been noticed before
        watcher.directory()
    assert watcher.directory().keys == (KEY,)


# -- outages


def test_what_cannot_be_reached_is_named_without_its_password(postgres: Postgres) -> None:
    for url, expected in (
        (postgres.url("nosuch"), "nosuch"),
        (postgres.url("test1", "a-wrong-password"), "password authentication failed"),
        ("postgresql://proxy:a-wrong-password@127.0.0.1:1/test", r"127\.0\.0\.1:1/test cannot be used"),
        ("postgresql://proxy:a-wrong-password@/test?host=/nowhere", "cannot be used"),
    ):
        store = PostgresKeyStore(parse_database_url(url), timeout_s=20)
        with pytest.raises(StoreFailed, match=expected) as caught:
            store.directory()
        assert PASSWORD not in caught.value.message
        assert "a-wrong-password" not in caught.value.message + repr(parse_database_url(url))
        store.close()


def test_an_answer_that_was_lost_adds_nothing_twice(open_store: Open) -> None:
    store = open_store()
    store.add_usage({WINDOW: Spent(1, 1, 1)})
    with losing_answers(store._database):
        with pytest.raises(StoreFailed):
            store.add_usage({WINDOW: Spent(2, 2, 1)})
        with pytest.raises(StoreFailed):
            store.add_usage({WINDOW: Spent(5, 5, 2)})  # the same and 3 more
    store.add_usage({WINDOW: Spent(9, 9, 3)})  # the same and 4 more
    assert store.all_usage() == {WINDOW: Spent(10, 10, 4)}
    store.add_usage({WINDOW: Spent(1, 1, 1)})
    assert store.all_usage() == {WINDOW: Spent(11, 11, 5)}


def test_what_a_daemon_leaves_behind_is_stored_by_the_next_one(open_store: Open, tmp_path: Path) -> None:
    folder = tmp_path / "waiting"
    dead = PostgresKeyStore(parse_database_url("postgresql://p@127.0.0.1:1/x"), folder)
    minute = ("key:1", "minute", TODAY)
    with pytest.raises(StoreFailed):
        dead.add_usage({WINDOW: Spent(2, 2, 1), minute: Spent(2, 2, 1)})
    alive = open_store(folder)
    alive.add_usage({})
    assert alive.all_usage() == {}, "its daemon may still send it"
    dead.close()
    following = open_store(folder)
    following.add_usage({WINDOW: Spent(1, 1, 1)})
    assert following.all_usage() == {WINDOW: Spent(3, 3, 2)}
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_read_is_reported_and_left(open_store: Open, tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"sender": "cut", "numb')
    store = open_store(tmp_path)
    with capture_logs() as lines:
        store.add_usage({WINDOW: Spent(1, 1, 1)})
    assert [line["event"] for line in lines] == ["keys.spool_unreadable"]
    assert (tmp_path / "cut.json").exists()
    assert store.all_usage() == {WINDOW: Spent(1, 1, 1)}


def test_a_server_that_stops_and_freezes_costs_nothing_but_time(tmp_path: Path) -> None:
    with running_postgres() as server:  # of its own, since other tests use the shared one meanwhile
        store = PostgresKeyStore(parse_database_url(server.new_database()), tmp_path, timeout_s=1)
        until_stored(store, Spent(1, 1, 1))
        server.stop()
        with pytest.raises(StoreFailed):
            store.add_usage({WINDOW: Spent(1, 1, 1)})
        assert len(list(tmp_path.glob("*.json"))) == 1
        server.start()
        until_stored(store, Spent(2, 2, 2))
        assert list(tmp_path.iterdir()) == []
        server.freeze(is_on=True)
        try:
            began = time.monotonic()
            for _ in range(2):
                with pytest.raises(StoreFailed, match=r"no answer within 1 s|cannot be used"):
                    store.add_usage({WINDOW: Spent(4, 4, 4)})
            assert time.monotonic() - began < 30
        finally:
            server.freeze(is_on=False)
        until_stored(store, Spent(5, 5, 5))
        assert store.all_usage() == {WINDOW: Spent(8, 8, 8)}
        store.close()


# -- the daemons that share it


def test_replicas_are_known_until_they_leave_or_are_gone(
    open_store: Open, postgres: Postgres, url: str
) -> None:
    one, two = open_store(), open_store()
    assert one.announce("a:1", "hash-1", 180) == {"a:1": "hash-1"}
    assert two.announce("b:1", "hash-2", 180) == {"a:1": "hash-1", "b:1": "hash-2"}
    assert two.announce("b:1", "hash-1", 180) == {"a:1": "hash-1", "b:1": "hash-1"}
    postgres.sql(url, "UPDATE replicas SET seen_at = seen_at - 181 WHERE name = 'a:1'")
    assert two.announce("b:1", "hash-1", 180) == {"b:1": "hash-1"}
    assert postgres.sql(url, "SELECT count(*) FROM replicas") == "1"
    one.withdraw("b:1")
    assert one.announce("a:1", "hash-1", 180) == {"a:1": "hash-1"}
