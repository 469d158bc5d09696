"""The ledger: what a row holds, and that nothing which happens to its file ever reaches a call."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.telemetry import ledger_queries as stats
from proxyd.telemetry.ledger import Ledger
from proxyd.telemetry.ledger_schema import COLUMNS, FILE, MIGRATIONS, row_of
from tests.support.harness import running_proxy
from tests.support.observing import finished, new_ledger_file, rows, until_rows
from tests.support.raw_sockets import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write at once, so that no test waits for a batch to fill."""
    monkeypatch.setattr("proxyd.telemetry.ledger._BATCH_S", 0.005)


@asynccontextmanager
async def open_ledger(
    folder: Path, days: int = 90, *, queued: Iterable[tuple[Any, ...]] = (), **more: Any
) -> AsyncIterator[Ledger]:
    """A ledger at work; what is `queued` before its thread starts is one batch."""
    ledger = Ledger(folder / FILE, lambda: days, **more)
    for row in queued:
        ledger.observe(row)
    ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


async def until_trouble(ledger: Ledger) -> str:
    async def seen() -> str:
        while ledger.trouble is None:
            await asyncio.sleep(0.01)
        return ledger.trouble

    return await asyncio.wait_for(seen(), 30)


async def test_row_of_a_call(tmp_path: Path) -> None:
    record = finished(
        agent_id="a1",
        retries=2,
        fallback_from="first",
        kind="compact",
        is_stream=True,
        pricing=Pricing(3, 15, 0.3, None),
        usage=Usage(1_000_000, 200_000, 500_000, 100_000, 50_000),
    )
    async with open_ledger(tmp_path) as ledger:
        ledger.observe(row_of(record))
        (row,) = await until_rows(tmp_path, 1)
    assert row["cost_usd"] == pytest.approx(3 + 3 + 0.15 + 0.3)
    expected = {
        "session_id": record.session_id,
        "agent_id": "a1",
        "kind": "compact",
        "is_stream": 1,
        "input_tokens": 1_000_000,
        "output_tokens": 200_000,
        "cache_read_tokens": 500_000,
        "cache_write_tokens": 100_000,
        "reasoning_tokens": 50_000,
        "is_estimated": 0,
        "ttfb_ms": 250,
        "duration_ms": 2000,
        "retries": 2,
        "fallback_from": "first",
        "outcome": "ok",
        "stop_reason": "end_turn",
    }
    assert {name: row[name] for name in expected} == expected
    assert set(row) == {"id", *COLUMNS}
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


PRICES = [
    (Pricing(1, 2), Usage(1_000_000, 1_000_000), 3.0),
    (Pricing(1, 2), Usage(0, 0, 1_000_000, 0), 1.0),  # cached as input where nothing else is said
    (Pricing(1, 2, 0.1, 1.25), Usage(0, 0, 1_000_000, 1_000_000), 1.35),
    (Pricing(1, None), Usage(10, 10), None),  # a price is missing: unknown, not 0
    (Pricing(1, None), Usage(1_000_000, 0), 1.0),
    (None, Usage(10, 10), None),
]


@pytest.mark.parametrize(("pricing", "usage", "cost"), PRICES)
def test_cost(pricing: Pricing | None, usage: Usage, cost: float | None) -> None:
    assert finished(pricing=pricing, usage=usage).cost_usd == (None if cost is None else pytest.approx(cost))


