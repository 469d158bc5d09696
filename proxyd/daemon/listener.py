"""Accepts connections and limits how many there are (docs/spec/operations.md#e9).

A connection over the limit gets a 529 and is closed. Idle connections, which includes those that send a head byte by
byte, are limited per peer address; a new one evicts those that were idle longest. Connections of calls in flight are
never closed, nor are those that became idle within the last half minute: on loopback all clients share one address, and
a burst of them on a busy machine is not an attack.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.errors import Overloaded
from proxyd.proxy.aiohttp_server import RequestHandler, peer_of

__all__ = ["Listener"]

#: A connection that was idle for less may be about to carry a request. With 5 s, requests that had not been read yet
#: were cut off on a machine under five times its load.
_GRACE_S = 30.0
#: Longer than one iteration of the event loop.
_ITERATION_S = 1.0
#: For a TLS handshake, until which a connection is not counted.
_HANDSHAKE_S = 10.0


class Listener:
    """Accepts connections for a server.

    Args:
        max_connections: limit of all connections; more are refused.
        max_idle_per_peer: limit of one address's connections without a request in progress.
        is_proxy: whether a peer is a trusted proxy, whose connections serve many clients and are not limited so.
    """

    def __init__(
        self, max_connections: int, max_idle_per_peer: int, is_proxy: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._max_connections = max_connections
        self._max_idle_per_peer = max_idle_per_peer
        self._is_proxy = is_proxy
        self._server: web.Server | None = None
        self._listening: list[asyncio.Server] = []
        #: Since when each connection without a request in progress is idle, oldest first. Keyed by the id of its
        #: handler: we are not notified of its end, and a reference would keep the handler alive.
        self._idle_since: dict[int, float] = {}
        self.refused_total = 0

    async def start(self, server: web.Server, sockets: Sequence[socket.socket]) -> None:
        """Serve the connections of `sockets` with `server`."""
        self._server = server
        loop = asyncio.get_running_loop()
        for each in sockets:
            self._listening.append(await loop.create_server(self._accept, sock=each))

    async def serve_tls(
        self, sockets: Sequence[socket.socket], context: ssl.SSLContext
    ) -> list[asyncio.Server]:
        """Serve the connections of `sockets` over TLS, on duplicates of them; the caller closes what is returned."""
        loop = asyncio.get_running_loop()
        return [
            await loop.create_server(
                self._accept, sock=each.dup(), ssl=context, ssl_handshake_timeout=_HANDSHAKE_S
            )
            for each in sockets
        ]

    async def serve(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        """Serve a connection that another process has accepted, over TLS where there is a context."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._accept,
                connection,
                ssl=context,
                ssl_handshake_timeout=None if context is None else _HANDSHAKE_S,
            )
        except OSError:  # it was lost, or is not TLS
            connection.close()

    @property
    def middleware(self) -> Any:
        """The outermost middleware: a connection is not idle while its request is handled."""

        @web.middleware
        async def track_idle(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            protocol = request.protocol
            self._idle_since.pop(id(protocol), None)
            try:
                return await handler(request)
            finally:
                if protocol.transport is not None:
                    self._idle_since[id(protocol)] = monotonic()

        return track_idle

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
        assert self._server is not None, "sockets accept after start"
        self._make_room()
        if len(self._server.connections) >= self._max_connections:
            self.refused_total += 1
            return _RefusedConnection()
        handler = self._server()
        self._idle_since.pop(id(handler), None)  # of an ended connection whose id was reused
        self._idle_since[id(handler)] = monotonic()
        return handler

    def _idle(self) -> list[RequestHandler]:
        """Return the idle connections, those that were idle longest first."""
        # A connection accepted in this iteration of the loop is not among the server's yet.
        connections = {} if self._server is None else {id(each): each for each in self._server.connections}
        return [connections[each] for each in self._idle_since if each in connections]

    def _make_room(self) -> None:
        """Close the idle connections of each peer beyond its limit, counting one new connection."""
        if len(self._idle_since) < self._max_idle_per_peer:
            return
        idle, now = self._idle(), monotonic()
        by_peer: dict[str, list[RequestHandler]] = defaultdict(list)
        for handler in idle:
            by_peer[peer_of(handler)].append(handler)
        for peer, handlers in by_peer.items():
            if self._is_proxy(peer):
                continue
            for handler in handlers[: max(0, len(handlers) + 1 - self._max_idle_per_peer)]:
                if now - self._idle_since[id(handler)] >= _GRACE_S:
                    handler.force_close()
        # Forget ended connections; one accepted in this iteration looks ended as well.
        known = set(map(id, idle))
        self._idle_since = {
            each: since
            for each, since in self._idle_since.items()
            if each in known or now - since < _ITERATION_S
        }


class _RefusedConnection(asyncio.Protocol):
    """Responds to a connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        exc = Overloaded("claude-proxy has reached its limit of connections (max_connections)")
        body = jsonio.dumps(errors.envelope(exc))
        transport.write(
            b"HTTP/1.1 529 Overloaded\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        transport.close()
