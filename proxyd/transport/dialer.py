"""Opens connections: name, TCP, the proxy of the environment, TLS.

Names are not left to ``loop.create_connection``, which looks them up in the loop's own threads
(`proxyd.transport.lookups`); so the race between a host's addresses is here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from proxyd.codecs.wire.http1_head import HeadFault, HeadReader
from proxyd.transport.connection import UpstreamConnection
from proxyd.transport.environment import Proxy
from proxyd.transport.faults import (
    CertificateRejected,
    ConnectFailed,
    NameNotResolved,
    ProxyRefused,
    ProxyUnreachable,
    ProxyUnsupported,
    TLSFailed,
)
from proxyd.transport.names import Address, Names
from proxyd.transport.tls import TLSContext

__all__ = ["Dialer", "connect_to_any"]

_P = TypeVar("_P", bound=asyncio.BaseProtocol)

#: How long one address is tried before the next one is, too (RFC 8305, 5).
_ATTEMPT_DELAY_S = 0.25


class Dialer:
    """Opens connections to one origin.

    Args:
        context: for an https origin; None for plain HTTP.
        proxy: the way there, or None.
        proxy_context: for a proxy that is reached by TLS.
    """

    def __init__(
        self,
        names: Names,
        host: str,
        port: int,
        *,
        context: TLSContext | None,
        proxy: Proxy | None = None,
        proxy_context: TLSContext | None = None,
    ) -> None:
        self._names = names
        self._host, self._port = host, port
        self._context = context
        self._proxy = proxy
        self._proxy_context = proxy_context if proxy is not None and proxy.is_tls else None

    async def open(self, protocol: Callable[[], UpstreamConnection]) -> UpstreamConnection:
        """Return a new connection.

        Raises:
            NameNotResolved, ConnectFailed, TLSFailed: the upstream could not be reached.
            ProxyUnreachable, ProxyRefused, ProxyUnsupported: the proxy of the environment makes no connection.
            OSError: this machine has run out of descriptors.
        """
        proxy = self._proxy
        context = None if self._context is None else await self._context.get()
        if proxy is None:
            sock = await self._connect(self._host, self._port)
            return await _speak(protocol, sock, context, self._host)
        proxy_context = None if self._proxy_context is None else await self._proxy_context.get()
        try:
            sock = await self._connect(proxy.host, proxy.port)
            if context is None:
                return await _speak(protocol, sock, proxy_context, proxy.host)
            tunnel = await _speak(_Tunnel, sock, proxy_context, proxy.host)
        except (NameNotResolved, ConnectFailed, TLSFailed) as exc:
            raise ProxyUnreachable(proxy.address, str(exc)) from exc
        return await self._through(tunnel, proxy, context, protocol())

    async def _connect(self, host: str, port: int) -> socket.socket:
        addresses = await self._names.addresses_of(host, port)
        try:
            return await connect_to_any(addresses)
        except ConnectFailed:
            self._names.forget(host, port)
            raise

    async def _through(
        self, tunnel: _Tunnel, proxy: Proxy, context: ssl.SSLContext, connection: UpstreamConnection
    ) -> UpstreamConnection:
        """Have the proxy connect to the upstream, and speak TLS with that."""
        try:
            if proxy.is_tls and sys.version_info < (3, 11):
                raise ProxyUnsupported("https (before Python 3.11)")
            status = await tunnel.ask(f"{self._bracketed}:{self._port}", proxy.auth)
            if status is None or not 200 <= status < 300:
                raise ProxyRefused(proxy.address, status)
            with _tls_faults():
                transport = await asyncio.get_running_loop().start_tls(
                    tunnel.transport, connection, context, server_hostname=self._host
                )
        except BaseException:
            tunnel.transport.abort()
            raise
        assert transport is not None, "it was connected"
        connection.connection_made(transport)
        return connection

    @property
    def _bracketed(self) -> str:
        return f"[{self._host}]" if ":" in self._host else self._host


class _Tunnel(asyncio.Protocol):
    """Protocol of a connection to a proxy until it has made a tunnel."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._reader = HeadReader()
        self._status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self, target: str, auth: str) -> int | None:
        """Ask for a tunnel; returns the status of the response, or None for one that is not HTTP, or for none."""
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if auth:
            lines.append(f"Proxy-Authorization: {auth}")
        self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        return await self._status

    def data_received(self, data: bytes) -> None:
        try:
            found = self._reader.feed(data)
            while found is not None and found[0].is_interim:
                self._reader = HeadReader()
                found = self._reader.feed(found[1])
        except HeadFault:
            self._end(None)
        else:
            if found is not None:
                # The upstream speaks TLS, where the client speaks first: more bytes are not its own.
                is_made = found[0].status < 300
                self._end(None if is_made and found[1] else found[0].status)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end(None)

    def _end(self, status: int | None) -> None:
        if not self._status.done():
            self._status.set_result(status)


async def _speak(
    protocol: Callable[[], _P], sock: socket.socket, context: ssl.SSLContext | None, host: str
) -> _P:
    """Return a protocol that speaks on `sock`, with TLS where there is a context.

    Raises:
        TLSFailed: the handshake failed.
    """
    with _tls_faults():
        _, made = await asyncio.get_running_loop().create_connection(
            protocol, sock=sock, ssl=context, server_hostname=None if context is None else host
        )
    return made


@contextmanager
def _tls_faults() -> Iterator[None]:
    """Translate what a handshake raises."""
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise CertificateRejected(exc.verify_message or "the certificate is not valid") from exc
    except ssl.SSLError as exc:
        raise TLSFailed((exc.reason or "unknown error").lower().replace("_", " ")) from exc
    except ConnectionError as exc:
        raise TLSFailed("the connection was closed during the handshake") from exc


async def connect_to_any(addresses: Sequence[Address]) -> socket.socket:
    """Return a socket that is connected to the first of the addresses that takes it (RFC 8305, 5).

    Raises:
        ConnectFailed: none has; with the cause of the first.
    """
    waiting = deque(addresses)
    pending: set[asyncio.Task[socket.socket]] = set()
    first: OSError | None = None
    try:
        while waiting or pending:
            if waiting:
                task = asyncio.ensure_future(_connect(waiting.popleft()))
                task.add_done_callback(lambda task: task.cancelled() or task.exception())
                pending.add(task)
            done, pending = await asyncio.wait(
                pending,
                timeout=_ATTEMPT_DELAY_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                failure = task.exception()
                if failure is None:
                    pending |= done - {task}  # another that was as fast is closed
                    return task.result()
                if not isinstance(failure, OSError):
                    raise failure
                first = first or failure
    finally:
        for task in pending:
            task.add_done_callback(_close_socket)
            task.cancel()
    assert first is not None, "there is an address"
    raise ConnectFailed(first) from first


def _close_socket(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
