"""The parent's side of connections: it accepts each and passes it to a worker.

A conversation stays with its worker, since prompts that were parsed, keys of pools and connections to upstreams are
kept there: the parent looks at the first bytes of a connection, without taking them, for the session id. New
conversations go to the workers in turn, and so do connections without a session id and those over TLS.

So a team's few connections are distributed evenly, which neither several processes that accept from one queue nor the
hash of SO_REUSEPORT would do; and those that wait to be accepted are not lost when a worker ends.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from proxyd.daemon.workers.channel import PLAIN, TLS, send_connection
from proxyd.logs.setup import get_logger

__all__ = ["Acceptor", "Channel"]

log = get_logger("workers")

_SESSION = re.compile(rb"\r\nx-claude-code-session-id:[ \t]*([^\r\n]{1,200})", re.IGNORECASE)
#: Of a request, in which its head is.
_PEEKED_BYTES = 4096
#: How long a connection may take to send its first bytes before it is passed on without them, to a worker that limits
#: how many of those there are.
_FIRST_BYTES_S = 10.0
#: Connections accepted in one step of the event loop.
_BURST = 64
#: Connections that wait while no worker is ready.
_MAX_WAITING = 1024
#: Sessions whose worker is remembered.
_MAX_SESSIONS = 16_384
#: Pause after the system has refused to accept, for want of descriptors.
_PAUSE_S = 0.5


class Channel(Protocol):
    """The way to a worker that is ready."""

    number: int

    @property
    def socket(self) -> socket.socket: ...


class Acceptor:
    """Accepts connections and passes them to workers.

    Args:
        ready: returns the workers that take connections at the moment.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        tls_sockets: Sequence[socket.socket],
        ready: Callable[[], Sequence[Channel]],
    ) -> None:
        self._kinds = dict.fromkeys(sockets, PLAIN) | dict.fromkeys(tls_sockets, TLS)
        self._ready = ready
        self._sessions: OrderedDict[bytes, int] = OrderedDict()
        self._turn = 0
        #: Connections whose first bytes have not come, with what ends the wait.
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._waiting: deque[tuple[bytes, socket.socket, bytes | None]] = deque()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        for each in self._kinds:
            self._loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Close the listening sockets, after what has come in is passed on."""
        for each in self._kinds:
            self._loop.remove_reader(each)
            each.close()
        self._kinds = {}
        for connection in list(self._silent):
            self._end_silence(connection)
        for _, connection, _ in self._waiting:
            connection.close()
        self._waiting.clear()

    def pass_waiting(self) -> None:
        """Pass on what has waited, since a worker is ready."""
        waiting, self._waiting = self._waiting, deque()
        for kind, connection, session in waiting:
            self._pass(kind, connection, session)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as exc:
                log.error("workers.cannot_accept", why=exc.strerror)
                self._loop.remove_reader(listening)
                self._loop.call_later(_PAUSE_S, self._resume, listening)
                return
            connection.setblocking(False)
            kind = self._kinds[listening]
            if kind == TLS:
                self._pass(kind, connection, None)
            elif not self._peek(connection):
                self._loop.add_reader(connection, self._first_bytes, connection)
                self._silent[connection] = self._loop.call_later(
                    _FIRST_BYTES_S, partial(self._end_silence, connection)
                )

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._kinds:
            self._loop.add_reader(listening, self._accept, listening)

    def _first_bytes(self, connection: socket.socket) -> None:
        self._forget(connection)
        if not self._peek(connection):
            self._pass(PLAIN, connection, None)

    def _end_silence(self, connection: socket.socket) -> None:
        self._forget(connection)
        self._pass(PLAIN, connection, None)

    def _forget(self, connection: socket.socket) -> None:
        self._silent.pop(connection).cancel()
        self._loop.remove_reader(connection)

    def _peek(self, connection: socket.socket) -> bool:
        """Look at the first bytes and pass the connection on; false if there are none yet."""
        try:
            begin = connection.recv(_PEEKED_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            begin = b""
        if not begin:
            connection.close()  # the client has left
            return True
        found = _SESSION.search(begin)
        self._pass(PLAIN, connection, None if found is None else found[1].strip())
        return True

    def _pass(self, kind: bytes, connection: socket.socket, session: bytes | None) -> None:
        for channel in self._in_order(session):
            try:
                send_connection(channel.socket, kind, connection)
            except OSError:
                continue  # it has ended, or does not read
            if session is not None:
                self._sessions[session] = channel.number
                self._sessions.move_to_end(session)
                if len(self._sessions) > _MAX_SESSIONS:
                    self._sessions.popitem(last=False)
            connection.close()
            return
        if len(self._waiting) < _MAX_WAITING and self._kinds:
            self._waiting.append((kind, connection, session))
        else:
            connection.close()

    def _in_order(self, session: bytes | None) -> list[Channel]:
        """Return the workers that are ready, in the order in which to try them."""
        ready = list(self._ready())
        number = None if session is None else self._sessions.get(session)
        kept = [each for each in ready if each.number == number]
        if kept:
            return [*kept, *(each for each in ready if each.number != number)]
        self._turn += 1
        at = self._turn % len(ready) if ready else 0
        return [*ready[at:], *ready[:at]]
