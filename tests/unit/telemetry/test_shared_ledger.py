"""The same answers from a file and from a real PostgreSQL that has its rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.database_url import parse_database_url
from proxyd.config.routes import Pricing
from proxyd.store.virtual_keys import VirtualKey
from proxyd.telemetry import ledger_queries as stats
from proxyd.telemetry.ledger_forwarder import LedgerForwarder
from proxyd.telemetry.ledger_schema import COLUMNS, FILE, row_of
from proxyd.telemetry.shared_ledger import SharedLedger
from tests.support.observing import SESSION, finished, new_ledger_file
from tests.support.postgres import PASSWORD, Postgres

INSERT = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
NOW = time.time()
DAY_S = 86_400
ALICE = VirtualKey("id-1", "alice", "digest-1", 0.0, team="research")
PRICE = Pricing(1, 10, 0.1)
CALLS = (
    finished(started_at=NOW, route="kimi", pricing=PRICE, usage=Usage(1000, 100, 9000), prompt_id="p1"),
    finished(started_at=NOW - 1, route="kimi", pricing=PRICE, usage=Usage(2000, 200, 0, 0, 7, True), kind="title"),
    finished(started_at=NOW - 2, route="glm", prompt_id="p1", usage=Usage(1, 2), virtual_key=ALICE),
    finished(started_at=NOW - 3 * DAY_S, route="glm", outcome="refused", usage=Usage(), session_id="other"),
    finished(started_at=NOW - 3 * DAY_S - 5 * 3600, route="glm", usage=Usage(9, 5), session_id="other"),
    finished(started_at=NOW - 20 * DAY_S, route="glm", usage=Usage(5, 5), session_id="other", kind="count"),
    finished(started_at=NOW - 40 * DAY_S, route="glm", usage=Usage(7, 7), session_id=None),
)  # fmt: skip


def answers(ledger: stats.AnyLedger) -> dict[str, Any]:
    """Everything that is asked anywhere."""
    found: dict[str, Any] = {
        f"{by} of {session} since {days}": stats.sums(ledger, NOW - days * DAY_S, by=by, session=session)
        for by in (None, *stats.GROUPS)
        for session in (None, "other")
        for days in (1, 30, 90)
    }
    found["limited"] = stats.sums(ledger, 0, by="model", limit=1)
    found["overview"] = stats.overview(ledger, NOW)
    found["of a key"] = stats.overview_of_key(ledger, "alice", NOW)
    found["hours"] = stats.series(ledger, NOW - 7 * DAY_S, "hour")
    found["days"] = stats.series(ledger, NOW - 60 * DAY_S, "day")
    found["prompt"] = stats.last_prompt(ledger, SESSION)
    found["no prompt"] = stats.last_prompt(ledger, "other")
    found["sessions"] = sorted(stats.sessions_like(ledger, SESSION[:4]))
    for name, rows in (
        ("calls", stats.calls_of_session(ledger, "other")),
        ("last", stats.last_calls(ledger, NOW - 5 * DAY_S)),
    ):
        found[name] = [
            {key: value for key, value in row.items() if key not in ("id", "ledger", "seq")} for row in rows
        ]
    return found


def as_floats(value: Any) -> Any:
    """Make sums comparable: those of prices depend on the order of the rows in their last digit."""
    if isinstance(value, dict):
        return {key: as_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_floats(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


def test_all_queries_agree(postgres: Postgres, tmp_path: Path) -> None:
    path, url = tmp_path / FILE, parse_database_url(postgres.new_database())
    file = new_ledger_file(path)
    file.executemany(INSERT, [row_of(each) for each in CALLS])
    file.commit()
    file.close()
    forwarder = LedgerForwarder(path, url, lambda: 0, timeout_s=20)
    forwarder.forward()
    forwarder._database.close()
    local, shared = stats.open_ledger(path), SharedLedger(url)
    expected, found = as_floats(answers(local)), as_floats(answers(shared))
    local.close()
    shared.close()
    for question, answer in expected.items():
        assert found[question] == answer, question
    assert len(expected["days"]) > 3
    assert expected["overview"]["days_30"]["by_day"]


def test_an_empty_database_has_no_calls(postgres: Postgres) -> None:
    shared = SharedLedger(parse_database_url(postgres.new_database()))
    assert stats.sums(shared, 0)[0]["calls"] == 0
    assert stats.series(shared, 0, "day") == []
    shared.close()


def test_what_cannot_be_reached_is_named(postgres: Postgres) -> None:
    shared = SharedLedger(parse_database_url(postgres.url("nosuch")))
    with pytest.raises(stats.LedgerUnreadable, match="nosuch") as caught:
        stats.sums(shared, 0)
    shared.close()
    assert PASSWORD not in caught.value.message
