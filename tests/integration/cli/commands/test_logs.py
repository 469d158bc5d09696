"""``claude-proxy logs``: short lines on a terminal, the written ones elsewhere, files and the journal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxyd.logs.setup import get_logger
from proxyd.telemetry.access_log import log_calls
from tests.support.command_line import Home, home
from tests.support.log_text import logging_to_text
from tests.support.observing import finished

__all__ = ["home"]

UNIT = ".config/systemd/user/claude-proxy.service"


@pytest.fixture
def written() -> list[str]:
    """Lines as a daemon writes them to a file."""
    with logging_to_text() as log:
        log_calls([finished(route="kimi", retries=1)])
        get_logger("relay").warning("upstream.retry", why="reset")
        log_calls([finished(route="kimi", outcome="refused", status=429, error="too fast")])
        return log.lines()


def log_of(home: Home) -> Path:
    path = home.path / ".local/state/claude-proxy/claude-proxy.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Screen:
    """A terminal of some columns in which a command runs."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.text = ""

    def read_until(self, text: str) -> str:
        """Read until `text` is on it, without escape sequences."""
        deadline = time.monotonic() + 30
        while text not in self.plain and time.monotonic() < deadline:
            try:
                self.text += os.read(self._master, 65536).decode()
            except OSError:  # the command has ended
                break
        assert text in self.plain, self.plain
        return self.plain

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[\d+m", "", self.text)


@contextmanager
def on_terminal(home: Home, *arguments: str, columns: int = 80) -> Iterator[Screen]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "proxyd", "logs", *arguments],
        env={**home.environ, "LANG": "C.UTF-8", "TERM": "xterm"},
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    try:
        yield Screen(master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.parametrize("columns", [80, 100])
def test_calls_are_short_lines_on_a_terminal(home: Home, written: list[str], columns: int) -> None:
    log_of(home).write_text("\n".join([*written, "not JSON\x1b[31m", ""]))
    with on_terminal(home, columns=columns) as screen:
        text = screen.read_until("not JSON")
    first, second, third, *_ = text.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d ✓ kimi  main  2\.0 s  400 in \(75% cached\), 20 out  after 1 retry", first
    )
    assert re.fullmatch(r"\d\d:\d\d:\d\d ✗ kimi 429 too fast  2\.0 s  req_test", second)
    assert third == "not JSON\\x1b[31m"
    assert max(map(len, text.splitlines())) <= columns
    assert "\x1b[32m✓\x1b[0m" in screen.text


def test_raw_lines_and_pipes(home: Home, written: list[str]) -> None:
    log_of(home).write_text("\n".join([*written, ""]))
    result = home.process("logs")
    assert result.out.splitlines() == written
    with on_terminal(home, "--raw") as screen:
        screen.read_until("request_id")
        assert json.loads(screen.read_until("too fast").splitlines()[0])["event"] == "call.finished"


def test_follow_survives_a_rotation(home: Home, written: list[str]) -> None:
    path = log_of(home)
    path.write_text(written[0] + "\n")
    with on_terminal(home, "-f") as screen:
        screen.read_until("after 1 retry")
        with path.open("a") as file:
            file.write('{"event": "before.rotation"}\n')
        path.rename(path.with_name("claude-proxy.log.1"))
        path.write_text('{"event": "after.rotation"}\n')
        text = screen.read_until("after.rotation")
    assert text.index("before.rotation") < text.index("after.rotation")


def test_background_daemon_rotates_its_file(home: Home) -> None:
    home.write_models("- {model_id: m, api_base: 'builtin:demo'}\n")
    path = log_of(home)
    rotated = path.with_name("claude-proxy.log.1")
    path.write_bytes(b"x" * (10 << 20))
    with path.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxyd", "run", "--supervised", "detached"],
            env=home.environ,
            stderr=file,
            stdout=file,
        )
    try:
        deadline = time.monotonic() + 30
        while (
            not (rotated.exists() and b"logs.reopened" in path.read_bytes()) and time.monotonic() < deadline
        ):
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert rotated.stat().st_size > 10 << 20, "the line that filled it is there"
    assert "logs.reopened" in home.process("logs").out


def test_journal_entries_have_the_journals_time(home: Home, written: list[str]) -> None:
    (home.path / UNIT).parent.mkdir(parents=True)
    (home.path / UNIT).write_text("[Unit]\n")
    home.program("systemctl", "#!/bin/sh\nexit 0\n")
    event = {name: value for name, value in json.loads(written[0]).items() if name != "timestamp"}
    at = time.time()
    entries = [
        {"MESSAGE": json.dumps(event), "__REALTIME_TIMESTAMP": str(int(at * 1e6))},
        {"MESSAGE": list(b"binary \xff"), "__REALTIME_TIMESTAMP": str(int(at * 1e6))},
    ]
    text = "\n".join(map(json.dumps, entries))
    (home.path / "entries").write_text(text + "\n")
    home.program(
        "journalctl",
        f'#!/bin/sh\ncase "$*" in *--output=json*) cat {home.path}/entries;; *) echo "$*";; esac\n',
    )
    with on_terminal(home, "-n", "7") as screen:
        shown = screen.read_until("binary").splitlines()
    assert shown[0].startswith(f"{time.strftime('%H:%M:%S', time.localtime(at))} ✓ kimi")
    assert "--user -u claude-proxy.service -n 7" in home.process("logs", "-n", "7").out
