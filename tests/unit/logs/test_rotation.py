"""Reopening of the log file, in a process of its own because it concerns stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.command_line import environment

_SCRIPT = """
import os, sys
from proxyd.logs.rotation import LogFile
from proxyd.logs import setup
setup.configure("info", "json")
file = LogFile()
print("before", file=sys.stderr)
print("to stdout")
sys.stdout.flush()
{between}
file.reopen()
print("after", file=sys.stderr)
setup._queue.close()
"""


def _run(tmp_path: Path, between: str, **streams: object) -> None:
    script = _SCRIPT.format(between=between)
    command = [sys.executable, "-c", script]
    subprocess.run(command, env=environment(tmp_path), check=True, timeout=30, **streams)  # type: ignore[call-overload]


def test_moved_file_is_opened_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    with path.open("wb") as file:
        _run(tmp_path, f"os.rename({str(path)!r}, {str(moved)!r})", stderr=file, stdout=file)
    assert moved.read_text().splitlines() == ["before", "to stdout"]
    assert "after" in path.read_text().splitlines()
    assert "logs.reopened" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_stdout_that_is_another_file_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "out"
    with path.open("wb") as file, other.open("wb") as out:
        _run(tmp_path, f"os.remove({str(path)!r})\nprint('still here')", stderr=file, stdout=out)
    assert other.read_text().splitlines() == ["to stdout", "still here"]


def test_stderr_that_is_no_file_is_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT.format(between="")]
    result = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, check=True, timeout=30
    )
    assert "logs.not_reopened" in result.stderr
    assert "stderr is not a file" in result.stderr
