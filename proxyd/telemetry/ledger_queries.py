"""Queries of the ledger, for ``/v1/stats``, the page and ``claude-proxy stats``.

Sums come from ``totals`` and ``session_totals`` (see `proxyd.telemetry.ledger_schema`), whose primary keys begin with
the time, so that a query reads the rows of its period only. Only lists of calls
and sums by kind read ``calls``, by its indexes.

A reader opens the file read-only, in a thread or process of its own; in WAL mode it never waits for the writer. The
same queries run on the tables of PostgreSQL (`proxyd.telemetry.shared_ledger`), which have the same columns.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from proxyd.errors import ConfigError
from proxyd.telemetry.ledger_schema import CALL_SUMS, DAMAGED, MIGRATIONS, QUARTER_S, SUMS, is_damaged
from proxyd.telemetry.request_kind import CLASS_OF_KIND

__all__ = [
    "GROUPS",
    "PERIODS_DAYS",
    "SUMS",
    "AnyLedger",
    "LedgerUnreadable",
    "SharedRows",
    "calls_of_session",
    "damaged_files",
    "last_calls",
    "last_prompt",
    "last_sessions",
    "midnight",
    "open_ledger",
    "overview",
    "overview_of_key",
    "series",
    "sessions_like",
    "sums",
]

#: The names by which sums can be grouped, and the SQL expressions. A day is a day of the local time zone. The sign
#: before ``session_id`` keeps SQLite from scanning that column's index, for its order, instead of the period.
_TOTAL_GROUPS: Mapping[str, str] = {
    "model": "route",
    "session": "+session_id",
    "day": "date(quarter * 900, 'unixepoch', 'localtime')",
    "outcome": "outcome",
}
_CLASS = " ".join(f"WHEN '{kind}' THEN '{name}'" for kind, name in CLASS_OF_KIND.items())
#: Those by which only the rows of ``calls`` can be grouped.
_CALL_GROUPS: Mapping[str, str] = {
    "kind": "kind",
    "class": f"CASE kind {_CLASS} ELSE kind END",
    "agent": "agent_type",
    "prompt": "prompt_id",
    "key": "caller",
    "team": "team",
}
GROUPS: Mapping[str, str] = {**_TOTAL_GROUPS, **_CALL_GROUPS}
#: Periods of `overview` besides today.
PERIODS_DAYS = (7, 30)


class SharedRows(Protocol):
    """The ledger of several daemons, in PostgreSQL."""

    def rows(self, query: str, parameters: Sequence[int | float | str | None]) -> list[dict[str, Any]]:
        """Run a query whose parameters are marked by ``?``.

        Raises:
            LedgerUnreadable: the database cannot be used.
        """

    def close(self) -> None:
        """Close the connection."""


#: A ledger that can be asked: a file, or that of several daemons.
AnyLedger = sqlite3.Connection | SharedRows

_DAY_S = 86_400
_TOKENS = "sum(t.input_tokens + t.output_tokens + t.cache_read_tokens + t.cache_write_tokens)"
#: The most sessions in an overview.
_TOP = 20
_BUSY_S = 0.5
#: Suffixes of the files that SQLite keeps next to a database.
_COMPANIONS = ("-wal", "-shm")


class LedgerUnreadable(ConfigError):
    """The ledger's file cannot be read; the message says what to do.

    Attributes:
        is_damaged: the file is not an intact ledger, and a retry does not help.
    """

    def __init__(self, message: str, *, is_damaged: bool = False) -> None:
        super().__init__(message)
        self.is_damaged = is_damaged


class _Reader(sqlite3.Connection):
    """A connection with the path of its file.

    Attributes:
        is_older: no newer daemon has converted it yet, so it lacks columns.
    """

    path: Path | None = None
    is_older = False


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open the ledger read-only. Where no call has been written yet, the result is an empty ledger.

    Raises:
        LedgerUnreadable: there is a file, and it cannot be read.
    """
    if not path.exists():
        return _empty()
    database = None
    try:
        # Not mode=ro: a reader of a WAL file may have to create its index of the log.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        database = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, factory=_Reader)
        database.path = path
        database.execute("PRAGMA query_only = 1")
        (version,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as exc:
        if database is not None:
            database.close()
        raise _unreadable(path, exc) from None
    if version == 0:
        database.close()
        return _empty()
    if version > len(MIGRATIONS):
        database.close()
        raise LedgerUnreadable(f"{path} has format {version}, that of a newer claude-proxy: update")
    database.is_older = version < len(MIGRATIONS)
    database.row_factory = sqlite3.Row
    return database


def damaged_files(path: Path) -> list[Path]:
    """List the damaged ledgers that were moved aside, the oldest first."""
    return sorted(
        each for each in path.parent.glob(f"{path.name}{DAMAGED}*") if each.suffix[-4:] not in _COMPANIONS
    )


def _unreadable(path: Path | None, exc: sqlite3.Error) -> LedgerUnreadable:
    if is_damaged(exc):
        text = "a daemon that runs moves it aside and begins a new one with its next call, else move it away"
        return LedgerUnreadable(f"{path} is damaged ({exc}): {text}", is_damaged=True)
    return LedgerUnreadable(f"{path} cannot be read ({exc}): try again, or move it away to begin a new one")


def _rows(
    database: AnyLedger, query: str, parameters: Sequence[int | float | str | None]
) -> list[dict[str, Any]]:
    if not isinstance(database, sqlite3.Connection):
        return database.rows(query, parameters)
    try:
        return [dict(row) for row in database.execute(query, parameters)]
    except sqlite3.DatabaseError as exc:
        if getattr(database, "is_older", False) and "no such column" in str(exc):
            path = getattr(database, "path", None)
            raise LedgerUnreadable(
                f"{path} is of an older claude-proxy: restart the daemon, which converts it"
            ) from None
        raise _unreadable(getattr(database, "path", None), exc) from None


def _empty() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.executescript("".join(MIGRATIONS))
    database.row_factory = sqlite3.Row
    return database


def midnight(now: float) -> float:
    """Unix time of the beginning of the local day of `now`."""
    day = time.localtime(now)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))


