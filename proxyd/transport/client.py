"""Client of all upstreams: one pool of connections, a circuit breaker, and one error for each way a call can fail.

Redirects are not followed, since that would send the key and the body to another host. Cookies are not kept. The total
timeout is off, since a long response is not a failure (docs/spec/operations.md#b, #e4, #e5).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from time import monotonic

import aiohttp

from proxyd.codecs.wire.http1_body import BodyFault
from proxyd.config.settings import Settings
from proxyd.errors import (
    NO_RETRY,
    BadReply,
    NotRunning,
    ProxyError,
    TimedOut,
    Truncated,
    Unreachable,
    is_permanent,
)
from proxyd.logs.setup import get_logger
from proxyd.providers.base import UpstreamRequest
from proxyd.transport.circuit_breaker import GATEWAY_ERRORS, Circuits, CircuitState, State
from proxyd.transport.connection import UnexpectedResponse
from proxyd.transport.pool import ConnectionPool, NotHTTP, Response
from proxyd.transport.timers import Timers
from proxyd.urls import address_of, host_of, is_loopback_url, origin_of

__all__ = ["BREAKS", "UpstreamClient", "failure_of"]

#: Exceptions that `failure_of` translates.
BREAKS = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ProxyError, BodyFault)

log = get_logger("upstream")

#: How long to wait for the end of a body after its last event. Servers write the two milliseconds apart.
_DRAIN_S = 0.5
#: Errors of a machine that has run out of resources, which say nothing about an upstream.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class UpstreamClient:
    """All connections to upstreams, and the circuits of their origins."""

    def __init__(self, settings: Settings) -> None:
        self._pool = ConnectionPool(ca_file=str(settings.ca_file or ""), trust_env=settings.trust_env)
        self.circuits = Circuits(
            settings.circuit_failures, settings.circuit_open_s, monotonic, on_change=_log_circuit
        )
        self._draining: set[asyncio.Task[None]] = set()
        self._is_open = True

    async def send(self, request: UpstreamRequest, timers: Timers, *, is_verbatim: bool = False) -> Response:
        """Send a request; returns when the head of the response has arrived. The caller closes the response.

        Args:
            is_verbatim: do not decompress the body, which direct mode passes through as it is.

        Raises:
            UpstreamError: there was no response, or none that is HTTP.
            Overloaded: the circuit of this origin is open.
        """
        origin = origin_of(request.url)
        self.circuits.admit(origin)
        try:
            response = await self._pool.call(
                request.method,
                request.url,
                request.headers,
                request.body,
                timers=timers,
                connect_s=request.timeouts.connect_s,
                first_byte_s=request.timeouts.first_byte_s,
                auto_decompress=not is_verbatim,
            )
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as exc:
            failure = failure_of(exc, request.url)
            if _exhaustion_in(exc) is None:
                self.circuits.failed(origin, failure.message, is_permanent=is_permanent(failure))
            else:
                self.circuits.abandoned(origin)
            raise failure from exc
        except BaseException:
            self.circuits.abandoned(origin)
            raise
        if response.status in GATEWAY_ERRORS:
            self.circuits.failed(origin, f"{address_of(request.url)} answered {response.status}")
        else:
            self.circuits.succeeded(origin)
        return response

    def release(self, response: Response) -> None:
        """Release a response; wait briefly where only the end of its body is missing."""
        if response.at_end:
            response.release()
        elif response.is_over or not self._is_open:
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
        await self._pool.close()


async def _drain(response: Response) -> None:
    """Wait briefly for the end of a body whose content has ended, so that its connection can be reused."""
    progress = asyncio.Event()
    response.on_progress = progress.set
    try:
        await asyncio.wait_for(progress.wait(), _DRAIN_S)
        if response.at_end:
            response.release()
    except asyncio.TimeoutError:
        pass
    finally:
        response.close()


def _log_circuit(circuit: CircuitState) -> None:
    level = log.info if circuit.state is State.CLOSED else log.warning
    level(
        "circuit.changed",
        origin=circuit.origin,
        state=circuit.state.value,
        failures=circuit.failures,
        open_for_s=round(circuit.open_for_s),
        cause=circuit.cause,
    )


def _exhaustion_in(exc: BaseException) -> OSError | None:
    """Return the cause of `exc` that says that this machine ran out of descriptors or memory, or None."""
    seen: BaseException | None = exc
    for _ in range(10):  # a chain of causes can be a cycle
        if seen is None:
            return None
        if isinstance(seen, OSError) and seen.errno in _EXHAUSTED:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def failure_of(exc: BaseException, url: str) -> ProxyError:
    """Return the `ProxyError` for an exception of the client library. It names the address, never a key or a query."""
    if isinstance(exc, ProxyError):
        return exc
    host, address = host_of(url), address_of(url)
    if (exhaustion := _exhaustion_in(exc)) is not None:
        return Unreachable(
            f"claude-proxy could not open a connection to {host}: {exhaustion.strerror or 'out of resources'} on this "
            "machine; raise the limit of open files (ulimit -n) or lower max_streams"
        )
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return Unreachable(f"the proxy of the environment refused a connection to {host} ({exc.status})")
    if isinstance(exc, aiohttp.ClientProxyConnectionError):
        return Unreachable(f"could not connect to the proxy of the environment for {host}")
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return Unreachable(f"no connection to {address} could be made in time")
    if isinstance(exc, asyncio.TimeoutError):
        return TimedOut(f"{address} did not answer in time")
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return Unreachable(f"{address} could not be verified: {exc.certificate_error}", headers=NO_RETRY)
    if isinstance(exc, aiohttp.ClientConnectorSSLError):
        return _tls_failure(str(exc.os_error.args[-1]), address)
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        is_unknown = exc.os_error.errno == socket.EAI_NONAME  # else there may be no network just now
        return Unreachable(
            f"the name of {host} could not be resolved ({address})", headers=NO_RETRY if is_unknown else None
        )
    if isinstance(exc, aiohttp.ClientConnectorError):
        reason = exc.os_error.strerror or "connection failed"
        if exc.os_error.errno == errno.ECONNREFUSED:
            reason = "connection refused"  # several attempts have a text of asyncio's
            if is_loopback_url(url):
                return NotRunning(
                    f"could not connect to {address}: {reason}; no server listens there: start it, or correct "
                    "api_base in models.yaml",
                    headers=NO_RETRY,
                )
        return Unreachable(f"could not connect to {address}: {reason}")
    if isinstance(exc, BodyFault):
        return Truncated(f"{address} closed the stream before finishing")
    if isinstance(exc, UnexpectedResponse):
        return BadReply(f"{address} sent a response before it had the whole request")
    if isinstance(exc, NotHTTP):
        return BadReply(f"{address} sent an answer that is not HTTP")
    if isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, OSError)):
        return Unreachable(f"{address} closed the connection without an answer")
    if isinstance(exc, aiohttp.InvalidURL):
        return Unreachable(f"the address of the upstream is not a URL that can be called: {address}")
    return BadReply(f"the call to {address} failed: {type(exc).__name__}")


def _tls_failure(reason: str, address: str) -> Unreachable:
    """Return the error for a handshake that failed.

    Args:
        reason: the text of the TLS library.
    """
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return Unreachable(
            f"could not connect to {address}: the server there speaks no TLS: write http:// in place of https:// in "
            "api_base",
            headers=NO_RETRY,
        )
    return Unreachable(f"could not connect to {address}: {reason}")
