"""The tables in PostgreSQL, as numbered migrations.

``schema_version`` has one row: the number of migrations that have run, and the oldest program, by the number of
migrations that it knows, that may still use the tables. While daemons are updated one after the other, old and new
ones share a database: a migration that only adds what old programs ignore leaves ``usable_from`` as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["MIGRATIONS", "Migration", "NewerDatabase", "migrate"]

#: The advisory lock of whoever migrates: the first bytes of SHA-256("claude-proxy migrations").
_LOCK = 5_031_823_346_291_713


@dataclass(frozen=True, slots=True)
class Migration:
    """One step.

    Attributes:
        usable_from: the oldest program that can use the tables after it.
    """

    statements: str
    usable_from: int


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        """
        CREATE TABLE teams (name text PRIMARY KEY, limits text NOT NULL, streams integer);
        CREATE TABLE keys (
            name text PRIMARY KEY,
            id text NOT NULL UNIQUE,
            digest text NOT NULL UNIQUE,
            created_at double precision NOT NULL,
            models text NOT NULL,
            limits text NOT NULL,
            streams integer,
            team text,
            expires_at double precision,
            revoked_at double precision
        );
        CREATE TABLE usage (
            owner text NOT NULL,
            period text NOT NULL,
            start bigint NOT NULL,
            usd double precision NOT NULL,
            tokens bigint NOT NULL,
            calls bigint NOT NULL,
            PRIMARY KEY (period, start, owner)
        );
        -- What each sender of usage has sent last, so that nothing is added twice.
        CREATE TABLE senders (sender text PRIMARY KEY, number bigint NOT NULL, seen_at double precision NOT NULL);
        -- One row, counted up with each change of keys and teams.
        CREATE TABLE directory_version (version bigint NOT NULL);
        INSERT INTO directory_version VALUES (0);
        """,
        usable_from=1,
    ),
    Migration(
        """
        -- The ledger: what each daemon's usage.db has, by that file's name and the number of its row.
        CREATE TABLE ledgers (ledger text PRIMARY KEY, position bigint NOT NULL, seen_at double precision NOT NULL);
        CREATE TABLE calls (
            ledger text NOT NULL,
            seq bigint NOT NULL,
            started_at double precision NOT NULL,
            request_id text NOT NULL,
            model text NOT NULL,
            route text NOT NULL,
            upstream_model text NOT NULL,
            mode text NOT NULL,
            kind text NOT NULL,
            session_id text COLLATE "C",
            agent_id text,
            is_stream integer NOT NULL,
            status integer NOT NULL,
            outcome text NOT NULL,
            error_type text,
            stop_reason text,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            cache_read_tokens bigint NOT NULL,
            cache_write_tokens bigint NOT NULL,
            reasoning_tokens bigint,
            is_estimated integer NOT NULL,
            ttfb_ms bigint,
            duration_ms bigint NOT NULL,
            retries integer NOT NULL,
            fallback_from text,
            cost_usd double precision,
            cache_break text,
            rule text,
            agent_type text,
            prompt_id text,
            safeguards text,
            caller text,
            team text,
            PRIMARY KEY (ledger, seq)
        );
        CREATE INDEX calls_by_time ON calls (started_at);
        CREATE INDEX calls_by_session ON calls (session_id, started_at) WHERE session_id IS NOT NULL;
        CREATE TABLE totals (
            quarter bigint NOT NULL,
            route text NOT NULL,
            outcome text NOT NULL,
            calls bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            cache_read_tokens bigint NOT NULL,
            cache_write_tokens bigint NOT NULL,
            reasoning_tokens bigint NOT NULL,
            estimated_calls bigint NOT NULL,
            unpriced_calls bigint NOT NULL,
            cost_usd double precision NOT NULL,
            retries bigint NOT NULL,
            duration_ms bigint NOT NULL,
            ttfb_ms bigint NOT NULL,
            ttfb_calls bigint NOT NULL,
            PRIMARY KEY (quarter, route, outcome)
        );
        CREATE TABLE session_totals (LIKE totals, session_id text COLLATE "C" NOT NULL);
        ALTER TABLE session_totals ADD PRIMARY KEY (quarter, session_id, route, outcome);
        CREATE INDEX session_totals_by_session ON session_totals (session_id, quarter);
        -- In the order of the keys, so that two daemons never wait for each other's rows.
        CREATE FUNCTION add_calls_to_totals() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO totals AS t
            SELECT floor(started_at / 900)::bigint, route, outcome, count(*), sum(input_tokens), sum(output_tokens),
                sum(cache_read_tokens), sum(cache_write_tokens), sum(coalesce(reasoning_tokens, 0)),
                sum(is_estimated), count(*) - count(cost_usd), sum(coalesce(cost_usd, 0)), sum(retries),
                sum(duration_ms), sum(coalesce(ttfb_ms, 0)), count(ttfb_ms)
            FROM added WHERE kind <> 'count' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
            ON CONFLICT (quarter, route, outcome) DO UPDATE SET
                calls = t.calls + excluded.calls,
                input_tokens = t.input_tokens + excluded.input_tokens,
                output_tokens = t.output_tokens + excluded.output_tokens,
                cache_read_tokens = t.cache_read_tokens + excluded.cache_read_tokens,
                cache_write_tokens = t.cache_write_tokens + excluded.cache_write_tokens,
                reasoning_tokens = t.reasoning_tokens + excluded.reasoning_tokens,
                estimated_calls = t.estimated_calls + excluded.estimated_calls,
                unpriced_calls = t.unpriced_calls + excluded.unpriced_calls,
                cost_usd = t.cost_usd + excluded.cost_usd,
                retries = t.retries + excluded.retries,
                duration_ms = t.duration_ms + excluded.duration_ms,
                ttfb_ms = t.ttfb_ms + excluded.ttfb_ms,
                ttfb_calls = t.ttfb_calls + excluded.ttfb_calls;
            INSERT INTO session_totals AS t
            SELECT floor(started_at / 900)::bigint, route, outcome, count(*), sum(input_tokens), sum(output_tokens),
                sum(cache_read_tokens), sum(cache_write_tokens), sum(coalesce(reasoning_tokens, 0)),
                sum(is_estimated), count(*) - count(cost_usd), sum(coalesce(cost_usd, 0)), sum(retries),
                sum(duration_ms), sum(coalesce(ttfb_ms, 0)), count(ttfb_ms), coalesce(session_id, '')
            FROM added WHERE kind <> 'count' GROUP BY 1, coalesce(session_id, ''), 2, 3 ORDER BY 1, 17, 2, 3
            ON CONFLICT (quarter, session_id, route, outcome) DO UPDATE SET
                calls = t.calls + excluded.calls,
                input_tokens = t.input_tokens + excluded.input_tokens,
                output_tokens = t.output_tokens + excluded.output_tokens,
                cache_read_tokens = t.cache_read_tokens + excluded.cache_read_tokens,
                cache_write_tokens = t.cache_write_tokens + excluded.cache_write_tokens,
                reasoning_tokens = t.reasoning_tokens + excluded.reasoning_tokens,
                estimated_calls = t.estimated_calls + excluded.estimated_calls,
                unpriced_calls = t.unpriced_calls + excluded.unpriced_calls,
                cost_usd = t.cost_usd + excluded.cost_usd,
                retries = t.retries + excluded.retries,
                duration_ms = t.duration_ms + excluded.duration_ms,
                ttfb_ms = t.ttfb_ms + excluded.ttfb_ms,
                ttfb_calls = t.ttfb_calls + excluded.ttfb_calls;
            RETURN NULL;
        END $$;
        CREATE TRIGGER calls_into_totals AFTER INSERT ON calls REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION add_calls_to_totals();
        """,
        usable_from=1,
    ),
    Migration(
        """
        -- The daemons on this database, and which models.yaml each runs.
        CREATE TABLE replicas (
            name text PRIMARY KEY, config_hash text NOT NULL, seen_at double precision NOT NULL
        );
        """,
        usable_from=1,
    ),
    Migration(
        """
        -- What daemons have learned of their upstreams.
        CREATE TABLE learned (
            kind text NOT NULL,
            name text NOT NULL,
            value text NOT NULL,
            position bigint NOT NULL,
            changed_at double precision NOT NULL,
            PRIMARY KEY (kind, name)
        );
        CREATE INDEX learned_by_position ON learned (position);
        -- One row, counted up with each change. Who changes it locks it, so positions become visible in order.
        CREATE TABLE learned_position (position bigint NOT NULL);
        INSERT INTO learned_position VALUES (0);
        """,
        usable_from=1,
    ),
)


class NewerDatabase(Exception):
    """The tables are those of a newer program."""


async def migrate(connection: Any) -> None:
    """Bring the tables up to date; of several programs that start together, all but one wait.

    Raises:
        NewerDatabase: this program is too old for the tables.
    """
    if await _is_current(connection):
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL, usable_from integer NOT NULL)"
        )
        done = await connection.fetchval("SELECT version FROM schema_version")
        if done is None:
            done = 0
            await connection.execute("INSERT INTO schema_version VALUES (0, 0)")
        for number, step in enumerate(MIGRATIONS[done:], done + 1):
            await connection.execute(step.statements)
            await connection.execute(
                "UPDATE schema_version SET version = $1, usable_from = $2", number, step.usable_from
            )
    await _is_current(connection)


async def _is_current(connection: Any) -> bool:
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        return False
    row = await connection.fetchrow("SELECT version, usable_from FROM schema_version")
    if row is None:
        return False
    if row["usable_from"] > len(MIGRATIONS):
        raise NewerDatabase(
            f"its tables have format {row['version']}, that of a newer claude-proxy, and this one knows "
            f"{len(MIGRATIONS)}: update"
        )
    return bool(row["version"] >= len(MIGRATIONS))
