"""Ports of loopback on which nothing listens, for a server that is started later or never.

A port that was found by binding port 0 is in the range from which the system takes the local ports of outgoing
connections and the ports of other servers that bind 0: once closed, it can be taken before the test listens on it.
The ports of `free_port` are outside that range. Each process takes them from blocks of its own.
"""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Iterator
from pathlib import Path

__all__ = ["BLOCK", "Ports", "blocks_outside", "ephemeral_range", "free_port"]

#: Below it are registered services, such as our own 8082. A multiple of BLOCK, as all blocks begin at one.
_FIRST = 16384
_LAST = 65535
BLOCK = 64

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Linux begins at 32768, macOS and Windows at 49152.
_USUAL_RANGE = (32768, 65535)


def ephemeral_range(file: Path = _RANGE_FILE) -> tuple[int, int]:
    """Return the first and the last port that the system gives out by itself."""
    try:
        first, last = file.read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return _USUAL_RANGE


def blocks_outside(first: int, last: int) -> list[int]:
    """Return the first ports of all blocks outside the range; of all blocks where nothing is outside it."""
    starts = range(_FIRST, _LAST + 2 - BLOCK, BLOCK)
    return [start for start in starts if start + BLOCK <= first or start > last] or list(starts)


class Ports:
    """The ports of one process, each given out once.

    The first port of a block stays bound: it shows other processes, those of other test runs included, that the
    block is taken, until this process ends.
    """

    def __init__(self, blocks: list[int]) -> None:
        begin = os.getpid() % len(blocks)  # processes that start together begin at different blocks
        self._blocks = iter([*blocks[begin:], *blocks[:begin]])
        self._held: list[socket.socket] = []
        self._ports = self._each()

    def take(self) -> int:
        """Return the next port.

        Raises:
            RuntimeError: all have been given out.
        """
        port = next(self._ports, None)
        if port is None:
            raise RuntimeError("no port is left for tests: other programs or test runs hold them all")
        return port

    def close(self) -> None:
        """Let other processes take the blocks."""
        for each in self._held:
            each.close()

    def _each(self) -> Iterator[int]:
        for start in self._blocks:
            mark = socket.socket()
            try:
                mark.bind(("127.0.0.1", start))  # without SO_REUSEADDR: one process alone can do that
            except OSError:
                mark.close()
                continue
            self._held.append(mark)
            yield from filter(_is_free, range(start + 1, start + BLOCK))


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


_PORTS: list[Ports] = []


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens, and which no other test is given."""
    if not _PORTS:
        _PORTS.append(Ports(blocks_outside(*ephemeral_range())))
        atexit.register(_PORTS[0].close)
    return _PORTS[0].take()