def sums(
    database: AnyLedger,
    since: float,
    *,
    by: str | None = None,
    session: str | None = None,
    limit: int = -1,
) -> list[dict[str, Any]]:
    """Sum up the calls since a time. Groups with the most tokens come first, days in ascending order.

    Args:
        since: Unix time, rounded down to the quarter of an hour.
        by: one of `GROUPS`, also the name of the group's column; None for one row over all calls.
        session: restrict to this session.
        limit: the most rows; -1 for all.
    """
    quarter = int(since) // QUARTER_S
    parameters: list[int | str | None] = [quarter]
    if by == "day" and not isinstance(database, sqlite3.Connection):
        return _by_day(database, since, session)[: None if limit < 0 else limit]
    if by in _CALL_GROUPS:
        table, values = "calls", CALL_SUMS
        where, parameters = ["started_at >= ?", "kind <> 'count'"], [quarter * QUARTER_S]
    else:
        table = "totals" if session is None and by != "session" else "session_totals"
        where, values = ["quarter >= ?"], {name: name for name in SUMS}
    columns = ", ".join(f"coalesce(sum({value}), 0) AS {name}" for name, value in values.items())
    if session is not None:
        where.append("session_id = ?")
        parameters.append(session)
    head = tail = ""
    if by is not None:
        head = f'{_group(database, by)} AS "{by}", '
        tail = f"GROUP BY 1 ORDER BY {'1' if by == 'day' else f'{_TOKENS} DESC, calls DESC, 1'}"
    # Every part is one of the constants above.
    query = f"SELECT {head}{columns} FROM {table} AS t WHERE {' AND '.join(where)} {tail} LIMIT ?"  # noqa: S608
    # For PostgreSQL, no limit is NULL.
    is_shared = not isinstance(database, sqlite3.Connection)
    return _rows(database, query, (*parameters, None if is_shared and limit < 0 else limit))