async def test_totals_are_the_sums_of_the_rows(tmp_path: Path) -> None:
    async with open_ledger(tmp_path, days=0) as ledger:
        for number in range(40):
            call = finished(
                started_at=900.0 * (number % 3) + number,
                route=f"r{number % 2}",
                session_id=None if number % 5 == 0 else "s",
                usage=Usage(number, 1, 2, 3, None, number % 7 == 0),
                kind="count" if number % 10 == 9 else "main",
            )
            ledger.observe(row_of(call))
        await until_rows(tmp_path, 40)
    keys = "CAST(started_at AS INTEGER) / 900, ifnull(session_id, ''), route, outcome"
    own = rows(
        tmp_path,
        f"SELECT {keys}, count(*) AS calls, sum(input_tokens) AS i, sum(is_estimated) AS e, sum(duration_ms) AS d "
        f"FROM calls WHERE kind <> 'count' GROUP BY {keys} ORDER BY 1, 2, 3, 4",
    )
    kept = rows(
        tmp_path,
        "SELECT quarter, session_id, route, outcome, calls, input_tokens AS i, estimated_calls AS e, "
        "duration_ms AS d FROM session_totals ORDER BY 1, 2, 3, 4",
    )
    assert [tuple(row.values()) for row in own] == [tuple(row.values()) for row in kept]
    assert sum(row["calls"] for row in kept) == 36
    keys = "quarter, route, outcome"
    own = rows(
        tmp_path, f"SELECT {keys}, sum(calls) AS c FROM session_totals GROUP BY {keys} ORDER BY {keys}"
    )
    assert own == rows(tmp_path, f"SELECT {keys}, calls AS c FROM totals ORDER BY {keys}")


@pytest.mark.parametrize("count", [1, 2, 31, 33, 127, 128, 129, 300])
async def test_batches_of_any_size_are_written_in_order(tmp_path: Path, count: int) -> None:
    async with open_ledger(tmp_path) as ledger:
        for number in range(count):
            ledger.observe(row_of(finished(request_id=f"req_{number}")))
        seen = await until_rows(tmp_path, count)
    assert [row["request_id"] for row in seen] == [f"req_{number}" for number in range(count)]


