"""The listening sockets, and how many connections may hang on them (operations.md E9).

Over the limit a connection is answered 529 and closed at once. One peer address may have so many idle connections,
those that dribble a head included; the oldest of them make room for a new one. The connections of calls in flight are
never touched.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxyd import errors, jsonio
from proxyd.errors import Overloaded

__all__ = ["Listener"]


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
        self._busy: set[asyncio.Protocol] = set()
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
            self._busy.add(protocol)
            try:
                return await handler(request)
            finally:
                self._busy.discard(protocol)

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
        if len(self._server.connections) >= self._max_connections:
            self.refused_total += 1
            return _Refusal()
        handler = self._server()
        loop = asyncio.get_running_loop()
        loop.call_soon(
            loop.call_soon, self._make_room
        )  # after the transport has told the handler that it is there
        return handler

    def _idle(self) -> list[RequestHandler]:
        """Idle connections, the oldest first."""
        server = self._server
        return [] if server is None else [each for each in server.connections if each not in self._busy]

    def _make_room(self) -> None:
        by_peer: dict[str, list[RequestHandler]] = defaultdict(list)
        for handler in self._idle():
            peer = handler.peername
            by_peer[peer[0] if isinstance(peer, tuple) else str(peer)].append(handler)
        for handlers in by_peer.values():
            for handler in handlers[: max(0, len(handlers) - self._max_idle_per_peer)]:
                handler.force_close()


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
