"""The store of virtual keys in a SQLite file of the state folder, which several processes may have open."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxyd.config.paths import make_private_folder
from proxyd.store.interface import LearnedRow, Merge, StoreFailed, Window
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
from proxyd.store.virtual_keys import Directory, Spent, Team, VirtualKey

__all__ = ["FILE", "SqliteKeyStore"]

#: The file's name in the state folder.
FILE = "keys.db"
#: How long a transaction waits for that of another process.
_BUSY_S = 2.0
#: ``PRAGMA user_version`` counts these steps.
MIGRATIONS = (
    """
    CREATE TABLE teams (name TEXT PRIMARY KEY, limits TEXT NOT NULL, streams INTEGER);
    CREATE TABLE keys (
        name TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        digest TEXT NOT NULL UNIQUE,
        created_at REAL NOT NULL,
        models TEXT NOT NULL,
        limits TEXT NOT NULL,
        streams INTEGER,
        team TEXT,
        expires_at REAL,
        revoked_at REAL
    );
    CREATE TABLE usage (
        owner TEXT NOT NULL,
        period TEXT NOT NULL,
        start INTEGER NOT NULL,
        usd REAL NOT NULL,
        tokens INTEGER NOT NULL,
        calls INTEGER NOT NULL,
        PRIMARY KEY (period, start, owner)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE learned (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        position INTEGER NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
    CREATE INDEX learned_by_position ON learned (position);
    CREATE TABLE learned_position (position INTEGER NOT NULL);
    INSERT INTO learned_position VALUES (0);
    """,
)
_UPSERT_LEARNED = (
    "INSERT INTO learned VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "value = excluded.value, position = excluded.position, changed_at = excluded.changed_at"
)
_DELETE_LEARNED = (
    "DELETE FROM learned WHERE changed_at < ? OR position < "
    "(SELECT position FROM learned ORDER BY position DESC LIMIT 1 OFFSET ?)"
)


class SqliteKeyStore:
    """See `proxyd.store.interface.KeyStore`.

    Args:
        path: the file; it and its folder are created at the first write. Without it there are no keys.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None

    def directory(self) -> Directory:
        if not self.path.exists():
            self.close()
            return Directory()
        with self._use("BEGIN") as database:
            names = ", ".join(KEY_COLUMNS)
            keys = [key_of(row) for row in database.execute(f"SELECT {names} FROM keys ORDER BY name")]  # noqa: S608
            rows = database.execute("SELECT name, limits, streams FROM teams ORDER BY name")
            return Directory(tuple(keys), tuple(map(team_of, rows)))

    def put_key(self, key: VirtualKey) -> None:
        with self._use() as database:
            names, marks = ", ".join(KEY_COLUMNS), ", ".join("?" * len(KEY_COLUMNS))
            database.execute(f"INSERT OR REPLACE INTO keys ({names}) VALUES ({marks})", values_of(key))  # noqa: S608

    def put_team(self, team: Team) -> None:
        with self._use() as database:
            database.execute(
                "INSERT OR REPLACE INTO teams VALUES (?, ?, ?)",
                (team.name, limits_as_text(team.limits), team.streams),
            )

    def remove_team(self, name: str) -> None:
        with self._use() as database:
            database.execute("DELETE FROM teams WHERE name = ?", (name,))

    def add_usage(self, spent: Mapping[Window, Spent]) -> None:
        if not spent:
            return
        newest = max(start for _, _, start in spent)
        with self._use() as database:
            database.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "usd = usd + excluded.usd, tokens = tokens + excluded.tokens, calls = calls + excluded.calls",
                [(*window, each.usd, each.tokens, each.calls) for window, each in spent.items()],
            )
            database.executemany(
                "DELETE FROM usage WHERE period = ? AND start < ?",
                [(period, newest - kept_s) for period, kept_s in KEPT_S.items()],
            )

    def usage(self, since: Iterable[tuple[str, int]]) -> dict[Window, Spent]:
        if not self.path.exists():
            return {}
        found: dict[Window, Spent] = {}
        with self._use("BEGIN") as database:
            for period, start in since:
                query = "SELECT owner, usd, tokens, calls FROM usage WHERE period = ? AND start = ?"
                for owner, usd, tokens, calls in database.execute(query, (period, start)):
                    found[owner, period, start] = Spent(usd, tokens, calls)
        return found

    def all_usage(self) -> dict[Window, Spent]:
        if not self.path.exists():
            return {}
        with self._use("BEGIN") as database:
            rows = database.execute("SELECT owner, period, start, usd, tokens, calls FROM usage")
            return {row[:3]: Spent(*row[3:]) for row in rows}

    def merge_learned(self, news: Sequence[LearnedRow], merge: Merge) -> None:
        with self._use() as database:
            changed = []
            for row in news:
                query = "SELECT value FROM learned WHERE kind = ? AND name = ?"
                (stored,) = database.execute(query, (row.kind, row.name)).fetchone() or (None,)
                value = merge(row, stored)
                if value is not None and value != stored:
                    changed.append((row.kind, row.name, value))
            if not changed:
                return
            database.execute("UPDATE learned_position SET position = position + 1")
            (position,) = database.execute("SELECT position FROM learned_position").fetchone()
            now = time.time()
            database.executemany(_UPSERT_LEARNED, [(*each, position, now) for each in changed])
            database.execute(_DELETE_LEARNED, (now - LEARNED_KEPT_S, MAX_LEARNED - 1))

    def learned(self, after: int) -> tuple[int, list[LearnedRow]]:
        if not self.path.exists():
            return 0, []
        with self._use("BEGIN") as database:
            (position,) = database.execute("SELECT position FROM learned_position").fetchone()
            if position == after:
                return position, []
            # A position that is ahead is that of another file, before this one came into its place.
            rows = database.execute(
                "SELECT kind, name, value FROM learned WHERE position > ? ORDER BY position, kind, name",
                (after if after < position else 0,),
            )
            return position, [LearnedRow(*row) for row in rows]

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    @contextmanager
    def _use(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Give the open file within one transaction.

        Raises:
            StoreFailed: it cannot be used.
        """
        try:
            database = self._connect()
            database.execute(begin)
            try:
                yield database
                database.commit()
            except BaseException:
                database.rollback()
                raise
        except (sqlite3.Error, OSError, ValueError) as exc:
            self.close()
            raise StoreFailed(f"the virtual keys in {self.path} cannot be read or written ({exc})") from exc

    def _connect(self) -> sqlite3.Connection:
        if self._database is None or not self.path.exists():
            self.close()
            make_private_folder(self.path.parent)
            self.path.touch(mode=0o600)
            self._database = database = sqlite3.connect(
                self.path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False
            )
            database.execute("PRAGMA journal_mode = WAL")
            self._migrate(database)
        return self._database

    def _migrate(self, database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")  # of two processes that start together, one waits here
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise ValueError(f"it has format {version}, that of a newer claude-proxy: update")
            for number, step in enumerate(MIGRATIONS[version:], version + 1):
                for statement in filter(str.strip, step.split(";")):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")
            database.commit()
        except BaseException:
            database.rollback()
            raise
