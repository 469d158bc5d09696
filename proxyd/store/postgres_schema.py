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
