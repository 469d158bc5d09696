"""Calls through a daemon that keeps a ledger, and what the ledger then says."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp

from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.ledger_schema import FILE, MIGRATIONS

__all__ = ["ask", "finished", "in_flight", "new_ledger_file", "rows", "until_rows"]

SESSION = "11111111-2222-3333-4444-555555555555"


def finished(*, cache_break: str | None = None, **fields: Any) -> FinishedCall:
    """A finished call; `fields` override an ordinary one."""
    return FinishedCall.of(in_flight(**fields), cache_break)


def in_flight(**fields: Any) -> CallRecord:
    """The record of a call; `fields` override those of an ordinary one that has just ended."""
    given: dict[str, Any] = {
        "request_id": "req_test",
        "model": "m",
        "route": "m",
        "mode": "translated",
        "upstream_model": "up",
        "session_id": SESSION,
        "status": 200,
        "outcome": "ok",
        "stop_reason": "end_turn",
        "usage": Usage(100, 20, 300, 0, 5),
        "begun": 10.0,
        "first_byte": 10.25,
        "ended": 12.0,
    }
    return CallRecord(**{**given, **fields})


def new_ledger_file(path: Path) -> sqlite3.Connection:
    """An empty ledger in the newest format, open for writing."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript("".join(MIGRATIONS))
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    database.commit()
    database.row_factory = sqlite3.Row
    return database


def rows(folder: Path, query: str = "SELECT * FROM calls ORDER BY id") -> list[dict[str, Any]]:
    """What the ledger in `folder` holds; nothing where it has no tables yet."""
    if not (folder / FILE).exists():
        return []
    database = sqlite3.connect(folder / FILE)
    database.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in database.execute(query)]
    except sqlite3.OperationalError:
        return []
    finally:
        database.close()


async def until_rows(folder: Path, count: int, *, timeout: float = 10) -> list[dict[str, Any]]:
    """Wait until the ledger holds so many calls."""

    async def found() -> list[dict[str, Any]]:
        while len(seen := rows(folder)) < count:
            await asyncio.sleep(0.02)
        return seen

    return await asyncio.wait_for(found(), timeout)


async def ask(
    session: aiohttp.ClientSession, base: str, *, headers: dict[str, str] | None = None, **more: Any
) -> bytes:
    """One call to the model ``m``, read to its end, whatever its status."""
    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], **more}
    async with session.post(f"{base}/v1/messages", json=body, headers=headers) as response:
        return await response.read()
