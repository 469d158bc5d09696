"""Connection pool for HTTP calls to upstreams, one level below aiohttp's session.

aiohttp's connector makes the connections (names, TLS, proxies of the environment), and its parser reads the heads of
responses. What a session adds for browsers and crawlers (cookies, redirects, a task for each body) is left out: half of
what a small call costs. A request is one write. Bodies are read by `proxyd.codecs.wire.http1_body`, which
notifies its reader of each arrival (`Response.on_progress`) without a task between socket and stream.

The factory of the connector is a hook for subclasses; a test checks the other names against the installed aiohttp
(``tests/unit/transport/test_pool.py``).
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import helpers
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from multidict import CIMultiDictProxy
from yarl import URL

from proxyd.codecs.wire.http1_body import Body
from proxyd.transport.connection import READ_BYTES, UnexpectedResponse, UpstreamConnection
from proxyd.transport.lookups import Lookups, Resolver
from proxyd.transport.timers import Timers

__all__ = ["ConnectionPool", "NotHTTP", "Response"]

#: URLs whose `_Endpoint` is cached; a models.yaml has fewer.
_MAX_ENDPOINTS = 256
#: How long an idle connection is kept, as in aiohttp's own pool.
_IDLE_S = 15.0
#: Idle connections of one origin.
_MAX_IDLE = 256
#: Headers that hold credentials of a call.
_CREDENTIALS = ("authorization", "x-api-key", "api-key")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


class NotHTTP(aiohttp.ClientError):
    """The response is not HTTP."""


class _Connector(aiohttp.TCPConnector):
    """Makes connections whose protocol is `UpstreamConnection`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = functools.partial(UpstreamConnection, loop=self._loop)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Any:
        connection: Any = await super().connect(req, traces, timeout)
        connection.protocol.limit_reads()
        return connection


class _IdleConnections:
    """Idle connections of one origin. A connection is reused only for calls with the credentials of its first call, so
    that a response that an upstream sends late, or twice, never reaches another user.

    aiohttp's own pool takes ten times as long, and checks for unexpected bytes (a goodbye, a response to no request)
    when a connection is returned, but not when it is reused.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, list[tuple[Any, float]]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, owner: int) -> Any:
        """Return the most recently used connection of `owner` that can be reused, or None."""
        waiting = self._waiting.get(owner)
        while waiting:
            connection, since = waiting.pop()
            self._count -= 1
            if not waiting:
                del self._waiting[owner]
            protocol = connection.protocol
            if (
                protocol.is_connected()
                and not protocol.should_close
                and self._loop.time() - since < _IDLE_S
                and not protocol.has_unread_bytes()  # which the loop may not have read yet
            ):
                return connection
            connection.close()
        return None

    def put(self, connection: Any, owner: int) -> None:
        """Keep a connection for reuse."""
        if self._count >= _MAX_IDLE:
            connection.close()
            return
        self._count += 1
        self._waiting.setdefault(owner, []).append((connection, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE_S, self._sweep)

    def release_all(self) -> None:
        """Release all to the connector, which closes them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in self._waiting.values():
            for connection, _ in waiting:
                connection.release()
        self._waiting.clear()
        self._count = 0

    def _sweep(self) -> None:
        self._timer = None
        limit = self._loop.time() - _IDLE_S
        kept: dict[int, list[tuple[Any, float]]] = {}
        for owner, waiting in self._waiting.items():
            for connection, since in waiting:
                if since <= limit or not connection.protocol.is_connected():
                    connection.close()
                else:
                    kept.setdefault(owner, []).append((connection, since))
        self._waiting = kept
        self._count = sum(map(len, kept.values()))
        if kept:
            oldest = min(waiting[0][1] for waiting in kept.values())
            self._timer = self._loop.call_at(oldest + _IDLE_S, self._sweep)


class _Endpoint:
    """What is the same for all calls to one URL: the connector's request, and the request target."""

    __slots__ = ("idle", "request", "target")

    def __init__(self, url: URL, request: aiohttp.ClientRequest, idle: _IdleConnections) -> None:
        self.request = request
        self.idle = idle
        is_by_proxy = request.proxy is not None and not request.is_ssl()
        self.target = str(url) if is_by_proxy else url.raw_path_qs


