"""Client of all upstreams: one pool of connections, a circuit breaker, and one error for each way a call can fail.

Redirects are not followed, since that would send the key and the body to another host. Cookies are not kept. The total
timeout is off, since a long response is not a failure (docs/spec/operations.md#b, #e4, #e5).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from time import monotonic

from proxyd.codecs.wire.http1_body import BodyFault
from proxyd.config.settings import Settings
from proxyd.errors import (
    NO_RETRY,
    BadReply,
    ConfigError,
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
from proxyd.transport.faults import (
    CertificateRejected,
    ConnectFailed,
    ConnectTimeout,
    InvalidAddress,
    NameNotResolved,
    NoResponse,
    NotHTTP,
    ProxyRefused,
    ProxyUnreachable,
    ProxyUnsupported,
    TLSFailed,
    TransportError,
    UnexpectedResponse,
)
from proxyd.transport.pool import ConnectionPool, Response
from proxyd.transport.timers import Timers
from proxyd.transport.tls import TLSContext
from proxyd.urls import address_of, host_of, is_loopback_url, origin_of

__all__ = ["BREAKS", "UpstreamClient", "failure_of"]

#: Exceptions that `failure_of` translates.
BREAKS = (TransportError, asyncio.TimeoutError, OSError, ProxyError, BodyFault)

log = get_logger("upstream")

#: How long to wait for the end of a body after its last event. Servers write the two milliseconds apart.
_DRAIN_S = 0.5
#: What the files of settings hold.
_EXPECTED = {
    "ca_file": "with certificates of authorities",
    "client_cert": "with a certificate and its key, which has no passphrase",
}
#: Errors of a machine that has run out of resources, which say nothing about an upstream.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class UpstreamClient:
    """All connections to upstreams, and the circuits of their origins.

    Raises:
        ConfigError: ``ca_file`` or ``client_cert`` can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._pool = ConnectionPool(
            proxy_context=_tls_context(settings, "ca_file"),  # first, to tell whose fault it is
            context=_tls_context(settings, "ca_file", "client_cert"),
            trust_env=settings.trust_env,
            idle_connection_s=settings.idle_connection_s,
            keeps_warm=settings.keep_warm,
        )
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
        except (TransportError, asyncio.TimeoutError, OSError, ValueError) as exc:
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

    def prepare(self, url: str | None = None) -> None:
        """Open a connection for a call that is being received, unless there is one for it.

        Args:
            url: any URL of the upstream's origin; None for the origin of the last call.
        """
        self._pool.prepare(url)

    async def close(self) -> None:
        """Close all connections."""
        self._is_open = False
        for task in list(self._draining):
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        await self._pool.close()


def _tls_context(settings: Settings, *names: str) -> TLSContext:
    """Return a context with the files of the settings `names`, which are read now.

    Raises:
        ConfigError: one of them could not be read, or holds nothing of the kind.
    """
    files = {name: getattr(settings, name) for name in names}
    context = TLSContext(**files)
    if not any(files.values()):
        return context
    try:
        context.load()
    except OSError as exc:
        name = names[-1]
        raise ConfigError(
            f"{settings.origin_of(name)}: {name}: {files[name]} can't be used: {exc.strerror or exc}; expected a PEM "
            f"file {_EXPECTED[name]}"
        ) from exc
    return context


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
    """Return the `ProxyError` for an exception of the transport. It names the address, never a key or a query."""
    if isinstance(exc, ProxyError):
        return exc
    host, address = host_of(url), address_of(url)
    if (exhaustion := _exhaustion_in(exc)) is not None:
        return Unreachable(
            f"claude-proxy could not open a connection to {host}: {exhaustion.strerror or 'out of resources'} on this "
            "machine; raise the limit of open files (ulimit -n) or lower max_streams"
        )
    if isinstance(exc, (ProxyRefused, ProxyUnreachable, ProxyUnsupported)):
        return _failure_of_proxy(exc, host)
    if isinstance(exc, ConnectTimeout):
        return Unreachable(f"no connection to {address} could be made in time")
    if isinstance(exc, asyncio.TimeoutError):
        return TimedOut(f"{address} did not answer in time")
    if isinstance(exc, CertificateRejected):
        return Unreachable(
            f"{address} could not be verified: {str(exc).rstrip('.')}; if its certificate is of an authority of your "
            "own, set ca_file",
            headers=NO_RETRY,
        )
    if isinstance(exc, TLSFailed):
        return _tls_failure(str(exc), address)
    if isinstance(exc, NameNotResolved):
        is_unknown = exc.cause.errno == socket.EAI_NONAME  # else there may be no network just now
        return Unreachable(
            f"the name of {host} could not be resolved ({address})", headers=NO_RETRY if is_unknown else None
        )
    if isinstance(exc, ConnectFailed):
        return _failure_to_connect(exc, url)
    if isinstance(exc, BodyFault):
        return Truncated(f"{address} closed the stream before finishing")
    if isinstance(exc, UnexpectedResponse):
        return BadReply(f"{address} sent a response before it had the whole request")
    if isinstance(exc, NotHTTP):
        return BadReply(f"{address} sent an answer that is not HTTP: {exc}")
    if isinstance(exc, (NoResponse, OSError)):
        return Unreachable(f"{address} closed the connection without an answer")
    if isinstance(exc, InvalidAddress):
        return Unreachable(f"the address of the upstream is not a URL that can be called: {address}")
    return BadReply(f"the call to {address} failed: {type(exc).__name__}")


def _tls_failure(reason: str, address: str) -> Unreachable:
    """Return the error for a handshake that failed.

    Args:
        reason: the text of the TLS library.
    """
    if "wrong version number" in reason or "record layer failure" in reason:
        return Unreachable(
            f"could not connect to {address}: the server there speaks no TLS: write http:// in place of https:// in "
            "api_base",
            headers=NO_RETRY,
        )
    return Unreachable(f"no TLS connection to {address} could be made: {reason}")


def _failure_of_proxy(exc: ProxyRefused | ProxyUnreachable | ProxyUnsupported, host: str) -> ProxyError:
    if isinstance(exc, ProxyUnsupported):
        return Unreachable(
            f"the proxy of the environment for {host} is of the kind {exc.scheme}, which is not supported: set "
            "HTTPS_PROXY to an http:// proxy, or trust_env to false",
            headers=NO_RETRY,
        )
    if isinstance(exc, ProxyUnreachable):
        return Unreachable(
            f"could not connect to the proxy of the environment ({exc.address}) for {host}: {exc.reason}"
        )
    why = "sent no HTTP response" if exc.status is None else f"answered {exc.status}"
    return Unreachable(
        f"the proxy of the environment ({exc.address}) refused a connection to {host}: it {why}"
    )


def _failure_to_connect(exc: ConnectFailed, url: str) -> ProxyError:
    address = address_of(url)
    if exc.cause.errno == errno.ECONNREFUSED and is_loopback_url(url):
        return NotRunning(
            f"could not connect to {address}: connection refused; no server listens there: start it, or correct "
            "api_base in models.yaml",
            headers=NO_RETRY,
        )
    return Unreachable(f"could not connect to {address}: {exc}")
