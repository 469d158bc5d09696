"""One HTTP call to an upstream, one level below aiohttp's session.

Connections, their pool, TLS, names and environment proxies are aiohttp's connector, and its parser reads the heads of
answers; what a session adds for browsers and crawlers (cookies, redirects, a task for each body, a dozen objects a
request) is left out: half of what a small call costs. A request is one write. A body is read by a few lines of our
own (`proxyd.codecs.wire.http1_body`) and tells its reader of each arrival at once (`Response.on_progress`), without
a task between the socket and the stream.

aiohttp offers the first part to subclasses of its connector; a test holds the rest to the installed version
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
from proxyd.transport.connection import READ_BYTES, OutOfTurn, UpstreamConnection
from proxyd.transport.lookups import Lookups, Resolver
from proxyd.transport.timers import Timers

__all__ = ["ConnectionPool", "NotHTTP", "Response"]

#: Addresses whose way is remembered; a models.yaml has fewer.
_MAX_WAYS = 256
#: How long a connection waits for its next call, as in aiohttp's own pool.
_IDLE_S = 15.0
#: Connections of one origin that wait.
_MAX_IDLE = 256
#: The headers that say whose a call is.
_CREDENTIALS = ("authorization", "x-api-key", "api-key")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


class NotHTTP(aiohttp.ClientError):
    """What came is no HTTP answer."""


class _Connector(aiohttp.TCPConnector):
    """Makes connections that speak as `UpstreamConnection` does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = functools.partial(UpstreamConnection, loop=self._loop)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Any:
        connection: Any = await super().connect(req, traces, timeout)
        connection.protocol.limit_reads()
        return connection


