"""Reopening of the log file, in a process of its own because it concerns stderr."""

from __future__ import annotations

import json
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
    subprocess.run(command, env=environment(tmp_path), check=True, timeout=120, **streams)  # type: ignore[call-overload]


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


_ROTATING = """
import sys
from proxyd.logs import rotation, setup
rotation.MAX_BYTES = 4000
rotation.KEPT_FILES = 3
setup.configure("warning", "json")
rotation.rotate_when_large()
log = setup.get_logger("x")
for number in range({first}, {first} + 60):
    log.warning("line.written", number=number, text="x" * 100)
    setup._queue.flush()
    if number == {first} + 30:
        setup.configure("warning", "json")
setup._queue.close()
"""


def _numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def test_large_file_is_rotated_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab") as file:
        command = [sys.executable, "-c", _ROTATING.format(first=0)]
        subprocess.run(command, env=environment(tmp_path), stderr=file, check=True, timeout=60)
    files = sorted(tmp_path.glob("log*"), reverse=True)
    assert [each.name for each in files] == ["log.3", "log.2", "log.1", "log"]
    assert all(each.stat().st_size < 4500 for each in files)
    numbers = [number for each in files for number in _numbers(each)]
    assert numbers == list(range(60))[-len(numbers) :]
    assert len(numbers) > 40
    assert path.stat().st_mode & 0o777 == 0o600


def test_oldest_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for first in (0, 60, 120):
        with path.open("ab") as file:
            command = [sys.executable, "-c", _ROTATING.format(first=first)]
            subprocess.run(command, env=environment(tmp_path), stderr=file, check=True, timeout=60)
    files = sorted(tmp_path.glob("log*"), reverse=True)
    assert [each.name for each in files] == ["log.3", "log.2", "log.1", "log"]
    numbers = [number for each in files for number in _numbers(each)]
    assert numbers == list(range(180))[-len(numbers) :]
    assert len(numbers) < 120


def test_file_that_another_daemon_rotated_is_only_reopened(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    script = (
        "import os\nfrom proxyd.logs import rotation\nfile = rotation.LogFile()\n"
        f"os.rename({str(path)!r}, {str(moved)!r})\nopen({str(path)!r}, 'w').close()\n"
        "rotation.MAX_BYTES = 0\nfile.rotate_if_large()\nos.write(2, b'after')\n"
    )
    with path.open("ab") as file:
        subprocess.run(
            [sys.executable, "-c", script], env=environment(tmp_path), stderr=file, check=True, timeout=30
        )
    assert "after" in path.read_text()
    assert not (tmp_path / "log.2").exists()


def test_stderr_that_is_no_file_is_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT.format(between="")]
    result = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, check=True, timeout=30
    )
    assert "logs.not_reopened" in result.stderr
    assert "stderr is not a file" in result.stderr
