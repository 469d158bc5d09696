"""The ledger: one row a call in SQLite, written beside the streams, never in their way.

::

    observe ─▶ queue (bounded) ─▶ every half second, one transaction ─▶ usage.db
                                     └─fails─▶ reported once, kept, tried again; what overflows is counted

A row is in the file at the latest a second after its call, and stays through a crash of the process: in WAL mode a
commit is in the file system's hands. Two daemons may share a file: SQLite's lock puts their transactions in a row.

A file that is damaged is moved aside, with the date in its name, and a new one is begun. Whether it is whole is asked
when it is opened, and when a reader has met something. A file that has been removed, or exchanged, while it was open is
noticed by its inode ahead of each transaction, so that no row goes into one that nobody can find.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import aiosqlite

from proxyd.config.paths import make_private_folder
from proxyd.logs.setup import get_logger
from proxyd.telemetry.ledger_schema import COLUMNS, DAMAGED, MIGRATIONS, QUARTER_S, TABLES, is_damaged

__all__ = ["Ledger"]

log = get_logger("ledger")

#: How long a row waits for others; with the write itself this stays below the second that a crash may cost.
_BATCH_S = 0.5
#: Rows kept while the file cannot be written: at 10 calls a second, a quarter of an hour of them.
_MAX_WAITING = 10_000
#: How long a transaction waits for that of another process. It waits in a thread of its own.
_BUSY_MS = 2_000
#: Pauses between tries while the file cannot be written.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0
#: How often old rows are looked for.
_RETENTION_S = 3_600.0
#: No clock that is right finds the last call before today's this much older than now, while calls come: the clock has
#: jumped, or nothing has come for long; then clearing waits until calls of a day are there.
_GAP_S, _DAY_S = 30 * 86_400.0, 86_400.0
#: Rows deleted in one transaction, so that a large clearing-out does not hold up the other writer.
_DELETE_ROWS = 20_000

#: Rows in one statement at the most, a power of two. Up to 3.31, SQLite takes no more than 999 values.
_MOST_ROWS = 128 if sqlite3.sqlite_version_info >= (3, 32) else 32
_ROW = f"({', '.join('?' * len(COLUMNS))})"
_INSERT = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES {_ROW}"  # noqa: S608

# The module asks each value that is neither a text nor a number how it is to be stored, None as well, for as long as it
# takes to store three others. An adapter spares that: this one is a function in C that makes None of None.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]  # which has an overload for that


class _Database(sqlite3.Connection):
    """Writes many rows with few statements.

    At the end of each statement its thread has to get the interpreter's lock back from one that streams, and that takes
    as long as some rows. Their numbers are powers of two, so that there are few different statements to prepare.
    """

    def executemany(self, insert: str, rows: Sequence[tuple[Any, ...]]) -> sqlite3.Cursor:  # type: ignore[override]
        """`insert`, a statement with one row, with all `rows` instead, in one transaction."""
        cursor = self.execute("BEGIN IMMEDIATE")
        try:
            at, count = 0, _MOST_ROWS
            while at < len(rows):
                while count > len(rows) - at:
                    count //= 2
                values = tuple(chain.from_iterable(rows[at : at + count]))
                self.execute(insert + f", {_ROW}" * (count - 1), values)
                at += count
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return cursor


class _Damaged(Exception):
    """The file is no whole database with our tables. The message says what is wrong with it."""


class _Unusable(Exception):
    """The file will not become usable by waiting. The message says why and what to do."""


class Ledger:
    """Writes calls to the file, of each of which `observe` is told when it is over.

    Args:
        path: the file; it and its folder are made when the first row comes.
        days: how long rows are kept; 0 for ever. Asked at each clearing-out, so that a reload counts.
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
        self._wake = asyncio.Event()
        self._close = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._database: aiosqlite.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what is open
        self._is_suspect = False
        self._is_off = False
        self._last_clearing: float | None = None

    def start(self) -> None:
        """Begin to write, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="ledger")

    def observe(self, row: tuple[Any, ...]) -> None:
        """Remember a finished call, as `proxyd.telemetry.ledger_schema.row_of` has it."""
        if self._is_off:
            self.dropped += 1
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._drop_oldest()
        self._waiting.append(row)
        self._wake.set()

    def suspect(self) -> None:
        """A reader found the file damaged: look at the whole of it, and begin a new one if that is so."""
        self._is_suspect = True
        self._wake.set()

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self.dropped += 1

    async def close(self) -> None:
        """Write what is left; wait no longer than one transaction may take."""
        if self._task is None:
            return
        self._close.set()
        self._wake.set()
        done, _ = await asyncio.wait({self._task}, timeout=2 * _BUSY_MS / 1000)
        if not done:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        is_new = False  # nothing has been written since a damaged file was moved aside
        try:
            while not (self._close.is_set() and not self._waiting):
                await self._wake.wait()
                self._wake.clear()
                if not self._waiting and not self._is_suspect:
                    continue
                await self._pause(_BATCH_S)
                try:
                    await self._write()
                except _Unusable as exc:
                    self._off(str(exc))
                    return
                except (sqlite3.Error, OSError, ValueError, _Damaged) as exc:
                    await self._disconnect()
                    if not is_new and (isinstance(exc, _Damaged) or is_damaged(exc)):
                        hindrance = await asyncio.to_thread(self._move_aside, exc)
                        if hindrance is None:
                            is_new = True
                            self._wake.set()
                            continue
                        exc = hindrance
                    self._is_suspect = self._is_suspect or is_new
                    is_new = False
                    self._report(f"{self.path} cannot be written ({exc}); the calls are kept and tried again")
                    if self._close.is_set():
                        self.dropped += len(self._waiting)
                        return
                    self._wake.set()
                    await self._pause(pause_s)
                    pause_s = min(pause_s * 2, _MAX_PAUSE_S)
                else:
                    pause_s, is_new = _FIRST_PAUSE_S, False
                    if self.trouble is not None:
                        log.info("ledger.recovered", path=str(self.path), rows_lost=self.dropped)
                        self.trouble = None
        finally:
            await self._disconnect()

    async def _pause(self, delay_s: float) -> None:
        """Let time pass, unless everything is to end."""
        try:
            await asyncio.wait_for(self._close.wait(), delay_s)
        except asyncio.TimeoutError:
            pass

    async def _write(self) -> None:
        if self._is_suspect:
            await self._disconnect()  # to connect is to look at the whole of it
            self._is_suspect = False
        elif self._database is not None and _identity(self.path) != self._file:
            await self._disconnect()
            log.warning(
                "ledger.gone",
                why=f"{self.path} was removed or exchanged while it was open; a new one is begun",
            )
        database = await self._connect()
        rows = list(self._waiting)
        if not rows:
            return
        self._waiting.clear()
        try:
            await database.executemany(_INSERT, rows)
        except BaseException:
            self._waiting.extendleft(reversed(rows))
            while len(self._waiting) > _MAX_WAITING:  # others have come meanwhile
                self._drop_oldest()
            raise
        now = self._now()
        if self._last_clearing is None or abs(now - self._last_clearing) >= _RETENTION_S:
            self._last_clearing = now
            await self._clear_out(database)

    async def _connect(self) -> aiosqlite.Connection:
        if self._database is None:
            await asyncio.to_thread(self._make_file)
            self._file = _identity(self.path)
            self._database = await aiosqlite.connect(self.path, isolation_level=None, factory=_Database)
            await self._database.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            await self._database.execute("PRAGMA journal_mode = WAL")
            await self._database.execute("PRAGMA synchronous = NORMAL")
            await self._migrate(self._database)
            await _check(self._database)
        return self._database

    def _make_file(self) -> None:
        make_private_folder(self.path.parent)
        self.path.touch(mode=0o600)

    async def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                await database.close()
            except (sqlite3.Error, ValueError):
                pass  # it is of no use any more

    def _move_aside(self, exc: BaseException) -> OSError | None:
        """Rename the damaged file, so that the next transaction begins a new one; gives what hindered it."""
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        target = self.path.with_name(f"{self.path.name}{DAMAGED}{date}")
        number = 1
        while target.exists():
            number += 1
            target = self.path.with_name(f"{self.path.name}{DAMAGED}{date}-{number}")
        try:
            self.path.rename(target)
            for ending in ("-wal", "-shm"):
                beside = self.path.with_name(self.path.name + ending)
                if beside.exists():
                    beside.rename(target.with_name(target.name + ending))
        except FileNotFoundError:
            pass  # another daemon was faster
        except OSError as hindrance:
            return hindrance
        else:
            self.moved += (target,)
            log.error(
                "ledger.damaged",
                why=f"{self.path} was damaged ({exc})",
                moved_to=str(target),
                then="a new one is begun",
            )
        return None

    async def _migrate(self, database: aiosqlite.Connection) -> None:
        if await _version(database) == len(MIGRATIONS):
            return
        await database.execute("BEGIN IMMEDIATE")  # of two daemons that start together, one waits here
        try:
            version = await _version(database)
            if version > len(MIGRATIONS):
                raise _Unusable(
                    f"{self.path} was written by a newer claude-proxy (format {version}, this one knows "
                    f"{len(MIGRATIONS)}): update, or move the file away to begin a new one"
                )
            for number, step in enumerate(MIGRATIONS[version:], version + 1):
                for statement in _statements(step):
                    await database.execute(statement)
                await database.execute(f"PRAGMA user_version = {number}")
            await database.commit()
        except BaseException:
            await database.rollback()
            raise

    async def _clear_out(self, database: aiosqlite.Connection) -> None:
        """Delete what is older than the setting allows, in small transactions."""
        days = self._days()
        if not days:
            return
        now = self._now()
        async with database.execute(
            "SELECT max(started_at) FROM calls WHERE started_at < ?", (now - _DAY_S,)
        ) as cursor:
            newest = await cursor.fetchone()
        if newest is None or newest[0] is None:
            return  # there is nothing that is old
        if now - newest[0] > _GAP_S:
            log.warning(
                "ledger.clock",
                why="the last call before today's is long ago, or the clock is wrong; nothing is cleared for a day",
                days_ago=round((now - newest[0]) / _DAY_S),
            )
            return
        quarter = int(now - days * _DAY_S) // QUARTER_S
        deleted = 0
        while True:
            cursor = await database.execute(
                "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE started_at < ? LIMIT ?)",
                (quarter * QUARTER_S, _DELETE_ROWS),
            )
            deleted += cursor.rowcount
            if cursor.rowcount < _DELETE_ROWS:
                break
        await database.execute("DELETE FROM totals WHERE quarter < ?", (quarter,))
        await database.execute("DELETE FROM session_totals WHERE quarter < ?", (quarter,))
        if deleted:
            log.info("ledger.cleared", calls=deleted, older_than_days=days)

    def _off(self, why: str) -> None:
        self._is_off = True
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._report(f"{why}; until a restart, usage is not recorded")

    def _report(self, trouble: str) -> None:
        if self.trouble != trouble:
            log.error("ledger.trouble", why=trouble)
        self.trouble = trouble


async def _version(database: aiosqlite.Connection) -> int:
    async with database.execute("PRAGMA user_version") as cursor:
        row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def _check(database: aiosqlite.Connection) -> None:
    """Raise `_Damaged` where a page or an index is, or a table is not there; in the database's thread."""
    async with database.execute("PRAGMA quick_check(1)") as cursor:
        row = await cursor.fetchone()
    if row is None or row[0] != "ok":
        raise _Damaged("no answer" if row is None else str(row[0]).replace("\n", " ")[:200])
    for table in TABLES:
        await (await database.execute(f"SELECT 1 FROM {table} LIMIT 1")).close()  # noqa: S608 - constants


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _statements(script: str) -> Iterable[str]:
    """The statements of a script, a trigger's body as one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
