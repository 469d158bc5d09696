"""The listening sockets on which clients speak TLS, with certificates that may change."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

from proxyd.config.tls import Tls, server_context
from proxyd.daemon.listener import Listener
from proxyd.daemon.sockets import bind_sockets
from proxyd.errors import ConfigError
from proxyd.logs.setup import get_logger

__all__ = ["TlsListener"]

log = get_logger("server")


class TlsListener:
    """Serves TLS on the sockets of one address.

    Args:
        listener: accepts the connections; it has been started.
        elsewhere: the addresses on which another process listens, and passes the connections to us.

    Attributes:
        addresses: where it listens.
        context: with the certificate that is in force.

    Raises:
        AddressInUse, ConfigError: as `bind_sockets`, or the files are not as they should be.
    """

    def __init__(
        self, tls: Tls, listener: Listener, elsewhere: Sequence[tuple[str, int]] | None = None
    ) -> None:
        self._tls, self._listener = tls, listener
        self._before = self._contents()
        try:
            self.context = server_context(tls)
        except ValueError as exc:
            raise ConfigError(f"tls: {exc}") from None
        self._sockets: Sequence[socket.socket] = () if elsewhere else bind_sockets(tls.host, tls.port)
        self.addresses = list(elsewhere or (each.getsockname()[:2] for each in self._sockets))
        self._servers: list[asyncio.Server] = []

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose changes `renew` takes over."""
        return self._tls.files

    async def start(self) -> None:
        """Begin to serve."""
        self._servers = await self._listener.serve_tls(self._sockets, self.context)

    async def renew(self) -> None:
        """Take over files that have changed; connections that are open keep what they have."""
        contents = await asyncio.to_thread(self._contents)
        if contents == self._before:
            return
        self._before = contents
        try:
            self.context = await asyncio.to_thread(server_context, self._tls)
        except ValueError as exc:
            log.error("tls.rejected", why=f"tls: {exc}", in_force="the certificate before")
            return
        # Two servers accept from one queue for a moment, so that no connection is refused.
        before, self._servers = self._servers, await self._listener.serve_tls(self._sockets, self.context)
        for each in before:
            each.close()
        log.info("tls.renewed", cert=str(self._tls.cert))

    def close(self) -> None:
        """Close the sockets; connections stay."""
        for server in self._servers:
            server.close()
        for each in self._sockets:
            each.close()

    def _contents(self) -> list[bytes | None]:
        return [_content(path) for path in self._tls.files]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
