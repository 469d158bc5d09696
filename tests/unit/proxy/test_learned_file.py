"""File of learned quirks: written, read back, and ignored where it is invalid or old."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest

from proxyd.config.routes import ModelRoute
from proxyd.providers.learned_quirks import CallKind, LearnedQuirks
from proxyd.providers.learned_sizes import MAX_AGE_S
from proxyd.proxy.learned_file import FILE, LearnedQuirkFile, read_learned

ROUTE = ModelRoute(
    model_id="m", model_name="x", api_base="http://127.0.0.1:1/v1", extra_body={"secret": "s3cret"}
)
NOW = int(time()) // 86_400 * 86_400
KIND = CallKind(has_tools=True)
QUIRKS = LearnedQuirks(
    {"sampling": [], "stop_limit": None}, 4096, ("quirks: {sampling: []}", "max_tokens: 4096")
)


async def saved(path: Path, now: float) -> None:
    file = LearnedQuirkFile(path)
    assert file.store.keep(ROUTE, KIND, QUIRKS, now) == QUIRKS.lines
    assert file.store.keep(ROUTE, CallKind(), QUIRKS, now) == ()  # each line is reported once
    file.store.sizes.keep_window(ROUTE, 30000, now)
    file.save()
    await asyncio.get_running_loop().shutdown_default_executor()


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "state" / FILE
    asyncio.run(saved(path, time()))
    store = read_learned(path)
    assert store.of(ROUTE, KIND, time()) == QUIRKS
    assert store.of(ROUTE, CallKind(True, True), time()).lines == ()
    assert store.of(replace(ROUTE, quirks={"vision": False}), KIND, time()).lines == (), (
        "the entry was edited"
    )
    assert store.of(ROUTE, KIND, time() + MAX_AGE_S).lines == ()
    assert store.sizes.of(ROUTE, time()).window == 30000
    assert "s3cret" not in path.read_text(encoding="utf-8")


def test_an_old_row_is_not_read(tmp_path: Path) -> None:
    asyncio.run(saved(tmp_path / FILE, time() - MAX_AGE_S - 9))
    assert read_learned(tmp_path / FILE).kept(ROUTE, 0) == []


ROW: dict[str, Any] = {
    "entry": "e", "tools": True, "thinking": False, "at": 1, "quirks": {}, "max_tokens": None, "lines": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"learned": 3}',
        json.dumps(
            {"learned": [3, {**ROW, "quirks": {"nothing": 1}}, {**ROW, "lines": [1]}, {**ROW, "at": "x"}]}
        ),
        json.dumps({"learned": [{**ROW, "at": NOW, "max_tokens": "many"}]}),
        '{"windows": {}}',
        json.dumps({"windows": [7, {"entry": "e", "window": True, "at": NOW}]}),
        json.dumps({"windows": [{"entry": "e", "window": -1, "at": NOW}, {"entry": 1}]}),
    ],
)
def test_invalid_files_and_rows_are_skipped(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE
    path.write_text(text, encoding="utf-8")
    assert read_learned(path).to_document() == {"learned": [], "windows": []}
