"""The ledger's tables. Apart from the writer, so that a command that only reads does not import asyncio.

Tables (a migration is a step in `MIGRATIONS`; ``PRAGMA user_version`` counts them):

- ``calls``: one row for each call, with counts, times, ids and names; never a prompt, a response or a key
  (docs/spec/design.md#p12).
- ``totals``, ``session_totals``: their sums by quarter of an hour, route and outcome, the second by session too,
  updated by a trigger in the same transaction. A month of them is some thousand rows however many calls there were,
  so queries take milliseconds. A quarter of an hour is the largest step in which the days of all time zones begin.
- ``identity``: one row, a random name of the file.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxyd.telemetry.finished_call import FinishedCall

__all__ = [
    "CALL_SUMS",
    "COLUMNS",
    "DAMAGED",
    "FILE",
    "MIGRATIONS",
    "QUARTER_S",
    "SUMS",
    "TABLES",
    "is_damaged",
    "row_of",
]

#: The file's name in the state folder.
FILE = "usage.db"
QUARTER_S = 900
TABLES = ("calls", "totals", "session_totals")
#: What is added to the name of a damaged file, before the date.
DAMAGED = ".damaged-"

#: The columns of a row. ``started_at`` is in Unix seconds; ``cost_usd`` is NULL where a price is unknown.
COLUMNS = (
    "started_at",
    "request_id",
    "model",
    "route",
    "upstream_model",
    "mode",
    "kind",
    "session_id",
    "agent_id",
    "is_stream",
    "status",
    "outcome",
    "error_type",
    "stop_reason",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "is_estimated",
    "ttfb_ms",
    "duration_ms",
    "retries",
    "fallback_from",
    "cost_usd",
    "cache_break",
    "rule",
    "agent_type",
    "prompt_id",
    "safeguards",
    "caller",
    "team",
)


def row_of(record: FinishedCall) -> tuple[Any, ...]:
    """Convert a finished call into a row, in the order of `COLUMNS`."""
    usage = record.usage
    return (
        record.started_at,
        record.request_id,
        record.model[:200],
        record.route,
        record.upstream_model,
        record.mode,
        record.kind,
        record.session_id,
        record.agent_id,
        int(record.is_stream),
        record.status,
        record.outcome,
        record.error_type,
        record.stop_reason,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        int(usage.is_estimated),
        None if record.ttfb_s is None else round(record.ttfb_s * 1000),
        round(record.duration_s * 1000),
        record.retries,
        record.fallback_from,
        record.cost_usd,
        record.cache_break,
        record.rule,
        record.agent_type,
        record.prompt_id,
        record.safeguards,
        record.caller,
        record.team,
    )


_SUMS: tuple[tuple[str, str], ...] = (
    ("calls", "1"),
    ("input_tokens", "new.input_tokens"),
    ("output_tokens", "new.output_tokens"),
    ("cache_read_tokens", "new.cache_read_tokens"),
    ("cache_write_tokens", "new.cache_write_tokens"),
    ("reasoning_tokens", "coalesce(new.reasoning_tokens, 0)"),
    ("estimated_calls", "new.is_estimated"),
    ("unpriced_calls", "CASE WHEN new.cost_usd IS NULL THEN 1 ELSE 0 END"),
    ("cost_usd", "coalesce(new.cost_usd, 0)"),
    ("retries", "new.retries"),
    ("duration_ms", "new.duration_ms"),
    ("ttfb_ms", "coalesce(new.ttfb_ms, 0)"),
    ("ttfb_calls", "CASE WHEN new.ttfb_ms IS NULL THEN 0 ELSE 1 END"),
)
#: The columns of both tables of totals.
SUMS = tuple(name for name, _ in _SUMS)
#: The same sums as expressions over rows of ``calls``.
CALL_SUMS = {name: value.replace("new.", "") for name, value in _SUMS}
_SUMS_OF_CALLS = " ".join(f"{name} {'REAL' if name == 'cost_usd' else 'INTEGER'} NOT NULL," for name in SUMS)
_OWN_SUMS = ", ".join(value for _, value in _SUMS)
_ADD_UP = "ON CONFLICT DO UPDATE SET " + ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)

MIGRATIONS: tuple[str, ...] = (
    f"""
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY,
        started_at REAL NOT NULL,
        request_id TEXT NOT NULL,
        model TEXT NOT NULL,
        route TEXT NOT NULL,
        upstream_model TEXT NOT NULL,
        mode TEXT NOT NULL,
        kind TEXT NOT NULL,
        session_id TEXT,
        agent_id TEXT,
        is_stream INTEGER NOT NULL,
        status INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        error_type TEXT,
        stop_reason TEXT,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER,
        is_estimated INTEGER NOT NULL,
        ttfb_ms INTEGER,
        duration_ms INTEGER NOT NULL,
        retries INTEGER NOT NULL,
        fallback_from TEXT,
        cost_usd REAL
    );
    CREATE INDEX calls_by_time ON calls (started_at);
    CREATE INDEX calls_by_session ON calls (session_id, started_at) WHERE session_id IS NOT NULL;
    CREATE TABLE totals (
        quarter INTEGER NOT NULL,
        route TEXT NOT NULL,
        outcome TEXT NOT NULL,
        {_SUMS_OF_CALLS}
        PRIMARY KEY (quarter, route, outcome)
    ) WITHOUT ROWID;
    CREATE TABLE session_totals (
        quarter INTEGER NOT NULL,
        session_id TEXT NOT NULL,
        route TEXT NOT NULL,
        outcome TEXT NOT NULL,
        {_SUMS_OF_CALLS}
        PRIMARY KEY (quarter, session_id, route, outcome)
    ) WITHOUT ROWID;
    CREATE INDEX session_totals_by_session ON session_totals (session_id, quarter);
    CREATE TRIGGER calls_into_totals AFTER INSERT ON calls WHEN new.kind <> 'count'
    BEGIN
        INSERT INTO totals VALUES (
            CAST(new.started_at AS INTEGER) / 900, new.route, new.outcome, {_OWN_SUMS}
        ) {_ADD_UP};
        INSERT INTO session_totals VALUES (
            CAST(new.started_at AS INTEGER) / 900, ifnull(new.session_id, ''), new.route, new.outcome, {_OWN_SUMS}
        ) {_ADD_UP};
    END;
    """,  # noqa: S608 - made of the constants above
    # Why a call's cache reads fell (`proxyd.telemetry.cache_breaks`).
    "ALTER TABLE calls ADD COLUMN cache_break TEXT;\n",
    # The rule that chose the route, what the client's hint headers say, and the results of auto mode's check.
    "".join(
        f"ALTER TABLE calls ADD COLUMN {name} TEXT;\n"
        for name in ("rule", "agent_type", "prompt_id", "safeguards")
    ),
    # Names of the virtual key that the client has sent, and of its team.
    "".join(f"ALTER TABLE calls ADD COLUMN {name} TEXT;\n" for name in ("caller", "team")),
    # The name of this file in a database that several daemons share (`proxyd.telemetry.ledger_forwarder`).
    "CREATE TABLE identity (id TEXT NOT NULL);\nINSERT INTO identity VALUES (lower(hex(randomblob(16))));\n",
)


def is_damaged(exc: BaseException) -> bool:
    """Whether SQLite reports that the file is not a database, not intact, or without our tables."""
    text = str(exc)
    return isinstance(exc, sqlite3.Error) and (
        type(exc) is sqlite3.DatabaseError
        or "malformed" in text
        or "no such table" in text
        or "no such column" in text
        or "has no column named" in text
    )
