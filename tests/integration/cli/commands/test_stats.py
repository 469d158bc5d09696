"""``claude-proxy statusline``: the current model, its own routes, and the session's sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxyd.telemetry.ledger_schema import COLUMNS, FILE, row_of
from tests.support.command_line import output
from tests.support.observing import SESSION, finished, new_ledger_file


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / ".local" / "state" / "claude-proxy"
    folder.mkdir(parents=True)
    database = new_ledger_file(folder / FILE)
    insert = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    records = (
        finished(model="qwen-local", route="qwen-local"),
        finished(model="small-win", route="small-win"),
        finished(model="claude-haiku-4-5", route="qwen-local"),
        finished(model="chain", route="chain"),
        finished(model="chain", route="spare"),
    )
    database.executemany(insert, [row_of(record) for record in records])
    database.commit()
    database.close()
    return tmp_path


@pytest.mark.parametrize(
    ("model_id", "start"),
    [
        ("qwen-local", "qwen-local · 2.0k in"),
        ("small-win", "small-win · 2.0k in"),
        ("small-win[1m]", "small-win[1m] · 2.0k in"),
        ("claude-haiku-4-5", "claude-haiku-4-5 via qwen-local · 2.0k in"),
        ("chain", "chain via spare, chain · 2.0k in"),
        ("never-called", "never-called · 2.0k in"),
    ],
)
def test_only_the_routes_of_the_current_model_are_named(home: Path, model_id: str, start: str) -> None:
    given = json.dumps({"session_id": SESSION, "model": {"id": model_id}})
    assert output(home, "statusline", stdin=given).startswith(start)
