"""The parent with small programs in place of its workers: starts, ends, hangs, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.config.settings import Settings
from proxyd.daemon.systemd import Notifier
from proxyd.daemon.workers import supervisor as module
from proxyd.daemon.workers.supervisor import Supervisor
from tests.support.raw_sockets import no_leaks, until

#: Says what a daemon would say; `{body}` is what it does then.
_PROGRAM = """
import json, os, signal, socket, sys, time
place = json.loads(os.environ["PROXYD_WORKER"])
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(*lines):
    sock.sendto("\\n".join(lines).encode(), os.environ["NOTIFY_SOCKET"])
def note(text):
    with open({notes!r}, "a") as file:
        file.write(f"{{place['number']}} {{text}}\\n")
signal.signal(signal.SIGTERM, lambda *_: (note("TERM"), sys.exit(0)))
signal.signal(signal.SIGHUP, lambda *_: (note("HUP"), say("RELOADING=1"), say("READY=1")))
signal.signal(signal.SIGUSR2, lambda *_: note("USR2"))
{body}
"""
_RUNS = "say('READY=1', 'STATUS=x')\nwhile True: signal.pause()"


class Bench:
    """A parent in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, body: str) -> None:
        self.notes = folder / "notes"
        self.notes.touch()
        program = folder / "worker.py"
        program.write_text(_PROGRAM.format(notes=str(self.notes), body=body))
        patch.setattr(sys, "orig_argv", [sys.executable, "-S", "-E", str(program)])
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "manager"))
        self.manager.setblocking(False)
        self.said: list[str] = []
        environ = {"NOTIFY_SOCKET": str(folder / "manager"), "WATCHDOG_USEC": "600000000"}
        self.parent = Supervisor(Settings(port=0, workers=2), None, Notifier(environ), ())

    async def run(self) -> int:
        self.parent.handle_signals()
        self.parent.start()
        try:
            return await self.parent.run()
        finally:
            self.manager.close()

    def has_noted(self, *lines: str) -> bool:
        return sorted(self.notes.read_text().splitlines()) == sorted(lines)

    def has_said(self, *lines: str) -> bool:
        """Return whether the service manager was told these, among its status and watchdog lines."""
        while True:
            try:
                message = self.manager.recv(4096).decode()
            except (BlockingIOError, OSError):
                break
            self.said += [
                line for line in message.splitlines() if not line.startswith(("STATUS", "MONO", "WATCH"))
            ]
        return self.said == list(lines)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Bench]:
    return lambda body: Bench(tmp_path, monkeypatch, body)


def logged(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


async def test_signals_reach_all_workers_and_the_service_manager_hears_of_them(
    make: Callable[[str], Bench],
) -> None:
    async with no_leaks():
        bench = make(_RUNS)
        running = asyncio.ensure_future(bench.run())
        await until(lambda: bench.has_said("READY=1"), 30)
        folder = bench.parent._folder
        assert folder.stat().st_mode & 0o777 == 0o700
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: bench.has_said("READY=1", "RELOADING=1", "READY=1"), 30)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: bench.has_noted("1 HUP", "2 HUP", "1 USR2", "2 USR2"), 30)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: bench.has_said("READY=1", "RELOADING=1", "READY=1", "STOPPING=1"), 30)
        assert await asyncio.wait_for(running, 30) == 0
        assert bench.has_noted("1 HUP", "2 HUP", "1 USR2", "2 USR2", "1 TERM", "2 TERM")
        assert not folder.exists()


async def test_a_worker_that_ends_is_started_again_after_growing_pauses(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    bench = make(
        "signal.signal(signal.SIGUSR2, lambda *_: (note('END'), os._exit(7)) if place['number'] == 1 else None)\n"
        f"if place['number'] == 1 and 'END' in open({str(tmp_path / 'notes')!r}).read(): sys.exit(7)\n"
        + _RUNS
    )
    with capture_logs() as lines:
        running = asyncio.ensure_future(bench.run())
        await until(lambda: bench.has_said("READY=1"), 30)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: len(logged(lines, "workers.ended")) >= 3, 30)
        bench.parent._on_stop("SIGTERM")
        await asyncio.wait_for(running, 30)
    ended = logged(lines, "workers.ended")
    assert [line["again_in_s"] for line in ended[:3]] == [0.01, 0.02, 0.04]
    assert {(line["number"], line["exit_code"]) for line in ended} == {(1, 7)}


async def test_a_daemon_whose_workers_cannot_start_ends_with_their_exit_code(
    make: Callable[[str], Bench],
) -> None:
    bench = make("if place['number'] == 2: sys.exit(78)\nwhile True: signal.pause()")
    with capture_logs() as lines:
        assert await asyncio.wait_for(bench.run(), 30) == 78
    assert [line["number"] for line in logged(lines, "workers.failed")] == [2]


async def test_a_worker_that_hangs_is_killed_and_started_again(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WATCHDOG_S", 0.5)
    bench = make("say('READY=1')\nwhile True: signal.pause()")
    with capture_logs() as lines:
        running = asyncio.ensure_future(bench.run())
        await until(lambda: len(logged(lines, "workers.ended")) >= 2, 30)
        bench.parent._on_stop("SIGTERM")
        await asyncio.wait_for(running, 30)
    assert {line["exit_code"] for line in logged(lines, "workers.ended")} == {-signal.SIGKILL}
    assert len(logged(lines, "workers.hung")) >= 2