class _Idle:
    """The connections of one origin that wait for a call. One serves only calls with the credentials of its first one:
    a response that an upstream sends too late, or twice, then reaches nobody else.

    aiohttp's own pool does the same for ten times the price, and looks for bytes that came out of turn (a farewell, a
    response to no request) when it takes a connection back, but not when it gives one out.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, list[tuple[Any, float]]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, owner: int) -> Any:
        """The connection of `owner` that was used last and can serve, or None."""
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
                and not protocol.has_unread()  # the loop may not have come to read it
            ):
                return connection
            connection.close()
        return None

    def give(self, connection: Any, owner: int) -> None:
        """Keep a connection whose call is over."""
        if self._count >= _MAX_IDLE:
            connection.close()
            return
        self._count += 1
        self._waiting.setdefault(owner, []).append((connection, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE_S, self._sweep)

    def give_up(self) -> None:
        """Leave all that wait to their connector, which closes them in order."""
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


class _Way:
    """How the calls to one URL go: what the connector wants to know, and how each request begins."""

    __slots__ = ("idle", "request", "target")

    def __init__(self, url: URL, request: aiohttp.ClientRequest, idle: _Idle) -> None:
        self.request = request
        self.idle = idle
        is_by_proxy = request.proxy is not None and not request.is_ssl()
        self.target = str(url) if is_by_proxy else url.raw_path_qs


class Response:
    """The response to one call, from its head on. Whoever has it closes it.

    Attributes:
        status, reason, headers: its head.
        on_progress: is called when bytes or their end have arrived, and when the connection has ended; from within
            the reading of the socket, so it must not raise.
        on_piece: is offered each piece that comes alone, all of an HTTP chunk, when nothing waits to be taken. If it
            returns True the piece has been taken; else it has done nothing, and the piece goes the way of all others.
            The short way for nearly all of a stream. Must not raise either.
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

    def __init__(self, connection: Any, message: RawResponseMessage, idle: _Idle, owner: int) -> None:
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
        """Bytes have arrived that were not taken."""
        return self._body.waiting_bytes > 0

    @property
    def is_over(self) -> bool:
        """Nothing more will arrive; what has, may not have been taken yet."""
        body = self._body
        return body.is_complete or body.fault is not None or self._fault is not None

    @property
    def at_end(self) -> bool:
        """All of the body has been taken, to its very end."""
        return self._body.is_complete and not self._body.has_more

    def take(self, limit: int = READ_BYTES) -> bytes:
        """What has arrived, up to `limit` bytes of it.

        Raises:
            BodyFault: the body ended, and not as its framing says.
            BaseException: what `interrupt` was given.
        """
        if self._fault is not None:
            raise self._fault
        return self._protocol.take(limit)

    def interrupt(self, fault: BaseException) -> None:
        """Have whoever takes next get `fault`, and tell them."""
        if self._fault is None:
            self._fault = fault
            if self.on_progress is not None:
                self.on_progress()

    @property
    def on_progress(self) -> Callable[[], None] | None:
        return self._protocol.on_progress

    @on_progress.setter
    def on_progress(self, told: Callable[[], None] | None) -> None:
        self._protocol.on_progress = told

    @property
    def on_piece(self) -> Callable[[bytes], bool] | None:
        return self._protocol.on_piece

    @on_piece.setter
    def on_piece(self, offered: Callable[[bytes], bool] | None) -> None:
        self._protocol.on_piece = offered

    @property
    def content_type(self) -> str:
        """Type and subtype, in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def release(self) -> None:
        """Give the connection back, to serve again if the answer has been read and the request been sent whole."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        protocol = self._protocol
        protocol.on_progress = protocol.on_piece = None
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
            self._idle.give(connection, self._owner)

    def keep_no_connection(self) -> None:
        """Have the connection closed on `release`: this is not what was asked for."""
        self._protocol.keeps_alive = False

    def close(self) -> None:
        """Close the connection, which cancels the call."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._protocol.on_progress = self._protocol.on_piece = None
            connection.close()


class ConnectionPool:
    """Makes calls, over one pool of connections."""

    def __init__(self, *, ca_file: str = "", trust_env: bool = False) -> None:
        context: ssl.SSLContext | bool = True
        if ca_file:
            context = ssl.create_default_context(cafile=ca_file)
        # The limit on calls is ours (max_streams); a second one in the pool would only make some of them wait.
        self._lookups = Lookups()
        self._connector = _Connector(limit=0, ssl=context, ttl_dns_cache=60, resolver=Resolver(self._lookups))
        self._trust_env = trust_env
        self._ways: OrderedDict[str, _Way] = OrderedDict()
        self._idle: dict[Any, _Idle] = {}

    async def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        deadlines: Timers,
        connect_s: float = 0,
        first_byte_s: float = 0,
        auto_decompress: bool = True,
    ) -> Response:
        """Send one request; returns when the head of its answer is there.

        Args:
            headers: all but ``Host`` and ``Content-Length``.
            deadlines: those of the caller; the clock on the head of the answer is one of them while it runs.
            connect_s, first_byte_s: timeouts on the connection, from the look-up of its name to the end of its TLS
                handshake, and on the head of the answer; 0 for none.
            auto_decompress: undo a content encoding.

        Raises:
            NotHTTP: what answered does not speak HTTP.
            OutOfTurn: it sent a response that can't be to this request, twice.
            aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError: as aiohttp's session does.
        """
        way = self._ways.get(url)
        if way is None:
            try:
                way = await asyncio.wait_for(self._way(url), connect_s or None)
            except asyncio.TimeoutError as exc:
                raise aiohttp.ConnectionTimeoutError from exc
        owner = hash(tuple(map(headers.get, _CREDENTIALS)))  # keys are not kept for this
        connection = way.idle.take(owner)
        is_last = False
        while True:
            if connection is None:
                connection = await self._connect(way, connect_s)
            protocol: UpstreamConnection = connection.protocol
            silent = protocol.give_up
            try:
                if not protocol.is_connected():
                    raise aiohttp.ClientConnectionResetError("the connection has ended")
                if protocol.should_close:
                    raise OutOfTurn("the upstream spoke before it was asked")
                head = _head(
                    method, way, headers, len(body)
                )  # a proxy's credentials come with the connection
                protocol.ask(head, body, decodes=auto_decompress, has_body=method != "HEAD")
                deadlines.set(silent, first_byte_s)
                try:
                    message, _ = await protocol.read()
                    while 100 <= message.code < 200 and message.code != 101:
                        message, _ = await protocol.read()
                finally:
                    deadlines.clear(silent)
                if protocol.brought_another:
                    raise OutOfTurn("the upstream sent more than one response")
            except OutOfTurn:
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
            return Response(connection, message, way.idle, owner)

    async def _connect(self, way: _Way, connect_s: float) -> Any:
        """A new connection; one timeout is over all that it takes."""
        # Above its threshold aiohttp rounds timeouts up to whole seconds.
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_s or None, ceil_threshold=math.inf)
        try:
            return await self._connector.connect(way.request, [], timeout)
        except asyncio.TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError from exc

    async def close(self) -> None:
        """Close all connections."""
        for idle in self._idle.values():
            idle.give_up()
        await self._connector.close()

    async def _way(self, url: str) -> _Way:
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
            idle = self._idle[key] = _Idle(asyncio.get_running_loop())
        way = self._ways[url] = _Way(address, request, idle)
        if len(self._ways) > _MAX_WAYS:
            self._ways.popitem(last=False)
        return way


def _head(method: str, way: _Way, headers: Mapping[str, str], length: int) -> bytes:
    """The head of a request.

    Raises:
        ValueError: a value would begin another header.
    """
    own = [
        f"{name}: {value}\r\n"  # Host; credentials of the environment or of the URL
        for name, value in way.request.headers.items()
        if name.lower() not in headers
    ]
    fields = _template(tuple(headers)) % tuple(headers.values())
    size = f"content-length: {length}\r\n" if length or method == "POST" else ""
    head = f"{method} {way.target} HTTP/1.1\r\n{''.join(own)}{fields}{size}\r\n"
    ends = 2 + len(own) + len(headers) + bool(size)
    if head.count("\n") != ends or head.count("\r") != ends or "\0" in head:  # docs/spec/operations.md#e9
        raise ValueError("a header's value holds a line break")
    # What a client sent that is no UTF-8 was read with surrogates in its place.
    return head.encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=64)  # a client's requests have the same headers, in the same order
def _template(names: tuple[str, ...]) -> str:
    """Lines for headers of these names, with room for their values.

    Raises:
        ValueError: one of them is no name.
    """
    if not all(map(_TOKEN.match, names)):
        raise ValueError("a header's name is none")
    return "".join([f"{name.replace('%', '%%')}: %s\r\n" for name in names])


def _environment_of(
    url: URL,
) -> tuple[URL | None, aiohttp.BasicAuth | None, aiohttp.BasicAuth | None]:
    """The proxy that the environment names for `url`, its credentials, and those of netrc for `url` itself."""
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
