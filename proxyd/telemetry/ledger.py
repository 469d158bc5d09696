"""The ledger: one row for each call in SQLite, written by a thread of its own.

::

    observe ─▶ queue (bounded) ─▶ every half second, one transaction ─▶ usage.db
                                     └─fails─▶ reported once, kept, retried; rows that overflow are counted

A row is in the file at most a second after its call and survives a crash of the process: in WAL mode a commit is in
the file system's hands. Two daemons may share a file: SQLite's lock serialises their transactions.

A damaged file is moved aside, with the date in its name, and a new one is begun. The file is checked when it is opened,
and again when a reader has found damage. A file that was removed or replaced while it was open is detected by its inode
before each transaction, so that no row goes into a file that nobody can find.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxyd.config.paths import make_private_folder
from proxyd.logs.setup import get_logger
from proxyd.telemetry.ledger_schema import COLUMNS, DAMAGED, MIGRATIONS, QUARTER_S, TABLES, is_damaged

__all__ = ["Ledger"]

log = get_logger("ledger")

#: How long a row waits for others; with the transaction this stays below the second that a crash may cost.
_BATCH_S = 0.5
#: Rows kept while the file cannot be written: at 10 calls a second, a quarter of an hour of them.
_MAX_WAITING = 10_000
#: How long a transaction waits for that of another process.
_BUSY_MS = 2_000
#: Pauses between retries while the file cannot be written.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0
#: How often old rows are deleted.
_RETENTION_S = 3_600.0
#: While calls arrive, the last call before today's is never this much older than now, unless the clock has jumped or
#: the daemon was idle for long. Deletion then waits until a day's calls are there.
_GAP_S, _DAY_S = 30 * 86_400.0, 86_400.0
#: Rows deleted in one transaction, so that a large deletion does not block the other writer.
_DELETE_ROWS = 20_000

_INSERT = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608


class _Damaged(Exception):
    """The file is not an intact database with our tables. The message says what is wrong with it."""


class _Unusable(Exception):
    """The file will not become usable by waiting. The message says why and what to do."""


class Ledger:
    """Writes finished calls to the file.

    Args:
        path: the file; it and its folder are created when the first row is written.
        days: how long rows are kept; 0 for ever. Asked before each deletion, so that a reload takes effect.
        now: Unix time.
    """

    def __init__(self, path: Path, days: Callable[[], int], *, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self.trouble: str | None = None  # why nothing is written at the moment, one sentence
        self.dropped = 0  # rows that were lost to it
        self.moved: tuple[Path, ...] = ()  # damaged files that were moved aside since the start
        self._days = days
        self._now = now
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._lock = threading.Lock()  # of `_waiting`, `dropped` and `_is_off`
        self._wake = threading.Event()
        self._close = threading.Event()
        self._thread: threading.Thread | None = None
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the open file
        self._is_suspect = False
        self._is_off = False
        self._last_deletion: float | None = None

    def start(self) -> None:
        """Start the writer thread."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def observe(self, row: tuple[Any, ...]) -> None:
        """Queue a finished call, in the form of `proxyd.telemetry.ledger_schema.row_of`. Does not block."""
        with self._lock:
            if self._is_off:
                self.dropped += 1
                return
            self._waiting.append(row)
            self._drop_overflow()
        self._wake.set()

    def suspect(self) -> None:
        """Check the whole file before the next transaction, because a reader found it damaged."""
        self._is_suspect = True
        self._wake.set()

    async def close(self) -> None:
        """Write what is left; wait no longer than one transaction may take."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._close.set()
            self._wake.set()
            await asyncio.to_thread(thread.join, 2 * _BUSY_MS / 1000)

    def _drop_overflow(self) -> None:
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1

    # -- the writer thread

    def _run(self) -> None:
        try:
            self._write_until_closed()
        except _Unusable as exc:
            self._switch_off(str(exc))
        except Exception:
            log.error("ledger.crashed", exc_info=True)
            self._switch_off("internal error in claude-proxy; see its log")
        finally:
            self._disconnect()

    def _write_until_closed(self) -> None:
        pause_s = _FIRST_PAUSE_S
        is_new = False  # nothing has been written since a damaged file was moved aside
        while self._waiting or not self._close.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._waiting and not self._is_suspect:
                continue
            self._close.wait(_BATCH_S)
            try:
                self._write()
            except (sqlite3.Error, OSError, ValueError, _Damaged) as exc:
                self._disconnect()
                failure: Exception | None = exc
                if not is_new and (isinstance(exc, _Damaged) or is_damaged(exc)):
                    failure = self._move_aside(exc)
                if failure is None:
                    is_new = True
                    self._wake.set()
                    continue
                self._is_suspect = self._is_suspect or is_new
                is_new = False
                self._report(f"{self.path} cannot be written ({failure}); the calls are kept and tried again")
                if self._close.is_set():
                    self._drop_all()
                    return
                self._wake.set()
                self._close.wait(pause_s)
                pause_s = min(pause_s * 2, _MAX_PAUSE_S)
            else:
                pause_s, is_new = _FIRST_PAUSE_S, False
                if self.trouble is not None:
                    log.info("ledger.recovered", path=str(self.path), rows_lost=self.dropped)
                    self.trouble = None

    def _write(self) -> None:
        """Write all waiting rows in one transaction, then delete old ones when it is time."""
        if self._is_suspect:
            self._disconnect()  # opening it again checks the whole of it
            self._is_suspect = False
        elif self._database is not None and _identity(self.path) != self._file:
            self._disconnect()
            log.warning(
                "ledger.gone",
                why=f"{self.path} was removed or replaced while it was open; a new one is begun",
            )
        database = self._connect()
        with self._lock:
            rows, self._waiting = self._waiting, deque()
        if not rows:
            return
        try:
            self._insert(database, rows)
        except BaseException:
            with self._lock:
                self._waiting.extendleft(reversed(rows))
                self._drop_overflow()
            raise
        now = self._now()
        if self._last_deletion is None or abs(now - self._last_deletion) >= _RETENTION_S:
            self._last_deletion = now
            self._delete_old_rows(database)

    def _insert(self, database: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        with _transaction(database):
            database.executemany(_INSERT, rows)

    def _connect(self) -> sqlite3.Connection:
        if self._database is None:
            make_private_folder(self.path.parent)
            self.path.touch(mode=0o600)
            self._file = _identity(self.path)
            self._database = database = sqlite3.connect(
                self.path, isolation_level=None, timeout=_BUSY_MS / 1000
            )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            self._migrate(database)
            _check(database)
        return self._database

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                database.close()
            except sqlite3.Error:
                pass  # it is of no use any more

    def _move_aside(self, exc: BaseException) -> OSError | None:
        """Rename the damaged file, so that the next transaction begins a new one; returns the error if that fails."""
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        target = self.path.with_name(f"{self.path.name}{DAMAGED}{date}")
        number = 1
        while target.exists():
            number += 1
            target = self.path.with_name(f"{self.path.name}{DAMAGED}{date}-{number}")
        try:
            self.path.rename(target)
            for suffix in ("-wal", "-shm"):
                companion = self.path.with_name(self.path.name + suffix)
                if companion.exists():
                    companion.rename(target.with_name(target.name + suffix))
        except FileNotFoundError:
            pass  # another daemon was faster
        except OSError as failure:
            return failure
        else:
            self.moved += (target,)
            log.error(
                "ledger.damaged",
                why=f"{self.path} was damaged ({exc})",
                moved_to=str(target),
                then="a new one is begun",
            )
        return None

    def _migrate(self, database: sqlite3.Connection) -> None:
        if _version(database) == len(MIGRATIONS):
            return
        with _transaction(database):  # of two daemons that start together, one waits here
            version = _version(database)
            if version > len(MIGRATIONS):
                raise _Unusable(
                    f"{self.path} was written by a newer claude-proxy (format {version}, this one knows "
                    f"{len(MIGRATIONS)}): update, or move the file away to begin a new one"
                )
            for number, step in enumerate(MIGRATIONS[version:], version + 1):
                for statement in _statements(step):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")

    def _delete_old_rows(self, database: sqlite3.Connection) -> None:
        """Delete what is older than the setting allows, in small transactions."""
        days = self._days()
        if not days:
            return
        now = self._now()
        (newest,) = database.execute(
            "SELECT max(started_at) FROM calls WHERE started_at < ?", (now - _DAY_S,)
        ).fetchone()
        if newest is None:
            return  # there is nothing old
        if now - newest > _GAP_S:
            log.warning(
                "ledger.clock",
                why="the last call before today's is long ago, or the clock is wrong; nothing is cleared for a day",
                days_ago=round((now - newest) / _DAY_S),
            )
            return
        quarter = int(now - days * _DAY_S) // QUARTER_S
        deleted = 0
        while True:
            cursor = database.execute(
                "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE started_at < ? LIMIT ?)",
                (quarter * QUARTER_S, _DELETE_ROWS),
            )
            deleted += cursor.rowcount
            if cursor.rowcount < _DELETE_ROWS:
                break
        database.execute("DELETE FROM totals WHERE quarter < ?", (quarter,))
        database.execute("DELETE FROM session_totals WHERE quarter < ?", (quarter,))
        if deleted:
            log.info("ledger.cleared", calls=deleted, older_than_days=days)

    def _switch_off(self, why: str) -> None:
        with self._lock:
            self._is_off = True
        self._drop_all()
        self._report(f"{why}; until a restart, usage is not recorded")

    def _drop_all(self) -> None:
        with self._lock:
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _report(self, trouble: str) -> None:
        if self.trouble != trouble:
            log.error("ledger.write_failed", why=trouble)
        self.trouble = trouble


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.commit()
    except BaseException:
        database.rollback()
        raise


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def _check(database: sqlite3.Connection) -> None:
    """Raise `_Damaged` where a page or an index is damaged, `sqlite3.Error` where a table is missing."""
    row = database.execute("PRAGMA quick_check(1)").fetchone()
    if row is None or row[0] != "ok":
        raise _Damaged("no result" if row is None else str(row[0]).replace("\n", " ")[:200])
    for table in TABLES:
        database.execute(f"SELECT 1 FROM {table} LIMIT 1").close()  # noqa: S608 - constants


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _statements(script: str) -> Iterable[str]:
    """Split a script into statements; a trigger's body is one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
