"""A distance in between: ``python -m bench.far_relay PORT UPSTREAM_PORT DELAY_S``.

Each direction takes DELAY_S. A new connection takes one round trip more before its first bytes get through, as TCP's
handshake does: the system completes that one at once on loopback.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

__all__ = ["main"]


class _Side(asyncio.Protocol):
    """One end of a relayed connection: what arrives here leaves at the other end `delay_s` later.

    Args:
        open_at: nothing that arrives earlier counts as arrived before.
    """

    def __init__(self, delay_s: float, open_at: float = 0.0) -> None:
        self._delay_s = delay_s
        self._open_at = open_at
        self._last = 0.0
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._later(lambda other: other.write(data))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._later(lambda other: other.close())

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def _later(self, action: Callable[[_Side], None]) -> None:
        loop = asyncio.get_running_loop()
        # Timers of the same moment run in any order.
        self._last = max(self._last + 1e-6, max(loop.time(), self._open_at) + self._delay_s)
        loop.call_at(self._last, self._act, action)

    def _act(self, action: Callable[[_Side], None]) -> None:
        if self.other is not None:
            action(self.other)


class _Client(_Side):
    """The client's end; makes the other one."""

    def __init__(self, upstream_port: int, delay_s: float) -> None:
        super().__init__(delay_s, asyncio.get_running_loop().time() + 2 * delay_s)
        self._upstream_port = upstream_port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        other = _Side(self._delay_s)
        other.other = self
        await loop.create_connection(lambda: other, "127.0.0.1", self._upstream_port)
        self.other = other


async def _serve(port: int, upstream_port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(upstream_port, delay_s), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Relay until killed."""
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))


if __name__ == "__main__":
    main()
