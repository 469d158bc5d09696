"""The ports that tests listen on later are given to one test alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.ports import BLOCK, Ports, blocks_outside, ephemeral_range, free_port

SEVERAL = "from tests.support.ports import free_port\nprint(*(free_port() for _ in range(100)))\ninput()"


def test_processes_get_different_ports_outside_the_range_of_the_system() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SEVERAL],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    found = [free_port() for _ in range(100)]
    for each in processes:
        assert each.stdout is not None
        found += map(int, each.stdout.readline().split())
    for each in processes:
        each.communicate("\n", timeout=120)
    assert len(set(found)) == 300
    first, last = ephemeral_range()
    assert [port for port in found if first <= port <= last] == []


def test_a_port_in_use_is_passed_over() -> None:
    ports = Ports(blocks_outside(*ephemeral_range()))
    try:
        following = ports.take() + 1
        with socket.create_server(("127.0.0.1", following)):
            assert ports.take() > following
    finally:
        ports.close()


def test_a_block_belongs_to_one_process_until_it_ends() -> None:
    ours = Ports(blocks_outside(*ephemeral_range()))
    block = ours.take() // BLOCK * BLOCK
    with pytest.raises(RuntimeError, match="no port is left"):
        Ports([block]).take()
    ours.close()
    later = Ports([block])
    try:
        assert block < later.take() < block + BLOCK
    finally:
        later.close()


@pytest.mark.parametrize(
    ("text", "expected"), [("1024\t5000\n", (1024, 5000)), ("", (32768, 65535)), (None, (32768, 65535))]
)
def test_the_range_of_the_system(tmp_path: Path, text: str | None, expected: tuple[int, int]) -> None:
    file = tmp_path / "ip_local_port_range"
    if text is not None:
        file.write_text(text)
    assert ephemeral_range(file) == expected


def test_blocks_are_outside_the_range_where_there_is_room() -> None:
    assert max(blocks_outside(32768, 65535)) == 32768 - BLOCK
    assert min(blocks_outside(1024, 40000)) > 40000
    assert max(blocks_outside(1024, 65535)) + BLOCK - 1 <= 65535
