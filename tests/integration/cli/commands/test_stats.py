"""``claude-proxy statusline``: the current model, its own routes, and the session's sums."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from proxyd.proxy.key_ring import KeyRing
from proxyd.proxy.near_limits import FILE as LIMITS_FILE
from proxyd.proxy.near_limits import NearLimitsFile
from proxyd.store.sqlite import FILE as KEYS_FILE
from proxyd.store.sqlite import SqliteKeyStore
from proxyd.store.virtual_keys import Limit, Spent, Team, VirtualKey, start_of
from proxyd.telemetry import ledger_queries
from proxyd.telemetry.ledger_queries import LedgerUnreadable
from proxyd.telemetry.ledger_schema import COLUMNS, FILE, MIGRATIONS, row_of
from tests.support.command_line import output
from tests.support.observing import SESSION, finished, new_ledger_file


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / ".local" / "state" / "claude-proxy"
    folder.mkdir(parents=True)
    database = new_ledger_file(folder / FILE)
    insert = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    records = (
        finished(model="qwen-local", route="qwen-local"),
        finished(model="small-win", route="small-win"),
        finished(model="claude-haiku-4-5", route="qwen-local"),
        finished(model="chain", route="chain"),
        finished(model="chain", route="spare"),
    )
    database.executemany(insert, [row_of(record) for record in records])
    database.commit()
    database.close()
    return tmp_path


@pytest.mark.parametrize(
    ("model_id", "start"),
    [
        ("qwen-local", "qwen-local · 2.0k in"),
        ("small-win", "small-win · 2.0k in"),
        ("small-win[1m]", "small-win[1m] · 2.0k in"),
        ("claude-haiku-4-5", "claude-haiku-4-5 via qwen-local · 2.0k in"),
        ("chain", "chain via spare, chain · 2.0k in"),
        ("never-called", "never-called · 2.0k in"),
    ],
)
def test_only_the_routes_of_the_current_model_are_named(home: Path, model_id: str, start: str) -> None:
    given = json.dumps({"session_id": SESSION, "model": {"id": model_id}})
    assert output(home, "statusline", stdin=given).startswith(start)


def test_the_last_prompt_has_its_calls_and_cost(home: Path) -> None:
    database = sqlite3.connect(home / ".local" / "state" / "claude-proxy" / FILE)
    insert = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    records = [
        finished(prompt_id=name, started_at=at)
        for at, name in enumerate(("p1", "p2", "p2", "p2"), 10_000_000_000)
    ]
    database.executemany(insert, [row_of(record) for record in records])
    database.commit()
    database.close()
    given = json.dumps({"session_id": SESSION, "model": {"id": "m"}})
    assert " · this prompt: 3 calls" in output(home, "statusline", stdin=given)
    found = json.loads(output(home, "stats", "--by", "prompt", "--since", "4w", "--json"))
    assert {row["prompt"]: row["calls"] for row in found["rows"]} == {"p1": 1, "p2": 3, None: 5}


def test_limits_that_are_nearly_used_up_are_shown(home: Path) -> None:
    folder = home / ".local" / "state" / "claude-proxy"
    now = time.time()
    limits = (Limit(20, "usd", "day"), Limit(1000, "tokens", "week"))
    key = VirtualKey("1", "alice", "digest", now, limits=limits, team="research")
    database = sqlite3.connect(folder / FILE)
    insert = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    database.execute(insert, row_of(finished(virtual_key=key, started_at=10_000_000_000)))
    database.commit()
    database.close()
    store = SqliteKeyStore(folder / KEYS_FILE)
    store.put_team(Team("research", (Limit(100, "usd", "month"),)))
    store.put_key(key)
    ring = KeyRing()
    limits_file = NearLimitsFile(ring, folder / LIMITS_FILE)

    def exchange() -> None:
        """As the daemon does."""
        news = ring.begin_exchange()
        news.run(store)
        ring.end_exchange(news)
        limits_file.begin()()()

    given = json.dumps({"session_id": SESSION, "model": {"id": "m"}})
    assert "alice" not in output(home, "statusline", stdin=given)
    exchange()
    assert "alice" not in output(home, "statusline", stdin=given)
    windows = {("key:1", each, start_of(each, now)): Spent(16, 10, 1) for each in ("day", "week")}
    store.add_usage({**windows, ("team:research", "month", start_of("month", now)): Spent(99, 1, 1)})
    exchange()
    store.close()
    line = output(home, "statusline", stdin=given).strip()
    assert line.endswith(" · alice: 80% of $20.00 a day · research: 99% of $100.00 a month")
    found = json.loads(output(home, "stats", "--by", "key", "--since", "4w", "--json"))
    assert {row["key"]: row["calls"] for row in found["rows"]} == {"alice": 1, None: 5}


def test_a_ledger_that_was_not_converted_yet_is_no_damaged_one(home: Path) -> None:
    path = home / ".local" / "state" / "claude-proxy" / FILE
    path.unlink()
    database = sqlite3.connect(path)
    database.executescript("".join(MIGRATIONS[:2]) + "PRAGMA user_version = 2;")
    insert = f"INSERT INTO calls ({', '.join(COLUMNS[:-6])}) VALUES ({', '.join('?' * (len(COLUMNS) - 6))})"
    database.execute(insert, row_of(finished())[:-6])
    database.commit()
    database.close()
    given = json.dumps({"session_id": SESSION, "model": {"id": "m"}})
    assert output(home, "statusline", stdin=given).startswith("m · ")
    with pytest.raises(LedgerUnreadable, match="older claude-proxy: restart the daemon"):
        ledger_queries.sums(ledger_queries.open_ledger(path), 0, by="prompt")
