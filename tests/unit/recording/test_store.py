"""Folders of records: names, atomic writes, pruning, and reading back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from proxyd.recording import store
from proxyd.recording.store import FOLDER, BadRecord, folder_name, load, timing


def test_folder_names_sort_by_time() -> None:
    names = [folder_name(moment, "req_a") for moment in (0.9996, 1.0, 1_764_118_210.123)]
    assert names[0] == "19700101T000001.000Z-req_a"
    assert names == sorted(names)


def test_prune_deletes_old_records_and_old_drafts_only(tmp_path: Path) -> None:
    root = tmp_path / FOLDER
    for name in (".draft-old", ".draft-new", "notes", "20261126T013010.123Z-req_a"):
        (root / name).mkdir(parents=True)
    os.symlink(tmp_path, root / "20251126T013010.123Z-req_link")
    os.utime(root / ".draft-old", (1, 1))
    store.prune(root, 1)
    assert sorted(path.name for path in root.iterdir()) == [
        ".draft-new",
        "20251126T013010.123Z-req_link",
        "20261126T013010.123Z-req_a",
        "notes",
    ]
    assert [path.name for path in store.folders(root)] == ["20261126T013010.123Z-req_a"]


def test_failed_write_leaves_no_partial_record(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a/b"):
        store.write_folder(tmp_path / FOLDER, "20261126T013010.123Z-req_a", {"x": b"1", "a/b": b"2"})
    assert list((tmp_path / FOLDER).iterdir()) == []


def _minimal_record(folder: Path) -> Path:
    heads = {
        "call.json": {"format": store.FORMAT, "attempts": 0, "facts": {"model": "m"}},
        "client-request.json": {"body_file": "client-request.body.json"},
        "client-response.json": {"body_file": "client-response.sse"},
    }
    files = {name: json.dumps(head).encode() for name, head in heads.items()}
    files["client-request.body.json"] = b"{}"
    files["client-response.sse"] = b"abcde"
    files["client-response.timing"] = timing([(1.0, 2, None), (2.5, 9, 2)])
    store.write_folder(folder, "20261126T013010.123Z-req_a", files)
    return folder / "20261126T013010.123Z-req_a"


def test_bodies_are_split_by_their_timing(tmp_path: Path) -> None:
    record = load(_minimal_record(tmp_path / FOLDER))
    assert record.body == b"{}"
    assert record.response_chunks == [(1.0, b"ab"), (2.5, b"cd"), (2.5, b"e")]


def test_record_of_another_format_is_refused(tmp_path: Path) -> None:
    path = _minimal_record(tmp_path / FOLDER)
    (path / "call.json").write_text('{"format": 99, "claude_proxy": "9.9"}')
    with pytest.raises(BadRecord, match="use the version that wrote it"):
        load(path)