def _group(database: AnyLedger, by: str) -> str:
    """The expression of a group; the sign in front of a column is for SQLite's planner."""
    return GROUPS[by] if isinstance(database, sqlite3.Connection) else GROUPS[by].lstrip("+")


def _by_day(database: SharedRows, since: float, session: str | None) -> list[dict[str, Any]]:
    """Sum up by days of the local time zone, which a database elsewhere does not know."""
    table = "totals" if session is None else "session_totals"
    where, parameters = "quarter >= ?", (int(since) // QUARTER_S, *(() if session is None else (session,)))
    columns = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
    query = (
        f"SELECT quarter, {columns} FROM {table} WHERE {where} {'' if session is None else 'AND session_id = ?'} "  # noqa: S608
        "GROUP BY 1"
    )
    return _fold(_rows(database, query, parameters), "day", "%Y-%m-%d", ())


def _fold(
    rows: Sequence[Mapping[str, Any]], name: str, form: str, also: Sequence[str]
) -> list[dict[str, Any]]:
    """Add up rows of quarters of an hour by local time, in the form of `time.strftime`, and by other columns."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        step = time.strftime(form, time.localtime(row["quarter"] * QUARTER_S))
        key = (step, *(row[each] for each in also))
        sums_ = found.setdefault(key, dict(zip((name, *also), key, strict=True)))
        for column, value in row.items():
            if column != "quarter" and column not in also:
                sums_[column] = sums_.get(column, 0) + value
    return [found[key] for key in sorted(found)]


def calls_of_session(database: AnyLedger, session: str, *, limit: int = 50) -> list[dict[str, Any]]:
    """List the last calls of a session, the newest first, as rows of ``calls``."""
    query = "SELECT * FROM calls WHERE session_id = ? ORDER BY started_at DESC LIMIT ?"
    return _rows(database, query, (session, limit))


def last_prompt(database: AnyLedger, session: str) -> dict[str, Any] | None:
    """Sum up the calls for the last prompt of a session, subagents included; None where the client names no prompts."""
    if getattr(database, "is_older", False):
        return None
    query = "SELECT prompt_id FROM calls WHERE session_id = ? AND prompt_id <> '' ORDER BY started_at DESC LIMIT 1"
    found = _rows(database, query, (session,))
    if not found:
        return None
    columns = ", ".join(f"coalesce(sum({value}), 0) AS {name}" for name, value in CALL_SUMS.items())
    query = f"SELECT {columns} FROM calls WHERE session_id = ? AND prompt_id = ?"  # noqa: S608 - constants
    return _rows(database, query, (session, found[0]["prompt_id"]))[0]


def last_calls(database: AnyLedger, since: float, *, limit: int = 200) -> list[dict[str, Any]]:
    """List the last calls since a time, the newest first, as rows of ``calls``."""
    query = "SELECT * FROM calls WHERE started_at >= ? ORDER BY started_at DESC LIMIT ?"
    return _rows(database, query, (since, limit))


def last_sessions(database: AnyLedger, since: float, *, limit: int = _TOP) -> list[dict[str, Any]]:
    """List the sessions with a call since a time, the last used first: sums, models and lost caches of that time."""
    lost = "0" if getattr(database, "is_older", False) else "count(nullif(cache_break, ''))"
    values = {"cache_breaks": lost} | {name: f"coalesce(sum({each}), 0)" for name, each in CALL_SUMS.items()}
    columns = ", ".join(f"{value} AS {name}" for name, value in values.items())
    query = (
        f"SELECT session_id, route, max(started_at) AS last_at, {columns} FROM calls "  # noqa: S608 - constants
        "WHERE started_at >= ? AND kind <> 'count' AND session_id IS NOT NULL GROUP BY 1, 2 ORDER BY last_at DESC"
    )
    found: dict[str, dict[str, Any]] = {}
    for row in _rows(database, query, (since,)):
        model = row.pop("route") or ""
        first = found.setdefault(row["session_id"], {**row, **dict.fromkeys(values, 0), "models": []})
        first["models"].append(model)
        for name in values:
            first[name] += row[name]
    return list(found.values())[:limit]


def _by_minute(database: AnyLedger, since: float) -> list[dict[str, Any]]:
    columns = _TOKENS.removeprefix("sum(").removesuffix(")")
    query = f"SELECT started_at, route, {columns} AS tokens, cost_usd, outcome FROM calls AS t WHERE started_at >= ?"  # noqa: S608
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _rows(database, query, (since,)):
        key = (time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started_at"])), row["route"] or "")
        sums_ = found.setdefault(
            key, {"minute": key[0], "model": key[1], "tokens": 0, "cost_usd": 0.0, "calls": 0, "failures": 0}
        )
        sums_["tokens"] += row["tokens"]
        sums_["cost_usd"] += row["cost_usd"] or 0.0
        sums_["calls"] += 1
        sums_["failures"] += row["outcome"] not in ("ok", "client_gone")
    return [found[key] for key in sorted(found)]


def series(database: AnyLedger, since: float, step: str) -> list[dict[str, Any]]:
    """Sum up tokens, cost, calls and failures by step and model, for charts.

    Args:
        step: ``minute``, ``hour`` or ``day``, of the local time zone, also the name of the column with its beginning.
    """
    if step == "minute":
        return _by_minute(database, since)
    is_shared = not isinstance(database, sqlite3.Connection)
    start = (
        "strftime('%Y-%m-%d %H:00', quarter * 900, 'unixepoch', 'localtime')"
        if step == "hour"
        else GROUPS["day"]
    )
    failures = "sum(CASE WHEN outcome IN ('ok', 'client_gone') THEN 0 ELSE calls END)"
    query = (
        f"SELECT {'quarter' if is_shared else f'{start} AS {step}'}, route AS model, {_TOKENS} AS tokens, "  # noqa: S608 - constants
        f"sum(cost_usd) AS cost_usd, sum(calls) AS calls, {failures} AS failures "
        "FROM totals AS t WHERE quarter >= ? GROUP BY 1, 2 ORDER BY 1, 2"
    )
    rows = _rows(database, query, (int(since) // QUARTER_S,))
    if is_shared:
        return _fold(rows, step, "%Y-%m-%d %H:00" if step == "hour" else "%Y-%m-%d", ("model",))
    return rows


def sessions_like(database: AnyLedger, prefix: str) -> list[str]:
    """List at most ten sessions whose id begins with `prefix`."""
    query = "SELECT DISTINCT session_id FROM session_totals WHERE session_id >= ? AND session_id < ? LIMIT 10"
    return [row["session_id"] for row in _rows(database, query, (prefix, prefix + "\x7f"))]


def overview_of_key(database: AnyLedger, name: str, now: float) -> dict[str, Any]:
    """Sum up today and the last 7 and 30 days of one virtual key, in total and by model."""
    columns = ", ".join(f"coalesce(sum({value}), 0) AS {name_}" for name_, value in CALL_SUMS.items())
    where = "FROM calls AS t WHERE started_at >= ? AND kind <> 'count' AND caller = ?"
    found: dict[str, Any] = {}
    for period, since in _starts(now).items():
        values = (int(since), name)
        by_model = (
            f"SELECT route AS model, {columns} {where} GROUP BY 1 ORDER BY {_TOKENS} DESC, calls DESC, 1"
        )
        found[period] = {
            "since": since,
            "total": _rows(database, f"SELECT {columns} {where}", values)[0],
            "by_model": _rows(database, by_model, values),
        }
    return found


def _starts(now: float) -> dict[str, float]:
    return {
        "today": midnight(now),
        **{f"days_{days}": midnight(now) - (days - 1) * _DAY_S for days in PERIODS_DAYS},
    }


def overview(database: AnyLedger, now: float) -> dict[str, Any]:
    """Sum up today and the last 7 and 30 days, each in total and by model, session, day and outcome."""
    found: dict[str, Any] = {}
    for name, since in _starts(now).items():
        found[name] = {
            "since": since,
            "total": sums(database, since)[0],
            **{
                f"by_{by}": sums(database, since, by=by, limit=_TOP if by == "session" else -1)
                for by in _TOTAL_GROUPS
            },
        }
    return found
