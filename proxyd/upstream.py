"""The client side: one pool of connections, and every way a call can fail in our own words.

Redirects are not followed, since that would carry the key and the body to another host; cookies are not kept; the
total timeout is off, since a long answer is not a fault (operations.md B, E4, E5).
"""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from proxyd.circuits import GATEWAY_ERRORS, Circuits, CircuitState, State
from proxyd.errors import BadReply, ProxyError, TimedOut, Truncated, Unreachable
from proxyd.logs import get_logger
from proxyd.providers.base import UpstreamRequest, origin_of
from proxyd.settings import Settings

__all__ = ["READ_BYTES", "Upstreams", "connection_end", "failure_of", "host_of"]

log = get_logger("upstream")

#: Reading from an upstream pauses above twice this; one more read of the loop's may follow.
_BUFFER_BYTES = 32 * 1024
#: What is taken at once, from a socket and from its reader.
READ_BYTES = 64 * 1024

#: How long the end of a body may lag behind its last event. Servers write the two apart, within milliseconds.
_DRAIN_S = 0.5


class _Connector(aiohttp.TCPConnector):
    """Connections that take no more at once than a call reads.

    asyncio's own 256 KiB would be held up to three times for a client that does not read: by the reader, by the write
    that waits, and by the transport (operations.md C6).
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Any:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not protocol.should_close:
                break
            # Bytes came while it idled: a farewell, or an answer to nobody. aiohttp 3.14 looks for them when it takes
            # a connection back, not when it gives one out, and would hand them to this call as its answer.
            connection.close()
        if hasattr(connection.transport, "max_size"):  # asyncio's plain sockets have it
            setattr(connection.transport, "max_size", READ_BYTES)  # noqa: B010 - typing does not know it
        return connection


class Upstreams:
    """All connections to upstreams. Two sessions share them: only direct mode wants bodies as they were encoded."""

    def __init__(self, settings: Settings) -> None:
        context: ssl.SSLContext | bool = True
        if settings.ca_file:
            context = ssl.create_default_context(cafile=str(settings.ca_file))
        # The limit on calls is ours (max_streams); a second one in the pool would only make some of them wait.
        self._connector = _Connector(limit=0, ssl=context, ttl_dns_cache=60)
        self._settings = settings
        self.circuits = Circuits(
            settings.circuit_failures, settings.circuit_open_s, monotonic, on_change=_log_circuit
        )
        self._draining: set[asyncio.Task[None]] = set()
        self._is_open = True
        self._decoding = self._session(auto_decompress=True)
        self._verbatim = self._session(auto_decompress=False)

    def _session(self, *, auto_decompress: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=auto_decompress,
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            trust_env=self._settings.trust_env,
            requote_redirect_url=False,
            read_bufsize=_BUFFER_BYTES,
        )

    async def send(self, request: UpstreamRequest, *, is_verbatim: bool = False) -> aiohttp.ClientResponse:
        """Make one call; returns when the head of the answer is there. The caller closes the response.

        Raises:
            UpstreamError: no answer, or none that is HTTP.
            Overloaded: the circuit of this origin is open.
        """
        origin = origin_of(request.url)
        self.circuits.admit(origin)
        try:
            response = await self._send(request, is_verbatim=is_verbatim)
        except ProxyError:
            self.circuits.failed(origin)
            raise
        except BaseException:
            self.circuits.abandoned(origin)
            raise
        if response.status in GATEWAY_ERRORS:
            self.circuits.failed(origin)
        else:
            self.circuits.succeeded(origin)
        return response

    async def _send(self, request: UpstreamRequest, *, is_verbatim: bool) -> aiohttp.ClientResponse:
        session = self._verbatim if is_verbatim else self._decoding
        clocks = request.clocks
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=None,
            sock_connect=clocks.connect_s or None,
            sock_read=clocks.first_byte_s or None,
        )
        try:
            response = await session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=request.headers,
                timeout=timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as exc:
            raise failure_of(exc, request.url) from exc
        # From here on the relay's own clocks run; aiohttp's would be re-armed with every chunk.
        protocol = response.connection.protocol if response.connection else None
        if protocol is not None:
            protocol.read_timeout = None
        return response

    def let_go(self, response: aiohttp.ClientResponse) -> None:
        """Give a connection back. Where only the end of the body is outstanding, it gets a moment to arrive."""
        if response.closed or response.content.at_eof():
            response.release()
        elif response.content.exception() is not None or not self._is_open:
            response.close()
        else:
            task = asyncio.ensure_future(_drain(response))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def close(self) -> None:
        """Close all connections."""
        self._is_open = False
        for task in list(self._draining):
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        await self._decoding.close()
        await self._verbatim.close()
        await self._connector.close()


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Wait briefly for the end of a body whose content has ended, so that its connection can serve again."""
    try:
        chunk = await asyncio.wait_for(response.content.readany(), _DRAIN_S)
        if not chunk:
            response.release()
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ProxyError):
        pass
    finally:
        response.close()


def connection_end(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """A future that is done when the connection of `response` has ended; None if it has already been given back."""
    protocol = response.connection.protocol if response.connection else None
    closed = None if protocol is None else protocol.closed
    if closed is not None:
        # A reset makes it fail. Whoever waits for it may have left by then, and asyncio would complain of that.
        closed.remove_done_callback(_note_failure)  # of an earlier response on the same connection
        closed.add_done_callback(_note_failure)
    return closed


def _note_failure(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()


def _log_circuit(circuit: CircuitState) -> None:
    level = log.info if circuit.state is State.CLOSED else log.warning
    level(
        "circuit.changed",
        origin=circuit.origin,
        state=circuit.state.value,
        failures=circuit.failures,
        open_for_s=round(circuit.open_for_s),
    )


def host_of(url: str) -> str:
    """Host and port of `url`, which is all of it that a user may be told."""
    return urlsplit(url).netloc.rpartition("@")[2]


def failure_of(exc: BaseException, url: str) -> ProxyError:
    """What an exception of the client library means. Names the host, never the key or the path's query."""
    if isinstance(exc, ProxyError):
        return exc
    host = host_of(url)
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return Unreachable(f"no connection to {host} could be made in time")
    if isinstance(exc, asyncio.TimeoutError):
        return TimedOut(f"{host} did not answer in time")
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return Unreachable(f"{host} could not be verified: {exc.certificate_error}")
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return Unreachable(f"the name of {host} could not be resolved")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return Unreachable(f"could not connect to {host}: {exc.os_error.strerror or 'connection failed'}")
    if isinstance(exc, aiohttp.ClientPayloadError):
        return Truncated(f"{host} closed the stream before finishing")
    if isinstance(exc, aiohttp.ClientResponseError):
        # Its .status is 400 for a reply that is no HTTP: not a number to forward.
        return BadReply(f"{host} sent an answer that is not HTTP")
    if isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, OSError)):
        return Unreachable(f"{host} closed the connection without an answer")
    if isinstance(exc, aiohttp.InvalidURL):
        return Unreachable(f"the address of the upstream is not a URL that can be called: {host}")
    return BadReply(f"the call to {host} failed: {type(exc).__name__}")
