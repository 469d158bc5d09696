"""Processes that are waited for and signalled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from proxyd.cli.daemon_client import Peer, State
from proxyd.cli.detached import is_alive, terminate, wait_for_end
from proxyd.cli.exit_codes import CommandFailed


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its standard input does."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def test_process_that_runs_and_ends(process: subprocess.Popen[bytes]) -> None:
    assert is_alive(process.pid)
    assert not wait_for_end(process.pid, 0.05)
    process.kill()
    assert wait_for_end(process.pid, 30), "a zombie counts as ended"
    process.wait()
    assert not is_alive(process.pid)


def test_process_of_another_program_is_not_signalled(process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(CommandFailed, match="is no claude-proxy here"):
        terminate(Peer(State.RUNNING, {"pid": process.pid}))
    assert is_alive(process.pid)


def test_claude_proxy_is_signalled() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", "proxyd"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # the process list may show the old program until then
        terminate(Peer(State.RUNNING, {"pid": child.pid}))
        assert child.wait(30) != 0