class Response:
    """The response to one call, from its head on; to be closed or released.

    Attributes:
        status, reason, headers: its head.
        on_progress: called when bytes or the end of the body have arrived, and when the connection has ended; called
            from `data_received`, so it must not raise.
        on_lone_chunk: called with a read that is exactly one HTTP chunk while nothing is buffered. It returns True if
            it has consumed the chunk; else it has no side effects, and the chunk is buffered. Must not raise either.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_fault",
        "_idle",
        "_owner",
        "_protocol",
        "headers",
        "reason",
        "status",
    )

    def __init__(
        self, connection: Any, message: RawResponseMessage, idle: _IdleConnections, owner: int
    ) -> None:
        self._connection = connection
        self._idle, self._owner = idle, owner
        self._protocol: UpstreamConnection = connection.protocol
        body = self._protocol.body
        assert body is not None, "it has a head"
        self._body: Body = body
        self._fault: BaseException | None = None
        self.status: int = message.code
        self.reason: str = message.reason
        self.headers: CIMultiDictProxy[str] = message.headers

    @property
    def has_more(self) -> bool:
        """Bytes have arrived that were not taken yet."""
        return self._body.waiting_bytes > 0

    @property
    def is_over(self) -> bool:
        """Nothing more will arrive; bytes may still be buffered."""
        body = self._body
        return body.is_complete or body.fault is not None or self._fault is not None

    @property
    def at_end(self) -> bool:
        """The body has ended and all of it was taken."""
        return self._body.is_complete and not self._body.has_more

    def take(self, limit: int = READ_BYTES) -> bytes:
        """Take up to `limit` bytes that have arrived.

        Raises:
            BodyFault: the body was cut short.
            BaseException: the argument of `interrupt`.
        """
        if self._fault is not None:
            raise self._fault
        return self._protocol.take(limit)

    def interrupt(self, fault: BaseException) -> None:
        """Raise `fault` in the next `take`, and notify the reader."""
        if self._fault is None:
            self._fault = fault
            if self.on_progress is not None:
                self.on_progress()

    @property
    def on_progress(self) -> Callable[[], None] | None:
        return self._protocol.on_progress

    @on_progress.setter
    def on_progress(self, callback: Callable[[], None] | None) -> None:
        self._protocol.on_progress = callback

    @property
    def on_lone_chunk(self) -> Callable[[bytes], bool] | None:
        return self._protocol.on_lone_chunk

    @on_lone_chunk.setter
    def on_lone_chunk(self, callback: Callable[[bytes], bool] | None) -> None:
        self._protocol.on_lone_chunk = callback

    @property
    def content_type(self) -> str:
        """Type and subtype, in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def release(self) -> None:
        """Release the connection, for reuse if the response has been read and the request been sent whole."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        protocol = self._protocol
        protocol.on_progress = protocol.on_lone_chunk = None
        transport = protocol.transport
        if (
            self._fault is not None
            or transport is None
            or transport.get_write_buffer_size()
            or protocol.should_close
        ):
            connection.close()
        else:
            protocol.body = None
            self._idle.put(connection, self._owner)

    def discard_connection(self) -> None:
        """Close the connection on `release`: the response is not what was requested."""
        self._protocol.keeps_alive = False

    def close(self) -> None:
        """Close the connection, which cancels the call."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._protocol.on_progress = self._protocol.on_lone_chunk = None
            connection.close()