async def test_batch_is_written_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last statement of a transaction fails, and succeeds later."""
    monkeypatch.setattr("proxyd.telemetry.ledger._FIRST_PAUSE_S", 0.02)
    database = new_ledger_file(tmp_path / FILE)
    database.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON calls WHEN new.request_id = 'req_last' "
        "BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    database.commit()
    names = [*(f"req_{number}" for number in range(128)), "req_last"]
    queued = [row_of(finished(request_id=name)) for name in names]
    async with open_ledger(tmp_path, queued=queued) as ledger:
        assert "no room" in await until_trouble(ledger)
        assert rows(tmp_path) == []
        database.execute("DROP TRIGGER refuse")
        database.commit()
        database.close()
        seen = await until_rows(tmp_path, 129)
    assert [row["request_id"] for row in seen] == names


async def test_two_ledgers_share_a_file(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as one, open_ledger(tmp_path) as other:
        for number in range(100):
            (one, other)[number % 2].observe(row_of(finished(request_id=f"req_{number}")))
            if number % 10 == 0:
                await asyncio.sleep(0)
        seen = await until_rows(tmp_path, 100)
    assert len({row["request_id"] for row in seen}) == 100
    assert one.trouble is None
    assert other.trouble is None


async def test_locked_file_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.telemetry.ledger._BUSY_MS", 10)
    monkeypatch.setattr("proxyd.telemetry.ledger._FIRST_PAUSE_S", 0.02)
    blocker = new_ledger_file(tmp_path / FILE)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        async with open_ledger(tmp_path) as ledger:
            ledger.observe(row_of(finished()))
            assert "locked" in await until_trouble(ledger)
            blocker.rollback()
            await until_rows(tmp_path, 1)
            ledger.observe(row_of(finished()))
            await until_rows(tmp_path, 2)
            assert ledger.trouble is None
            assert ledger.dropped == 0
    finally:
        blocker.close()


async def test_newest_rows_are_kept_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyd.telemetry.ledger._MAX_WAITING", 3)
    monkeypatch.setattr("proxyd.telemetry.ledger._FIRST_PAUSE_S", 0.02)
    database = new_ledger_file(tmp_path / FILE)
    database.execute(
        "CREATE TRIGGER full BEFORE INSERT ON calls BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
    )
    database.commit()
    async with open_ledger(tmp_path) as ledger:
        for number in range(5):
            ledger.observe(row_of(finished(request_id=f"req_{number}")))
        assert "disk is full" in await until_trouble(ledger)
        database.execute("DROP TRIGGER full")
        database.commit()
        database.close()
        seen = await until_rows(tmp_path, 3)
        assert [row["request_id"] for row in seen] == ["req_2", "req_3", "req_4"]
        assert ledger.dropped == 2


async def test_newer_format_is_reported_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / FILE
    database = new_ledger_file(path)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    before = path.read_bytes()
    async with open_ledger(tmp_path) as ledger:
        ledger.observe(row_of(finished()))
        trouble = await until_trouble(ledger)
        assert "was written by a newer claude-proxy" in trouble
        assert str(path) in trouble
        ledger.observe(row_of(finished()))
        assert ledger.dropped == 2
    assert path.read_bytes() == before


def _no_database(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be taken for one " * 40)


def _torn_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def _zeros_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 5] = bytes(4096 * 2)
    path.write_bytes(data)


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _missing_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE totals")
        database.commit()


DAMAGES = [_no_database, _torn_pages, _zeros_in_the_middle, _cut, _missing_table]


def damaged_ledger(path: Path, damage: Callable[[Path], None]) -> bytes:
    """A ledger of a few hundred calls, then damaged; gives its bytes."""
    database = new_ledger_file(path)
    database.execute("PRAGMA journal_mode = DELETE")
    insert = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    database.executemany(insert, [row_of(finished(request_id=f"old_{number}")) for number in range(300)])
    database.commit()
    database.close()
    damage(path)
    return path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_file_is_moved_aside(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    before = damaged_ledger(tmp_path / FILE, damage)
    with capture_logs() as lines:
        async with open_ledger(tmp_path) as ledger:
            ledger.observe(row_of(finished(request_id="req_new")))
            await until(lambda: bool(ledger.moved), 30)
            (seen,) = await until_rows(tmp_path, 1)
            assert (ledger.trouble, ledger.dropped) == (None, 0)
    assert seen["request_id"] == "req_new"
    (said,) = [line for line in lines if line["event"] == "ledger.damaged"]
    (moved,) = stats.damaged_files(tmp_path / FILE)
    assert said["moved_to"] == str(moved)
    assert moved.read_bytes()[4096:] == before[4096:]
    assert re.fullmatch(r"usage\.db\.damaged-\d{8}T\d{6}Z", moved.name)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_stats_report_a_damaged_ledger_and_recover(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damaged_ledger(tmp_path / FILE, damage)
    entry = {"model_id": "m", "api_base": "http://127.0.0.1:9/v1"}
    async with running_proxy([entry], state_folder=tmp_path) as base, aiohttp.ClientSession() as session:

        async def ask() -> dict[str, Any]:
            async with session.get(f"{base}/v1/stats") as response:
                assert response.status == 200
                found: dict[str, Any] = await response.json()
                return found

        first = await ask()
        assert "is damaged" in first["ledger"]["trouble"]
        for _ in range(200):
            last = await ask()
            if last["ledger"]["damaged"] and last["ledger"]["trouble"] is None:
                break
            await asyncio.sleep(0.05)
        assert last["ledger"]["damaged"]
        assert last["today"]["total"]["calls"] == 0


async def test_files_damaged_in_the_same_second_are_both_kept(tmp_path: Path) -> None:
    async with open_ledger(tmp_path, now=lambda: 1e9) as ledger:
        for number in (1, 2):
            _no_database(tmp_path / FILE)
            ledger.suspect()
            await until(lambda number=number: len(ledger.moved) == number, 30)
    assert len(stats.damaged_files(tmp_path / FILE)) == 2


@pytest.mark.parametrize("what", ["folder", "file", "exchanged"])
async def test_removed_file_is_created_again(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "state"
    async with open_ledger(folder) as ledger:
        ledger.observe(row_of(finished(request_id="req_1")))
        await until_rows(folder, 1)
        if what == "folder":
            shutil.rmtree(folder)
        elif what == "file":
            (folder / FILE).unlink()
        else:
            folder.rename(tmp_path / "old")
            folder.mkdir()
            new_ledger_file(folder / FILE).close()
        ledger.observe(row_of(finished(request_id="req_2")))
        await until(lambda: (folder / FILE).exists() and (folder / FILE).stat().st_size > 0, 30)
        (seen,) = await until_rows(folder, 1)
        assert seen["request_id"] == "req_2"
        assert ledger.dropped == 0


async def test_folder_that_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.telemetry.ledger._FIRST_PAUSE_S", 0.02)
    (tmp_path / "state").write_text("a file where the folder should be")
    async with open_ledger(tmp_path / "state") as ledger:
        ledger.observe(row_of(finished()))
        assert "cannot be written" in await until_trouble(ledger)
        (tmp_path / "state").unlink()
        await until_rows(tmp_path / "state", 1)


async def test_old_rows_are_deleted(tmp_path: Path) -> None:
    now = 100 * 86_400.0 + 1000
    database = new_ledger_file(tmp_path / FILE)
    insert = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    for age_days in (0, 1, 6.9, 7.1, 50):
        row = row_of(finished(request_id=f"req_{age_days}", started_at=now - age_days * 86_400))
        database.execute(insert, row)
    database.commit()
    database.close()

    async def until_cleared() -> None:
        while len(rows(tmp_path)) != 4:
            await asyncio.sleep(0.02)

    async with open_ledger(tmp_path, 7, now=lambda: now) as ledger:
        ledger.observe(row_of(finished(request_id="req_new", started_at=now)))
        await asyncio.wait_for(until_cleared(), 30)
    assert [row["request_id"] for row in rows(tmp_path)] == ["req_0", "req_1", "req_6.9", "req_new"]
    (left,) = rows(tmp_path, "SELECT sum(calls) AS calls FROM session_totals")
    assert left["calls"] == 4


async def test_clock_that_jumps_ahead_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyd.telemetry.ledger._RETENTION_S", 0.0)
    today = 20_000 * 86_400.0
    now = today
    async with open_ledger(tmp_path, 90, now=lambda: now) as ledger:
        for age in (80, 3, 1.5, 0):
            ledger.observe(row_of(finished(request_id=f"req_{age}", started_at=today - age * 86_400)))
        await until_rows(tmp_path, 4)
        now = today + 10 * 365 * 86_400.0
        with capture_logs() as lines:
            for number in range(2):
                ledger.observe(row_of(finished(request_id=f"req_far_{number}", started_at=now)))
                await until_rows(tmp_path, 5 + number)
            await until(lambda: any(line["event"] == "ledger.clock" for line in lines), 30)
        assert len(rows(tmp_path)) == 6
        now = today + 20 * 86_400.0  # right again: what is old enough goes
        ledger.observe(row_of(finished(request_id="req_after", started_at=now)))
        await until(lambda: all(row["request_id"] != "req_80" for row in rows(tmp_path)), 30)
        ids = {row["request_id"] for row in rows(tmp_path)}
        assert ids >= {"req_3", "req_1.5", "req_0", "req_far_0"}


async def test_waiting_rows_are_written_at_close(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.observe(row_of(finished()))
    assert len(rows(tmp_path)) == 1


def test_every_format_is_migrated(tmp_path: Path) -> None:
    """A file that an earlier version began has the same tables as a new one once it is migrated."""

    def tables(path: Path) -> list[Any]:
        database = sqlite3.connect(path)
        found = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        database.close()
        return found

    async def migrated(path: Path) -> None:
        ledger = Ledger(path, lambda: 0)
        ledger.start()
        ledger.observe(row_of(finished()))
        await ledger.close()
        assert ledger.trouble is None

    new_ledger_file(tmp_path / "new.db").close()
    for version in range(len(MIGRATIONS)):
        old = tmp_path / f"{version}.db"
        database = sqlite3.connect(old)
        database.executescript("".join(MIGRATIONS[:version]))
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
        database.close()
        asyncio.run(migrated(old))
        assert tables(old) == tables(tmp_path / "new.db")
