"""Questions to the ledger: right sums, plans that use the indexes, and what the commands print."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.telemetry import ledger_queries as stats
from proxyd.telemetry.ledger_schema import COLUMNS, FILE, MIGRATIONS, row_of
from tests.support.command_line import output, run
from tests.support.observing import SESSION, finished, new_ledger_file

INSERT = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
NOW = time.time()
DAY_S = 86_400
STATE = Path(".local/state/claude-proxy")


def fill(folder: Path, *records: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    database = new_ledger_file(folder / FILE)
    database.executemany(INSERT, [row_of(record) for record in records])
    database.commit()
    database.close()
    return folder / FILE


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    price = Pricing(1, 10, 0.1)
    return fill(
        tmp_path / STATE,
        finished(started_at=NOW, route="kimi", pricing=price, usage=Usage(1000, 100, 9000)),
        finished(
            started_at=NOW,
            route="kimi",
            pricing=price,
            usage=Usage(2000, 200, 0, 0, None, True),
            kind="title",
        ),
        finished(
            started_at=NOW - 3 * DAY_S, route="glm", outcome="refused", usage=Usage(), session_id="other"
        ),
        finished(started_at=NOW - 20 * DAY_S, route="glm", usage=Usage(5, 5), session_id="other"),
        finished(started_at=NOW - 40 * DAY_S, route="glm", usage=Usage(7, 7), session_id=None),
    )


def test_sums(ledger: Path) -> None:
    database = stats.open_ledger(ledger)
    (kimi, glm) = stats.sums(database, NOW - 30 * DAY_S, by="model")
    assert (kimi["model"], kimi["calls"], kimi["input_tokens"], kimi["estimated_calls"]) == (
        "kimi",
        2,
        3000,
        1,
    )
    assert kimi["cost_usd"] == pytest.approx((3000 + 3000 + 900) / 1e6)
    assert (glm["calls"], glm["unpriced_calls"]) == (2, 2)
    (total,) = stats.sums(database, 0)
    assert (total["calls"], total["output_tokens"]) == (5, 312)
    assert [row["session"] for row in stats.sums(database, 0, by="session")] == [SESSION, "", "other"]
    assert [row["outcome"] for row in stats.sums(database, 0, by="outcome")] == ["ok", "refused"]
    kinds = stats.sums(database, 0, by="kind")
    assert {row["kind"] for row in kinds} == {"main", "title"}
    assert {name: sum(row[name] for row in kinds) for name in stats.SUMS} == pytest.approx(
        {name: total[name] for name in stats.SUMS}
    )
    assert (
        sum(row["calls"] for row in stats.sums(database, 0, by="kind", session=SESSION))
        == (stats.sums(database, 0, session=SESSION)[0]["calls"])
    )
    assert (
        sum(row["calls"] for row in stats.sums(database, NOW - DAY_S, by="kind"))
        == (stats.sums(database, NOW - DAY_S)[0]["calls"])
    )
    days = [row["day"] for row in stats.sums(database, 0, by="day")]
    assert days == sorted(days)
    assert time.strftime("%Y-%m-%d", time.localtime(NOW)) in days
    assert stats.sums(database, 0, session="nobody")[0]["calls"] == 0
    assert [call["route"] for call in stats.calls_of_session(database, "other")] == ["glm", "glm"]
    assert stats.sessions_like(database, SESSION[:6]) == [SESSION]
    found = stats.overview(database, NOW)
    assert [found[name]["total"]["calls"] for name in ("today", "days_7", "days_30")] == [2, 3, 4]
    with pytest.raises(stats.sqlite3.OperationalError):
        database.execute("DELETE FROM calls")
    database.close()


def test_sessions_and_minutes(ledger: Path) -> None:
    database = stats.open_ledger(ledger)
    try:
        newest, other = stats.last_sessions(database, NOW - 30 * DAY_S)
        minutes = stats.series(database, NOW - 3600, "minute")
    finally:
        database.close()
    assert (newest["session_id"], newest["models"], newest["calls"]) == (SESSION, ["kimi"], 2)
    assert newest["cost_usd"] == pytest.approx((3000 * 1 + 300 * 10 + 9000 * 0.1) / 1e6)
    assert (newest["cache_breaks"], newest["cache_read_tokens"]) == (0, 9000)
    assert (other["session_id"], other["calls"], other["models"]) == ("other", 2, ["glm"])
    assert [(each["model"], each["calls"], each["failures"]) for each in minutes] == [("kimi", 2, 0)]
    assert minutes[0]["tokens"] == 12_300
    assert minutes[0]["minute"] == time.strftime("%Y-%m-%d %H:%M", time.localtime(NOW))


def test_queries_use_the_indexes(ledger: Path) -> None:
    """No question reads a table from its beginning."""
    database = stats.open_ledger(ledger)
    asked: list[str] = []
    database.set_trace_callback(asked.append)
    stats.overview(database, NOW)
    for by in stats.GROUPS:
        stats.sums(database, NOW - DAY_S, by=by, session="s")
    stats.sums(database, NOW - DAY_S, by="kind")
    stats.calls_of_session(database, "s")
    stats.sessions_like(database, "s")
    database.set_trace_callback(None)
    plans = {
        row["detail"] for question in asked for row in database.execute(f"EXPLAIN QUERY PLAN {question}")
    }
    database.close()
    assert len(asked) > 15
    looked_up = {plan for plan in plans if plan.startswith(("SEARCH", "SCAN"))}
    assert looked_up == {
        "SEARCH t USING PRIMARY KEY (quarter>?)",
        "SEARCH t USING INDEX session_totals_by_session (session_id=? AND quarter>?)",
        "SEARCH session_totals USING COVERING INDEX session_totals_by_session (session_id>? AND session_id<?)",
        "SEARCH calls USING INDEX calls_by_session (session_id=?)",
        "SEARCH t USING INDEX calls_by_session (session_id=? AND started_at>?)",
        "SEARCH t USING INDEX calls_by_time (started_at>?)",
    }


def grow(path: Path, calls: int, sessions: int) -> None:
    """A ledger of so many calls over 30 days, through its own trigger."""
    database = new_ledger_file(path)
    database.execute("PRAGMA synchronous = OFF")
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
        "INSERT INTO calls (started_at, request_id, model, route, upstream_model, mode, kind, session_id, is_stream,"
        " status, outcome, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, is_estimated,"
        " ttfb_ms, duration_ms, retries) "
        "SELECT ? - 30 * 86400 + i * (30 * 86400.0 / ?), 'req_' || i, 'm', 'm' || (i % 5), 'up', 'translated',"
        " 'main', 'session-' || (i * ? / ?), 1, 200, CASE WHEN i % 50 = 0 THEN 'failed' ELSE 'ok' END,"
        " i % 1000, 10, 5, 0, 0,"
        " 100, 200, 0 FROM n",
        (calls, NOW, calls, sessions, calls),
    )
    database.commit()
    database.close()


#: Calls of a large ledger; the target is a million calls of 10 000 sessions (LEDGER_CALLS=1000000).
SIZE = int(os.environ.get("LEDGER_CALLS", "30000"))


def test_queries_of_a_large_ledger_are_fast(tmp_path: Path) -> None:
    grow(tmp_path / FILE, SIZE, max(1, SIZE // 100))
    database = stats.open_ledger(tmp_path / FILE)
    begun = time.thread_time()
    found = stats.overview(database, NOW)
    overview_s = time.thread_time() - begun
    begun = time.thread_time()
    (row,) = stats.sums(database, 0, by="model", session="session-7")[:1]
    session_s = time.thread_time() - begun
    database.close()
    print(f"{SIZE} calls: everything in {overview_s:.3f} s, one session in {session_s:.4f} s")
    assert found["days_30"]["total"]["calls"] >= SIZE * 0.9
    assert row["calls"] > 0
    assert overview_s < 1
    assert session_s < 0.2


# -- the commands


def test_the_table(ledger: Path, tmp_path: Path) -> None:
    lines = output(tmp_path, "stats", "--since", "7d").splitlines()
    (kimi,) = [line for line in lines if line.startswith("kimi")]
    assert kimi.split()[:5] == ["kimi", "2", "12.0k", "75%", "~300"]
    assert "$0.0069" in kimi
    assert "█" * 16 in kimi
    assert any(line.startswith("total") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_json_and_csv(ledger: Path, tmp_path: Path) -> None:
    found = json.loads(output(tmp_path, "stats", "--since", "4w", "--by", "session", "--json"))
    assert [row["session"] for row in found["rows"]] == [SESSION, "other"]
    assert found["total"]["calls"] == 4
    table = list(csv.DictReader(io.StringIO(output(tmp_path, "stats", "--by", "outcome", "--csv"))))
    assert [(row["outcome"], row["calls"]) for row in table] == [("ok", "3"), ("refused", "1")]


def test_one_session(ledger: Path, tmp_path: Path) -> None:
    text = output(tmp_path, "stats", "--session", SESSION[:8])
    assert "Its last calls" in text
    assert text.count("kimi") == 3
    found = json.loads(output(tmp_path, "stats", "--session", "other", "--json"))
    assert [call["outcome"] for call in found["calls"]] == ["refused", "ok"]


def test_no_ledger_yet(tmp_path: Path) -> None:
    assert "No calls in that time." in output(tmp_path, "stats")
    assert json.loads(output(tmp_path, "stats", "--json"))["total"]["calls"] == 0
    assert output(tmp_path, "statusline", stdin="{}") == "?\n"


FAULTS = [
    (("--since", "soon"), 64, "--since: expected a span such as 90m"),
    (("--session", "nobody"), 64, "is no session in the ledger"),
    (("--json", "--csv"), 64, "exclude each other"),
]


@pytest.mark.parametrize(("arguments", "code", "text"), FAULTS)
def test_faults(ledger: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    result = run(tmp_path, "stats", *arguments)
    assert (result.returncode, text in result.stderr) == (code, True), result.stderr


def test_unreadable_ledger(tmp_path: Path) -> None:
    path = fill(tmp_path / STATE)
    database = stats.sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    result = run(tmp_path, "stats")
    assert result.returncode == 78
    assert "newer claude-proxy: update" in result.stderr
    path.write_bytes(b"nonsense " * 1000)
    result = run(tmp_path, "stats")
    assert result.returncode == 78
    assert "is damaged" in result.stderr
    assert "a bug" not in result.stderr
    assert output(tmp_path, "statusline", stdin='{"model": {"id": "m"}}') == "m\n"


def test_statusline(ledger: Path, tmp_path: Path) -> None:
    given = json.dumps({"session_id": SESSION, "model": {"id": "m[1m]", "display_name": "My model"}})
    line = output(tmp_path, "statusline", stdin=given)
    assert line == "My model via kimi · 12.0k in (75% cached), ~300 out · $0.0069\n"
    assert output(tmp_path, "statusline", stdin="no JSON") == "?\n"
    # Processor time, the best of some runs: what it takes where nothing else runs, with the interpreter's own start.
    best = min(_processor_s(lambda: output(tmp_path, "statusline", stdin=given)) for _ in range(5))
    print(f"statusline: {best * 1000:.0f} ms")
    assert best < 0.25


def _processor_s(function: Any) -> float:
    """What the processes that `function` started and waited for have used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    function()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
