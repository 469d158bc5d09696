"""HTTP calls to upstreams over pooled connections.

A request is one write. What a client library does for browsers and crawlers (cookies, redirects, a task for each body)
is left out. Bodies are read by `proxyd.codecs.wire.http1_body`, which notifies its reader of each arrival
(`Response.on_progress`) without a task between socket and stream.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from proxyd.transport.connection import ReadBuffer, UpstreamConnection
from proxyd.transport.dialer import Dialer
from proxyd.transport.environment import Proxy, basic_auth, credentials_of, proxy_for
from proxyd.transport.faults import (
    ConnectTimeout,
    InvalidAddress,
    NoResponse,
    TransportError,
    UnexpectedResponse,
)
from proxyd.transport.lookups import Lookups
from proxyd.transport.names import Names
from proxyd.transport.origin import Origin
from proxyd.transport.response import Response
from proxyd.transport.timers import Timers
from proxyd.transport.tls import TLSContext

__all__ = ["ConnectionPool", "Response"]

#: URLs whose `_Endpoint` is cached; a models.yaml has fewer.
_MAX_ENDPOINTS = 256
#: Headers that hold credentials of a call.
_CREDENTIALS = ("authorization", "x-api-key", "api-key")
#: Timeout of what the environment says of an upstream before its call has come.
_PREPARE_S = 20.0
_PORTS = {"http": 80, "https": 443}

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
#: What no request target may hold.
_NO_TARGET = re.compile(r"[\x00-\x20\x7f-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """What is the same for all calls to one URL.

    Attributes:
        target: of the request line.
        own_headers: ``Host``, and credentials of the environment or of the URL, by their names.
    """

    origin: Origin
    target: str
    own_headers: tuple[tuple[str, str], ...]


class ConnectionPool:
    """Sends requests over pooled connections.

    Args:
        context: of TLS to upstreams; None for that of the system.
        proxy_context: of TLS to the environment's proxies.
        trust_env: use the environment's proxies and netrc.
        idle_connection_s: for how long a connection may be idle at most.
        keeps_warm: keep connections and addresses ready while calls are made.
    """

    def __init__(
        self,
        *,
        context: TLSContext | None = None,
        proxy_context: TLSContext | None = None,
        trust_env: bool = False,
        idle_connection_s: float = 300.0,
        keeps_warm: bool = False,
    ) -> None:
        self._context = context or TLSContext()
        self._proxy_context = proxy_context or TLSContext()
        self._trust_env = trust_env
        self._idle_connection_s = idle_connection_s
        self._keeps_warm = keeps_warm
        self._lookups = Lookups()
        self._names = Names(self._lookups, is_kept_fresh=keeps_warm)
        self._buffer = ReadBuffer()
        self._endpoints: OrderedDict[str, _Endpoint] = OrderedDict()
        self._origins: dict[tuple[str, str, int, Proxy | None], Origin] = {}
        self._last_origin: Origin | None = None
        self._preparing: set[asyncio.Task[None]] = set()

    async def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timers: Timers,
        connect_s: float = 0,
        first_byte_s: float = 0,
        auto_decompress: bool = True,
    ) -> Response:
        """Send one request; returns when the head of its response has arrived.

        A request goes once more, on a new connection, in two cases only: the connection had been idle and ended
        before a byte of a response came, or what came can't be the response to this request.

        Args:
            headers: all but ``Host`` and ``Content-Length``.
            timers: the caller's; used for `first_byte_s`.
            connect_s, first_byte_s: timeouts on the connection, from the look-up of its name to the end of its TLS
                handshake, and on the head of the response; 0 for none.
            auto_decompress: decompress the body.

        Raises:
            TransportError: there was no response, or none that is HTTP.
            asyncio.TimeoutError: no head came within `first_byte_s`.
            ValueError: a header's value would begin another header.
            OSError: this machine has run out of descriptors.
        """
        endpoint = self._endpoints.get(url) or await self._new_endpoint(url, connect_s)
        head = _head(method, endpoint, headers, len(body))
        owner = hash(tuple(map(headers.get, _CREDENTIALS)))  # keys are not kept for this
        self._last_origin = origin = endpoint.origin
        connection = origin.take(owner)
        was_idle = connection is not None
        is_last = False
        while True:
            if connection is None:
                connection = await origin.open(connect_s)
            try:
                _check(connection, is_new=not was_idle)
                waiting = connection.send_request(
                    head, body, decodes=auto_decompress, has_body=method != "HEAD"
                )
                timers.set(connection.fail_with_timeout, first_byte_s)
                try:
                    response_head = await waiting
                finally:
                    timers.clear(connection.fail_with_timeout)
                if connection.has_extra_response:
                    raise UnexpectedResponse("the upstream sent more than one response")
            except (NoResponse, UnexpectedResponse) as exc:
                connection.close()
                origin.give_back(connection, owner)
                is_stale = was_idle and isinstance(exc, NoResponse) and exc.is_untouched
                if is_last or not (is_stale or isinstance(exc, UnexpectedResponse)):
                    raise
                connection, was_idle, is_last = None, False, True
            except BaseException:
                connection.close()
                origin.give_back(connection, owner)
                raise
            else:
                return Response(connection, response_head, origin, owner)

    def prepare(self, url: str | None = None) -> None:
        """Have a connection opened for a call that is being received, unless there is one for it.

        Args:
            url: any URL of its origin; None for the origin of the last call.
        """
        if not self._keeps_warm:
            return
        endpoint = None if url is None else self._endpoints.get(url)
        origin = self._last_origin if endpoint is None else endpoint.origin
        if url is None or endpoint is not None:
            if origin is not None:
                origin.prepare()
        elif len(self._preparing) < _MAX_ENDPOINTS:
            task = asyncio.ensure_future(self._prepare(url))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def _prepare(self, url: str) -> None:
        try:
            endpoint = await self._new_endpoint(url, _PREPARE_S)
        except (TransportError, ValueError, OSError):
            return  # the call will say what is wrong
        endpoint.origin.prepare()

    async def close(self) -> None:
        """Close all connections."""
        for task in self._preparing:
            task.cancel()
        await asyncio.gather(*self._preparing, return_exceptions=True)
        for origin in self._origins.values():
            await origin.close()
        await self._names.close()

    async def _new_endpoint(self, url: str, connect_s: float) -> _Endpoint:
        """Return the endpoint of `url`.

        Raises:
            InvalidAddress: it is no URL that can be called.
            ConnectTimeout: the environment's proxy was not known in time.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as exc:
            raise InvalidAddress(str(exc)) from exc
        host = parts.hostname
        if not port or not host or not host.isascii() or _NO_TARGET.search(_target_of(parts)):
            raise InvalidAddress(url)
        proxy, auth = None, ""
        if self._trust_env:
            try:
                proxy, auth = await asyncio.wait_for(
                    self._lookups.run(lambda: (proxy_for(parts.scheme, host), credentials_of(host))),
                    connect_s or None,
                )
            except asyncio.TimeoutError as exc:
                raise ConnectTimeout from exc
        netloc = f"[{host}]" if ":" in host else host
        if port != _PORTS[parts.scheme]:
            netloc = f"{netloc}:{port}"
        own = [("Host", netloc)]
        if parts.username is not None:
            auth = basic_auth(unquote(parts.username), unquote(parts.password or ""))
        if auth:
            own.append(("Authorization", auth))
        target = _target_of(parts)
        if proxy is not None and parts.scheme == "http":
            target = f"http://{netloc}{target}"
            if proxy.auth:
                own.append(("Proxy-Authorization", proxy.auth))
        origin = self._origin_of(parts.scheme, host, port, proxy)
        endpoint = self._endpoints[url] = _Endpoint(origin, target, tuple(own))
        if len(self._endpoints) > _MAX_ENDPOINTS:
            self._endpoints.popitem(last=False)
        return endpoint

    def _origin_of(self, scheme: str, host: str, port: int, proxy: Proxy | None) -> Origin:
        key = (scheme, host, port, proxy)
        origin = self._origins.get(key)
        if origin is None:
            dialer = Dialer(
                self._names,
                host,
                port,
                context=self._context if scheme == "https" else None,
                proxy=proxy,
                proxy_context=self._proxy_context,
            )
            origin = self._origins[key] = Origin(
                f"{scheme}://{host}:{port}",
                dialer,
                self._buffer,
                limit_s=self._idle_connection_s,
                keeps_warm=self._keeps_warm,
            )
        return origin


