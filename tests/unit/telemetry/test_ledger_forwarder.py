"""Rows of usage.db on their way into a real PostgreSQL: each of them once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.database_url import parse_database_url
from proxyd.store.interface import StoreFailed
from proxyd.telemetry import ledger_queries as stats
from proxyd.telemetry.ledger_forwarder import LedgerForwarder
from proxyd.telemetry.ledger_schema import COLUMNS, FILE, row_of
from proxyd.telemetry.shared_ledger import SharedLedger
from tests.support.observing import finished, new_ledger_file
from tests.support.postgres import Postgres, losing_answers

INSERT = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
DAY_S = 86_400


class Replica:
    """A ledger's file and what copies it."""

    def __init__(self, folder: Path, url: str, days: int = 90) -> None:
        folder.mkdir()
        self.path = folder / FILE
        new_ledger_file(self.path).close()
        self.forwarder = LedgerForwarder(self.path, parse_database_url(url), lambda: days, timeout_s=20)

    def add(self, *records: Any) -> None:
        with sqlite3.connect(self.path) as file:
            file.executemany(INSERT, [row_of(record) for record in records])
        file.close()

    def delete(self, where: str) -> None:
        with sqlite3.connect(self.path) as file:
            file.execute(f"DELETE FROM calls WHERE {where}")
        file.close()


def calls_in(url: str) -> int:
    shared = SharedLedger(parse_database_url(url))
    (total,) = stats.sums(shared, 0)
    listed = shared.rows("SELECT count(*) AS n FROM calls WHERE started_at >= ?", (0,))[0]["n"]
    shared.close()
    assert total["calls"] == listed, "the totals and the rows agree"
    return int(listed)


def close(*replicas: Replica) -> None:
    for each in replicas:
        each.forwarder._database.close()


def test_rows_of_several_files_arrive_once(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    one, two = Replica(tmp_path / "1", url), Replica(tmp_path / "2", url)
    one.add(*(finished(request_id=f"one-{number}") for number in range(2_500)))
    two.add(finished(request_id="two", model="with \0 and é", usage=Usage(1, 2)))
    for _ in range(3):
        one.forwarder.forward()
        two.forwarder.forward()
    assert calls_in(url) == 2_501
    one.add(finished())
    one.forwarder.forward()
    assert (calls_in(url), one.forwarder.waiting, one.forwarder.lost) == (2_502, 0, 0)
    restarted = LedgerForwarder(one.path, parse_database_url(url), lambda: 90, timeout_s=20)
    restarted.forward()
    restarted._database.close()
    assert calls_in(url) == 2_502
    close(one, two)


def test_an_answer_that_was_lost_adds_nothing_twice(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    replica = Replica(tmp_path / "1", url)
    replica.add(finished())
    with losing_answers(replica.forwarder._database), pytest.raises(StoreFailed):
        replica.forwarder.forward()
    replica.add(finished())
    replica.forwarder.forward()
    assert calls_in(url) == 2
    close(replica)


def test_numbers_that_sqlite_gives_again_are_not_skipped(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    replica = Replica(tmp_path / "1", url)
    replica.add(finished(), finished(), finished())
    replica.forwarder.forward()
    replica.delete("1")
    replica.add(finished())
    replica.forwarder.forward()
    assert (calls_in(url), replica.forwarder.lost) == (4, 0)
    close(replica)


def test_rows_that_were_deleted_before_they_were_copied_are_counted(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    replica = Replica(tmp_path / "1", url)
    replica.add(finished())
    replica.forwarder.forward()
    replica.add(finished(), finished(), finished())
    replica.delete("id IN (2, 3)")
    with capture_logs() as lines:
        replica.forwarder.forward()
    assert (calls_in(url), replica.forwarder.lost) == (2, 2)
    assert [line["event"] for line in lines] == ["ledger.rows_lost"]
    close(replica)


def test_old_rows_are_deleted(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    replica = Replica(tmp_path / "1", url, days=30)
    replica.add(finished(started_at=time.time() - 40 * DAY_S), finished(started_at=time.time() - 20 * DAY_S))
    replica.forwarder.forward()
    assert calls_in(url) == 2
    replica.forwarder._delete_old()
    assert calls_in(url) == 1
    close(replica)


async def test_an_outage_is_reported_once_and_the_rest_is_copied_at_the_end(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyd.telemetry.ledger_forwarder._PAUSE_S", 0.05)
    url = postgres.new_database()
    replica = Replica(tmp_path / "1", url)
    replica.add(finished())
    failing, run = replica.forwarder._database, replica.forwarder._database.run

    def fail(_: Any) -> Any:
        raise StoreFailed("the server is gone")

    monkeypatch.setattr(failing, "run", fail)
    with capture_logs() as lines:
        replica.forwarder.start()
        deadline = time.monotonic() + 5
        while replica.forwarder.trouble is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        monkeypatch.setattr(failing, "run", run)
        await replica.forwarder.close()
    assert [line["event"] for line in lines] == ["ledger.forward_failed", "ledger.forward_recovered"]
    assert calls_in(url) == 1
    assert replica.forwarder.trouble is None
