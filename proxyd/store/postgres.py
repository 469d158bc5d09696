"""The store of virtual keys in PostgreSQL, which several daemons share.

Usage is added by one statement for each exchange. If its answer is lost, whether it took effect is not known; so each
sender numbers its exchanges, and a number that the database has seen is not added again. While the database cannot be
reached, what waits is also in a file, for a daemon that is stopped or killed meanwhile.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxyd.config.database_url import DatabaseUrl
from proxyd.store.interface import LearnedRow, Merge, StoreFailed, Window
from proxyd.store.postgres_database import CHANGED, PostgresDatabase
from proxyd.store.records import (
    KEPT_S,
    KEY_COLUMNS,
    LEARNED_KEPT_S,
    MAX_LEARNED,
    key_of,
    limits_as_text,
    team_of,
    values_of,
)
from proxyd.store.spool import Spool, waiting
from proxyd.store.virtual_keys import UNITS, Directory, Spent, Team, VirtualKey

__all__ = ["PostgresKeyStore"]

#: The number of a sender that was not seen for so long is forgotten.
_SENDER_KEPT_S = 7 * 86_400
_UPSERT_KEY = (
    f"INSERT INTO keys ({', '.join(KEY_COLUMNS)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join(f'${number}' for number in range(1, len(KEY_COLUMNS) + 1))}) "
    f"ON CONFLICT (name) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in KEY_COLUMNS[1:])}"
)
_SELECT_KEYS = f'SELECT {", ".join(KEY_COLUMNS)} FROM keys ORDER BY name COLLATE "C"'  # noqa: S608 - constants
_ADD_USAGE = """
    INSERT INTO usage (owner, period, start, usd, tokens, calls)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::float8[], $5::bigint[], $6::bigint[])
    ON CONFLICT (period, start, owner) DO UPDATE SET
        usd = usage.usd + excluded.usd, tokens = usage.tokens + excluded.tokens, calls = usage.calls + excluded.calls
"""
_USAGE = """
    SELECT owner, period, start, usd, tokens, calls FROM usage
    JOIN unnest($1::text[], $2::bigint[]) AS wanted (period, start) USING (period, start)
"""
#: Locks the sender's row first: a transaction whose answer was lost may still be about to end.
_LOCK_NUMBER = """
    INSERT INTO senders VALUES ($1, 0, $2)
    ON CONFLICT (sender) DO UPDATE SET seen_at = excluded.seen_at RETURNING number
"""
_SET_NUMBER = "UPDATE senders SET number = $2 WHERE sender = $1"
#: By the database's clock, since that of one daemon may be wrong.
_DELETE_OLD = "DELETE FROM usage WHERE period = $1 AND start < extract(epoch FROM now()) - $2"
_ANNOUNCE = """
    INSERT INTO replicas VALUES ($1, $2, extract(epoch FROM now()))
    ON CONFLICT (name) DO UPDATE SET config_hash = excluded.config_hash, seen_at = excluded.seen_at
"""
#: Not those that another daemon is writing, for which it would wait.
_FORGET_GONE = """
    DELETE FROM replicas WHERE name IN (
        SELECT name FROM replicas WHERE seen_at <= extract(epoch FROM now()) - $1 FOR UPDATE SKIP LOCKED
    )
"""
_REPLICAS = "SELECT name, config_hash FROM replicas WHERE seen_at > extract(epoch FROM now()) - $1"
_STORED_LEARNED = """
    SELECT kind, name, value FROM learned JOIN unnest($1::text[], $2::text[]) AS wanted (kind, name) USING (kind, name)
"""
_UPSERT_LEARNED = """
    INSERT INTO learned (kind, name, value, position, changed_at)
    SELECT kind, name, value, $4, extract(epoch FROM now())
    FROM unnest($1::text[], $2::text[], $3::text[]) AS changed (kind, name, value)
    ON CONFLICT (kind, name) DO UPDATE SET
        value = excluded.value, position = excluded.position, changed_at = excluded.changed_at
"""
_DELETE_LEARNED = """
    DELETE FROM learned WHERE changed_at < extract(epoch FROM now()) - $1
    OR position < (SELECT position FROM learned ORDER BY position DESC LIMIT 1 OFFSET $2)
"""
#: What is stored after the position was read is left for the next time.
_LEARNED = """
    SELECT kind, name, value FROM learned WHERE position > $1 AND position <= $2 ORDER BY position, kind, name