class ConnectionPool:
    """Sends requests over pooled connections."""

    def __init__(self, *, ca_file: str = "", trust_env: bool = False) -> None:
        context: ssl.SSLContext | bool = True
        if ca_file:
            context = ssl.create_default_context(cafile=ca_file)
        # The limit on calls is ours (max_streams); a second one in the pool would only make some of them wait.
        self._lookups = Lookups()
        self._connector = _Connector(limit=0, ssl=context, ttl_dns_cache=60, resolver=Resolver(self._lookups))
        self._trust_env = trust_env
        self._endpoints: OrderedDict[str, _Endpoint] = OrderedDict()
        self._idle: dict[Any, _IdleConnections] = {}

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

        Args:
            headers: all but ``Host`` and ``Content-Length``.
            timers: the caller's; used for `first_byte_s`.
            connect_s, first_byte_s: timeouts on the connection, from the look-up of its name to the end of its TLS
                handshake, and on the head of the response; 0 for none.
            auto_decompress: decompress the body.

        Raises:
            NotHTTP: the server does not speak HTTP.
            UnexpectedResponse: it sent, twice, a response that can't be to this request.
            aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError: as aiohttp's session does.
        """
        endpoint = self._endpoints.get(url)
        if endpoint is None:
            try:
                endpoint = await asyncio.wait_for(self._endpoint(url), connect_s or None)
            except asyncio.TimeoutError as exc:
                raise aiohttp.ConnectionTimeoutError from exc
        owner = hash(tuple(map(headers.get, _CREDENTIALS)))  # keys are not kept for this
        connection = endpoint.idle.take(owner)
        is_last = False
        while True:
            if connection is None:
                connection = await self._connect(endpoint, connect_s)
            protocol: UpstreamConnection = connection.protocol
            on_timeout = protocol.fail_with_timeout
            try:
                if not protocol.is_connected():
                    raise aiohttp.ClientConnectionResetError("the connection has ended")
                if protocol.should_close:
                    raise UnexpectedResponse("the upstream sent bytes before the request")
                head = _head(
                    method, endpoint, headers, len(body)
                )  # a proxy's credentials come with the connection
                protocol.send_request(head, body, decodes=auto_decompress, has_body=method != "HEAD")
                timers.set(on_timeout, first_byte_s)
                try:
                    message, _ = await protocol.read()
                    while 100 <= message.code < 200 and message.code != 101:
                        message, _ = await protocol.read()
                finally:
                    timers.clear(on_timeout)
                if protocol.has_extra_response:
                    raise UnexpectedResponse("the upstream sent more than one response")
            except UnexpectedResponse:
                connection.close()
                if is_last:
                    raise
                connection, is_last = None, True  # once more, on a new connection
                continue
            except HttpProcessingError as exc:
                connection.close()
                raise NotHTTP from exc
            except BaseException:
                connection.close()
                raise
            return Response(connection, message, endpoint.idle, owner)

    async def _connect(self, endpoint: _Endpoint, connect_s: float) -> Any:
        """Make a new connection, under one timeout."""
        # Above its threshold aiohttp rounds timeouts up to whole seconds.
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_s or None, ceil_threshold=math.inf)
        try:
            return await self._connector.connect(endpoint.request, [], timeout)
        except asyncio.TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError from exc

    async def close(self) -> None:
        """Close all connections."""
        for idle in self._idle.values():
            idle.release_all()
        await self._connector.close()

    async def _endpoint(self, url: str) -> _Endpoint:
        address = URL(url, encoded=True)
        if address.scheme not in ("http", "https") or not address.raw_host:
            raise aiohttp.InvalidURL(url)
        proxy, proxy_auth, auth = None, None, None
        if self._trust_env:
            proxy, proxy_auth, auth = await self._lookups.run(lambda: _environment_of(address))
        request = aiohttp.ClientRequest(
            "GET",
            address,
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
            auth=auth,
            proxy=proxy,
            proxy_auth=proxy_auth,
            loop=asyncio.get_running_loop(),
        )
        key = request.connection_key
        idle = self._idle.get(key)
        if idle is None:
            idle = self._idle[key] = _IdleConnections(asyncio.get_running_loop())
        endpoint = self._endpoints[url] = _Endpoint(address, request, idle)
        if len(self._endpoints) > _MAX_ENDPOINTS:
            self._endpoints.popitem(last=False)
        return endpoint


def _head(method: str, endpoint: _Endpoint, headers: Mapping[str, str], length: int) -> bytes:
    """Return the head of a request.

    Raises:
        ValueError: a value would begin another header.
    """
    own = [
        f"{name}: {value}\r\n"  # Host; credentials of the environment or of the URL
        for name, value in endpoint.request.headers.items()
        if name.lower() not in headers
    ]
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


def _environment_of(
    url: URL,
) -> tuple[URL | None, aiohttp.BasicAuth | None, aiohttp.BasicAuth | None]:
    """Return the environment's proxy for `url`, its credentials, and those of netrc for `url` itself."""
    proxy = proxy_auth = auth = None
    try:
        proxy, proxy_auth = helpers.get_env_proxy_for_url(url)
    except LookupError:
        pass
    try:
        auth = helpers.basicauth_from_netrc(helpers.netrc_from_env(), url.host or "")
    except LookupError:
        pass
    return proxy, proxy_auth, auth
