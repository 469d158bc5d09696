"""The ledger's way into a PostgreSQL database that several daemons share.

::

    usage.db ─▶ once a second, at most a thousand rows in one transaction ─▶ calls, totals
                                └─fails─▶ reported once, tried again; the rows are in usage.db, ``ledger_days`` long

Each daemon writes its usage.db as without a database, and this thread copies what is new. The database keeps, for each
file, the number of the last row that it has, and changes it in the transaction that adds the rows: each row arrives
once, whatever was lost on the way.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from proxyd.config.database_url import DatabaseUrl
from proxyd.logs.setup import get_logger
from proxyd.store.interface import StoreFailed
from proxyd.store.postgres_database import PostgresDatabase
from proxyd.telemetry.ledger_schema import COLUMNS, MIGRATIONS, QUARTER_S

__all__ = ["LedgerForwarder"]

log = get_logger("ledger")

_PAUSE_S, _BUSY_S = 1.0, 2.0
_BATCH_ROWS = 1_000
_RETENTION_S, _DELETE_ROWS, _DAY_S = 3_600.0, 20_000, 86_400
_LOCK_POSITION = """
    INSERT INTO ledgers VALUES ($1, 0, $2)
    ON CONFLICT (ledger) DO UPDATE SET seen_at = excluded.seen_at RETURNING position
"""
_NAMES = ", ".join(("ledger", "seq", *COLUMNS))
_INSERT = f"INSERT INTO calls ({_NAMES}) SELECT {_NAMES} FROM json_populate_recordset(NULL::calls, $1::json)"  # noqa: S608
_SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM calls WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
_DELETE = (
    "DELETE FROM calls WHERE (ledger, seq) IN (SELECT ledger, seq FROM calls WHERE started_at < $1 LIMIT $2)"
)


class LedgerForwarder:
    """Copies rows of a ledger's file into a database.

    Args:
        days: how long rows are kept; 0 for ever.
        timeout_s: for each transaction.

    Attributes:
        trouble: why nothing is copied at the moment.
        waiting: rows that are not in the database yet.
        lost: rows that were deleted from the file before.
    """

    def __init__(
        self, path: Path, url: DatabaseUrl, days: Callable[[], int], *, timeout_s: float = 2.0
    ) -> None:
        self.trouble: str | None = None
        self.waiting = self.lost = 0
        self._path, self._days = path, days
        self._timeout_s = timeout_s
        self._database = PostgresDatabase(url, timeout_s=timeout_s)
        #: File and number of the last row that the database is known to have.
        self._known: tuple[str, int] | None = None
        self._last_deletion: float | None = None
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="ledger-forwarder", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Copy what is left, in one try. To be called after the ledger has written it."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._is_closing.set()
            await asyncio.to_thread(thread.join, 3 * self._timeout_s)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_closing.wait(_PAUSE_S)
            try:
                self.forward()
                self._delete_old()
            except (StoreFailed, sqlite3.Error, OSError) as exc:
                why = exc.message if isinstance(exc, StoreFailed) else f"{self._path} cannot be read ({exc})"
                if self.trouble is None:
                    log.error(
                        "ledger.forward_failed", why=why, then="the calls stay in usage.db and are sent later"
                    )
                self.trouble = why
            except Exception:
                log.error("ledger.forwarder_crashed", exc_info=True)
                self.trouble = "internal error in claude-proxy; see its log"
                break
            else:
                if self.trouble is not None:
                    log.info("ledger.forward_recovered")
                    self.trouble = None
        self._database.close()

    def forward(self) -> None:
        """Copy all rows that are new; blocks.

        Raises:
            StoreFailed, sqlite3.Error, OSError: they are not all copied.
        """
        if not self._path.exists():
            return
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        with closing(
            sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        ) as file:
            (version,) = file.execute("PRAGMA user_version").fetchone()
            if version != len(MIGRATIONS):
                return  # the daemon converts it with its next call
            is_more = True
            while is_more:
                is_more = self._forward_batch(file)

    def _forward_batch(self, file: sqlite3.Connection) -> bool:
        """Copy one batch; return whether there may be more."""
        (ledger,) = file.execute("SELECT id FROM identity").fetchone()
        newest = file.execute("SELECT max(id) FROM calls").fetchone()[0] or 0
        if self._known == (ledger, newest):
            self.waiting = 0
            return False
        if self._known is not None and self._known[0] == ledger:
            self.waiting = newest - self._known[1]

        async def send(connection: Any) -> tuple[int, int, int]:
            position = await connection.fetchval(_LOCK_POSITION, ledger, time.time())
            if position > newest:
                return position, position, 0
            rows = file.execute(_SELECT, (position, _BATCH_ROWS)).fetchall()
            last = rows[-1][0] if rows else position
            if rows:
                await connection.execute(_INSERT, _as_json(ledger, rows))
                await connection.execute("UPDATE ledgers SET position = $2 WHERE ledger = $1", ledger, last)
            # At first, what is missing was deleted when its time was over.
            return position, last, last - position - len(rows) if position else 0

        position, last, missing = self._database.run(send)
        if position > newest:
            # SQLite gives the numbers of rows that were deleted again, once all are: from here on it is another file.
            _rename(file, position)
            return True
        if missing:
            self.lost += missing
            log.warning(
                "ledger.rows_lost", rows=missing, why="they were deleted before the database was there again"
            )
        self._known = ledger, last
        self.waiting = max(0, newest - last)
        return last < newest

    def _delete_old(self) -> None:
        days, now = self._days(), time.monotonic()
        if not days or (self._last_deletion is not None and now - self._last_deletion < _RETENTION_S):
            return

        async def delete(connection: Any) -> int:
            # By the database's clock, since that of one daemon may be wrong.
            at = await connection.fetchval("SELECT extract(epoch FROM now())::float8")
            quarter = int(at - days * _DAY_S) // QUARTER_S
            done = await connection.execute(_DELETE, float(quarter * QUARTER_S), _DELETE_ROWS)
            for table in ("totals", "session_totals"):
                await connection.execute(f"DELETE FROM {table} WHERE quarter < $1", quarter)  # noqa: S608 - constants
            return int(done.split()[-1])

        while self._database.run(delete) == _DELETE_ROWS:
            pass
        self._last_deletion = now


def _rename(file: sqlite3.Connection, position: int) -> None:
    file.execute("BEGIN IMMEDIATE")
    if (file.execute("SELECT max(id) FROM calls").fetchone()[0] or 0) < position:
        file.execute("UPDATE identity SET id = lower(hex(randomblob(16)))")
    file.execute("COMMIT")


def _as_json(ledger: str, rows: list[tuple[Any, ...]]) -> str:
    names = ("ledger", "seq", *COLUMNS)
    return json.dumps([dict(zip(names, (ledger, *map(_storable, row)), strict=True)) for row in rows])


def _storable(value: Any) -> Any:
    """Replace NUL, which SQLite stores in a text and PostgreSQL does not."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