def _check(connection: UpstreamConnection, *, is_new: bool) -> None:
    """Check a connection right before a request is sent on it.

    Raises:
        UnexpectedResponse: it has received bytes that belong to no request.
        NoResponse: it has ended.
    """
    if not connection.keeps_alive or (is_new and connection.is_connected and connection.has_spoken_first()):
        raise UnexpectedResponse("the upstream sent bytes before the request")
    if not connection.is_connected:
        raise NoResponse(is_untouched=True)


def _target_of(parts: SplitResult) -> str:
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def _head(method: str, endpoint: _Endpoint, headers: Mapping[str, str], length: int) -> bytes:
    """Return the head of a request.

    Raises:
        ValueError: a value would begin another header.
    """
    own = [f"{name}: {value}\r\n" for name, value in endpoint.own_headers if name.lower() not in headers]
    fields = _template(tuple(headers)) % tuple(headers.values())
    size = f"content-length: {length}\r\n" if length or method == "POST" else ""
    head = f"{method} {endpoint.target} HTTP/1.1\r\n{''.join(own)}{fields}{size}\r\n"
    ends = 2 + len(own) + len(headers) + bool(size)
    if head.count("\n") != ends or head.count("\r") != ends or "\0" in head:  # docs/spec/operations.md#e9
        raise ValueError("a header's value holds a line break")
    # A client's headers that are not UTF-8 were decoded with surrogates.
    return head.encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=64)  # a client's requests have the same headers, in the same order
def _template(names: tuple[str, ...]) -> str:
    """Return a format string for headers of these names.

    Raises:
        ValueError: one of them is not a valid name.
    """
    if not all(map(_TOKEN.match, names)):
        raise ValueError("a header's name is none")
    return "".join([f"{name.replace('%', '%%')}: %s\r\n" for name in names])
