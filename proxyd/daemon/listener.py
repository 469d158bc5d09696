"""The listening sockets, and how many connections may hang on them (docs/spec/operations.md#e9).

Over the limit a connection is answered 529 and closed at once. One peer address may have so many idle connections,
those that dribble a head included; the ones that have idled longest make room for a new one. The connections of calls
in flight are never touched, nor are those of the last half minute: on loopback all clients have one address, and a
burst of them on a busy machine is no attack.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxyd import errors, jsonio
from proxyd.errors import Overloaded

__all__ = ["Listener"]

#: A connection that has idled for less may be about to carry a request. With 5 s, the soak on a machine that was five
#: times overloaded saw requests cut off that had not been read yet.
_GRACE_S = 30.0
#: Longer than one turn of the loop.
_TURN_S = 1.0


class Listener:
    """Accepts connections for a server.

    Args:
        max_connections: all of them; more are refused.
        max_idle_per_peer: connections of one address without a request in progress.
    """

    def __init__(self, max_connections: int, max_idle_per_peer: int) -> None:
        self._max_connections = max_connections
        self._max_idle_per_peer = max_idle_per_peer
        self._server: web.Server | None = None
        self._listening: list[asyncio.Server] = []
        #: When each connection without a request in progress began to idle, in the order of these times. By the id of
        #: its handler, since nobody tells us of its end: the handler itself would be kept alive, with all it holds.
        self._idle_since: dict[int, float] = {}
        self.refused_total = 0

    async def start(self, server: web.Server, sockets: Sequence[socket.socket]) -> None:
        """Serve the connections of `sockets` with `server`."""
        self._server = server
        loop = asyncio.get_running_loop()
        for each in sockets:
            self._listening.append(await loop.create_server(self._accept, sock=each))

    @property
    def middleware(self) -> Any:
        """Goes around all others: while a request is worked on its connection is not idle."""

        @web.middleware
        async def watched(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            protocol = request.protocol
            self._idle_since.pop(id(protocol), None)
            try:
                return await handler(request)
            finally:
                if protocol.transport is not None:
                    self._idle_since[id(protocol)] = monotonic()

        return watched

    @property
    def connections(self) -> int:
        return 0 if self._server is None else len(self._server.connections)

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections stay."""
        for each in self._listening:
            each.close()

    def close_idle(self) -> None:
        """Close the connections without a request in progress."""
        for handler in self._idle():
            handler.force_close()

    def _accept(self) -> asyncio.Protocol:
        assert self._server is not None, "sockets are listened on after start"
        self._make_room()
        if len(self._server.connections) >= self._max_connections:
            self.refused_total += 1
            return _Refusal()
        handler = self._server()
        self._idle_since.pop(id(handler), None)  # of an ended connection, whose place in memory this one has
        self._idle_since[id(handler)] = monotonic()
        return handler

    def _idle(self) -> list[RequestHandler]:
        """Idle connections, those that have idled longest first."""
        # One that was accepted in this turn of the loop is not among the server's yet.
        connections = {} if self._server is None else {id(each): each for each in self._server.connections}
        return [connections[each] for each in self._idle_since if each in connections]

    def _make_room(self) -> None:
        """Close what one peer has idle beyond its limit, a new connection included."""
        if len(self._idle_since) < self._max_idle_per_peer:
            return
        idle, now = self._idle(), monotonic()
        by_peer: dict[str, list[RequestHandler]] = defaultdict(list)
        for handler in idle:
            peer = handler.peername
            by_peer[peer[0] if isinstance(peer, tuple) else str(peer)].append(handler)
        for handlers in by_peer.values():
            for handler in handlers[: max(0, len(handlers) + 1 - self._max_idle_per_peer)]:
                if now - self._idle_since[id(handler)] >= _GRACE_S:
                    handler.force_close()
        # What has ended meanwhile is forgotten; one that was accepted in this turn looks as if it had ended.
        there = set(map(id, idle))
        self._idle_since = {
            each: since for each, since in self._idle_since.items() if each in there or now - since < _TURN_S
        }


class _Refusal(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        exc = Overloaded("claude-proxy has all the connections it may have (max_connections)")
        body = jsonio.dumps(errors.envelope(exc))
        transport.write(
            b"HTTP/1.1 529 Overloaded\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        transport.close()
