"""Connections on their way from the parent to a worker: one byte with one descriptor each."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator

from proxyd.daemon.listener import Listener

__all__ = ["PLAIN", "TLS", "Receiver", "send_connection"]

PLAIN, TLS = b"p", b"t"


def send_connection(channel: socket.socket, kind: bytes, connection: socket.socket) -> None:
    """Pass a connection on; the caller closes its own end.

    Raises:
        OSError: the worker does not take it, being busy or gone.
    """
    socket.send_fds(channel, [kind], [connection.fileno()])


class Receiver:
    """Serves the connections that the parent passes.

    Args:
        descriptor: of the channel.
        tls: returns what clients of the TLS address are served with.
        on_parent_gone: called when the parent has ended.
    """

    def __init__(
        self,
        descriptor: int,
        listener: Listener,
        tls: Callable[[], ssl.SSLContext | None],
        on_parent_gone: Callable[[], None],
    ) -> None:
        self._channel = socket.socket(fileno=descriptor)
        self._channel.setblocking(False)
        self._listener, self._tls, self._on_parent_gone = listener, tls, on_parent_gone
        self._handshakes: set[asyncio.Task[None]] = set()
        self._is_open = False

    def start(self) -> None:
        self._is_open = True
        asyncio.get_running_loop().add_reader(self._channel, self._read)

    def close(self) -> None:
        """Take what the parent has passed before, and nothing more."""
        if not self._is_open:
            return
        for kind, connection in self._received():
            self._serve(kind, connection)
        self._stop()
        self._channel.close()

    def _stop(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._channel)

    def _read(self) -> None:
        for kind, connection in self._received():
            self._serve(kind, connection)

    def _received(self) -> Iterator[tuple[bytes, socket.socket]]:
        while self._is_open:
            try:
                kind, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                kind, descriptors = b"", []
            if not kind:
                self._stop()
                self._on_parent_gone()
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                yield kind, connection

    def _serve(self, kind: bytes, connection: socket.socket) -> None:
        context = self._tls() if kind == TLS else None
        if kind == TLS and context is None:
            connection.close()
            return
        task = asyncio.ensure_future(self._listener.serve(connection, context))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)