"""
#: Old rows are deleted once in so many exchanges of a daemon.
_DELETE_EVERY = 500


class PostgresKeyStore:
    """See `proxyd.store.interface.KeyStore`.

    Args:
        spool: the folder for usage that waits; None keeps it in memory only.
        timeout_s: for each method.
        on_change: called, in another thread, when another process has changed keys or teams.
    """

    def __init__(
        self,
        url: DatabaseUrl,
        spool: Path | None = None,
        *,
        timeout_s: float = 2.0,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._database = PostgresDatabase(url, timeout_s=timeout_s, on_change=on_change)
        self._known: tuple[int, Directory] | None = None
        self._folder = spool
        self._spool = Spool(spool, uuid.uuid4().hex)
        #: Usage of senders that ended while the database could not be reached; None until it is looked for.
        self._left_behind: list[Spool] | None = None

    def directory(self) -> Directory:
        async def read(connection: Any) -> tuple[int, Directory]:
            version = await connection.fetchval("SELECT version FROM directory_version")
            if self._known is not None and self._known[0] == version:
                return self._known
            keys = tuple(key_of(tuple(row)) for row in await connection.fetch(_SELECT_KEYS))
            rows = await connection.fetch('SELECT name, limits, streams FROM teams ORDER BY name COLLATE "C"')
            return version, Directory(keys, tuple(team_of(tuple(row)) for row in rows))

        self._known = self._database.run(read)
        return self._known[1]

    def put_key(self, key: VirtualKey) -> None:
        self._change(_UPSERT_KEY, *values_of(key))

    def put_team(self, team: Team) -> None:
        self._change(
            "INSERT INTO teams VALUES ($1, $2, $3) "
            "ON CONFLICT (name) DO UPDATE SET limits = excluded.limits, streams = excluded.streams",
            team.name,
            limits_as_text(team.limits),
            team.streams,
        )

    def remove_team(self, name: str) -> None:
        self._change("DELETE FROM teams WHERE name = $1", name)

    def add_usage(self, spent: Mapping[Window, Spent]) -> None:
        if self._left_behind is None:
            self._left_behind = [] if self._folder is None else list(waiting(self._folder))
        while self._left_behind:
            self._send(self._left_behind[0], self._left_behind[0].amounts)
            self._left_behind.pop(0)
        if spent:
            try:
                self._send(self._spool, spent)
            except StoreFailed:
                self._spool.keep(spent)
                raise

    def usage(self, since: Iterable[tuple[str, int]]) -> dict[Window, Spent]:
        periods = list(since)

        async def read(connection: Any) -> dict[Window, Spent]:
            names, starts = [each[0] for each in periods], [each[1] for each in periods]
            return _spent_in(await connection.fetch(_USAGE, names, starts))

        return self._database.run(read)

    def all_usage(self) -> dict[Window, Spent]:
        async def read(connection: Any) -> dict[Window, Spent]:
            return _spent_in(
                await connection.fetch("SELECT owner, period, start, usd, tokens, calls FROM usage")
            )

        return self._database.run(read)

    def merge_learned(self, news: Sequence[LearnedRow], merge: Merge) -> None:
        async def change(connection: Any) -> None:
            position = await connection.fetchval(
                "UPDATE learned_position SET position = position + 1 RETURNING position"
            )
            names = [row.kind for row in news], [row.name for row in news]
            stored = {tuple(row)[:2]: row["value"] for row in await connection.fetch(_STORED_LEARNED, *names)}
            changed = []
            for row in news:
                old = stored.get((row.kind, row.name))
                value = merge(row, old)
                if value is not None and value != old:
                    changed.append((row.kind, row.name, value))
            if changed:
                await connection.execute(_UPSERT_LEARNED, *map(list, zip(*changed, strict=True)), position)
                await connection.execute(_DELETE_LEARNED, LEARNED_KEPT_S, MAX_LEARNED - 1)

        self._database.run(change)

    def learned(self, after: int) -> tuple[int, list[LearnedRow]]:
        async def read(connection: Any) -> tuple[int, list[LearnedRow]]:
            position = await connection.fetchval("SELECT position FROM learned_position")
            if position == after:
                return position, []
            # A position that is ahead is that of another database, before this one was restored in its place.
            rows = await connection.fetch(_LEARNED, after if after < position else 0, position)
            return position, [LearnedRow(*row) for row in rows]

        return self._database.run(read)

    # -- the daemons that share it, see `proxyd.store.interface.ReplicaStore`

    def announce(self, name: str, config_hash: str, gone_s: float) -> dict[str, str]:
        async def announce(connection: Any) -> dict[str, str]:
            await connection.execute(_ANNOUNCE, name, config_hash)
            await connection.execute(_FORGET_GONE, gone_s)
            return dict(map(tuple, await connection.fetch(_REPLICAS, gone_s)))

        return self._database.run(announce)

    def withdraw(self, name: str) -> None:
        async def withdraw(connection: Any) -> None:
            await connection.execute("DELETE FROM replicas WHERE name = $1", name)

        self._database.run(withdraw)

    def close(self) -> None:
        self._database.close()
        for each in (self._spool, *(self._left_behind or ())):
            each.release()

    def _send(self, spool: Spool, amounts: Mapping[Window, Spent]) -> None:
        """Add what of `amounts` is not stored yet.

        Raises:
            StoreFailed: it may be stored, or not.
        """

        async def send(connection: Any) -> None:
            now = time.time()
            seen = await connection.fetchval(_LOCK_NUMBER, spool.sender, now)
            left = spool.left_of(amounts, seen)
            if not left:
                return
            # In one order, so that two daemons never wait for each other's rows.
            rows = [(*window, left[window]) for window in sorted(left)]
            owners, periods, starts, spents = zip(*rows, strict=True)
            usd, tokens, calls = ([getattr(each, unit) for each in spents] for unit in UNITS)
            await connection.execute(_ADD_USAGE, owners, periods, starts, usd, tokens, calls)
            number = spool.begin(left)
            await connection.execute(_SET_NUMBER, spool.sender, number)
            if number % _DELETE_EVERY == 1:
                await connection.executemany(_DELETE_OLD, list(KEPT_S.items()))
                await connection.execute("DELETE FROM senders WHERE seen_at < $1", now - _SENDER_KEPT_S)

        self._database.run(send)
        spool.clear()

    def _change(self, statement: str, *values: Any) -> None:
        async def change(connection: Any) -> None:
            await connection.execute(statement, *values)
            await connection.execute("UPDATE directory_version SET version = version + 1")
            await connection.execute("SELECT pg_notify($1, '')", CHANGED)

        self._database.run(change)


def _spent_in(rows: Iterable[Any]) -> dict[Window, Spent]:
    return {tuple(row)[:3]: Spent(*tuple(row)[3:]) for row in rows}
