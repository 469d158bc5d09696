"""The ledger's tables. They stand apart from the writer, so that a reader's start does not pay for asyncio.

Tables (a migration is a step in `MIGRATIONS`; ``PRAGMA user_version`` counts them):

- ``calls``: a row a call, with counts, times, ids and names; never a prompt, an answer or a key (design.md 8.12).
- ``totals``: their sums by quarter of an hour, session, route and outcome, kept by a trigger in the same transaction.
  A million calls are some ten thousand of these rows, which is what lets a question be answered at once. A quarter
  of an hour is the largest step in which all time zones count their days.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "FILE", "MIGRATIONS", "QUARTER_S"]

#: The file's name in the state folder.
FILE = "usage.db"
QUARTER_S = 900

#: What a row holds, in this order. Times: Unix seconds, milliseconds. ``cost_usd`` is NULL where a price is unknown.
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
)

MIGRATIONS: tuple[str, ...] = (
    """
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
        session_id TEXT NOT NULL,
        route TEXT NOT NULL,
        outcome TEXT NOT NULL,
        calls INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL,
        estimated_calls INTEGER NOT NULL,
        unpriced_calls INTEGER NOT NULL,
        cost_usd REAL NOT NULL,
        retries INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL,
        ttfb_ms INTEGER NOT NULL,
        ttfb_calls INTEGER NOT NULL,
        PRIMARY KEY (quarter, session_id, route, outcome)
    ) WITHOUT ROWID;
    CREATE INDEX totals_by_session ON totals (session_id, quarter);
    CREATE TRIGGER calls_into_totals AFTER INSERT ON calls WHEN new.kind <> 'count'
    BEGIN
        INSERT INTO totals VALUES (
            CAST(new.started_at AS INTEGER) / 900, ifnull(new.session_id, ''), new.route, new.outcome, 1,
            new.input_tokens, new.output_tokens, new.cache_read_tokens, new.cache_write_tokens,
            ifnull(new.reasoning_tokens, 0), new.is_estimated, new.cost_usd IS NULL, ifnull(new.cost_usd, 0),
            new.retries, new.duration_ms, ifnull(new.ttfb_ms, 0), new.ttfb_ms IS NOT NULL
        )
        ON CONFLICT DO UPDATE SET
            calls = calls + 1,
            input_tokens = input_tokens + excluded.input_tokens,
            output_tokens = output_tokens + excluded.output_tokens,
            cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
            cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
            reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
            estimated_calls = estimated_calls + excluded.estimated_calls,
            unpriced_calls = unpriced_calls + excluded.unpriced_calls,
            cost_usd = cost_usd + excluded.cost_usd,
            retries = retries + excluded.retries,
            duration_ms = duration_ms + excluded.duration_ms,
            ttfb_ms = ttfb_ms + excluded.ttfb_ms,
            ttfb_calls = ttfb_calls + excluded.ttfb_calls;
    END;
    """,
)
