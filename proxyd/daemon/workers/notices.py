"""What a worker reports to the parent: the messages that a service reports to systemd (sd_notify(3))."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

__all__ = ["Notices"]

_MAX_BYTES = 4096


class Notices:
    """Receives the messages of one worker.

    Args:
        path: of the socket, the worker's ``NOTIFY_SOCKET``.
        on_message: gets each line, such as ``READY=1``.
    """

    def __init__(self, path: Path, on_message: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(str(path))
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv(_MAX_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            for line in message.decode(errors="replace").splitlines():
                self._on_message(line)
