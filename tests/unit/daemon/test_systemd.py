"""sd_notify and socket activation, against real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from proxyd.daemon.systemd import Notifier, inherited_sockets
from tests.support.command_line import Home

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "proxyd", "run", "--supervised", "systemd"])
"""


def receive(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


@pytest.mark.parametrize("is_abstract", [False, True])
def test_notifications_have_the_documented_form(tmp_path: Path, is_abstract: bool) -> None:
    if is_abstract and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    address = f"@proxyd-test-{os.getpid()}" if is_abstract else str(tmp_path / "s")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(5)
        notifier = Notifier(environ)
        assert (environ, notifier.watchdog_s) == ({}, 30.0)
        notifier.ready("here")
        assert receive(sock) == ["READY=1", "STATUS=here"]
        notifier.reloading()
        first, second = receive(sock)
        assert first == "RELOADING=1"
        assert second.removeprefix("MONOTONIC_USEC=").isdigit()
        notifier.stopping("draining")
        assert receive(sock) == ["STOPPING=1", "STATUS=draining"]
        notifier.alive()
        assert receive(sock) == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_manager_nothing_is_sent(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert notifier.watchdog_s is None
    notifier.ready("nobody hears it")


def test_sockets_of_another_process_are_ignored() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "y"}
    assert inherited_sockets(environ) == []
    assert environ == {"OTHER": "y"}


@pytest.mark.statement("A1")
@pytest.mark.statement("A2")
@pytest.mark.statement("A4")
@pytest.mark.statement("A8")
def test_a_daemon_on_an_inherited_socket_notifies_the_manager(home: Home) -> None:
    home.write_models(DEMO)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        address = str(home.path / "notify")
        manager.bind(address)
        manager.settimeout(20)
        port = listening.getsockname()[1]
        journal = home.path / "journal"
        with journal.open("wb") as stderr:
            stat = os.fstat(stderr.fileno())
            process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(listening.fileno())],
                env={
                    **home.environ,
                    "LISTEN_FDS": "1",
                    "NOTIFY_SOCKET": address,
                    "WATCHDOG_USEC": "200000",
                    "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}",
                },
                pass_fds=[listening.fileno()],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

        def heard(line: str) -> str:
            """Wait for a datagram with that line; return its status text."""
            while True:
                lines = receive(manager)
                if line in lines:
                    return lines[-1]

        try:
            assert f"http://127.0.0.1:{port}, 1 models" in heard("READY=1")
            heard("WATCHDOG=1")
            heard("WATCHDOG=1")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz?verbose=1", timeout=120) as response:
                assert json.load(response)["pid"] == process.pid
            process.send_signal(signal.SIGHUP)
            assert heard("RELOADING=1").removeprefix("MONOTONIC_USEC=").isdigit()
            heard("READY=1")
            process.send_signal(signal.SIGTERM)
            assert "draining" in heard("STOPPING=1")
            out, _ = process.communicate(timeout=120)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0
    assert out == "", "the lines for a person at a terminal"
    lines = journal.read_text().splitlines()
    assert lines
    assert all(line.startswith("<6>{") and '"timestamp"' not in line for line in lines), lines
