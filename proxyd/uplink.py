"""One HTTP call to an upstream, one level below aiohttp's session.

Connections, their pool, TLS, names and environment proxies are aiohttp's connector, and its parser reads the answers;
what a session adds for browsers and crawlers (cookies, redirects, a task for each body, a dozen objects a request) is
left out: half of what a small call costs. A request is one write, an answer tells its reader of each arrival at once
(`Response.on_progress`), without a task between the socket and the stream.

aiohttp offers the first part to subclasses of its connector; a test holds the rest to the installed version
(``tests/test_uplink.py``).
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import helpers
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from proxyd.deadlines import Deadlines

__all__ = ["READ_BYTES", "NotHTTP", "Response", "Uplink"]

#: Reading from an upstream pauses above twice this; one more read of the loop's may follow.
_BUFFER_BYTES = 32 * 1024
#: What is taken at once, from a socket and from its reader.
READ_BYTES = 64 * 1024
#: Lines and number of an answer's headers (operations.md C2 has the same for requests).
_MAX_LINE, _MAX_HEADERS = 8190, 128
#: Addresses whose way is remembered; a models.yaml has fewer.
_MAX_WAYS = 256

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


class NotHTTP(aiohttp.ClientError):
    """What came is no HTTP answer."""


class _Protocol(ResponseHandler):
    """Tells whoever reads the answer of everything that happens to its connection."""

    on_progress: Callable[[], None] | None = None
    is_lost = False

    def resume_reading(self, resume_parser: bool = True) -> None:
        # Readers ask for it with each piece that they take, and it would have the parser look at nothing.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.on_progress is not None:
            self.on_progress()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.is_lost = True
        if self.on_progress is not None:
            self.on_progress()


class _Connector(aiohttp.TCPConnector):
    """Connections that take no more at once than a call reads.

    asyncio's own 256 KiB would be held up to three times for a client that does not read: by the reader, by the write
    that waits, and by the transport (operations.md C6).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = functools.partial(_Protocol, loop=self._loop)

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


class _Way:
    """How the calls to one URL go: what the connector wants to know, and how each request begins."""

    __slots__ = ("opening", "request", "target")

    def __init__(self, url: URL, request: aiohttp.ClientRequest) -> None:
        self.request = request
        is_by_proxy = request.proxy is not None and not request.is_ssl()
        self.target = str(url) if is_by_proxy else url.raw_path_qs


class Response:
    """The response to one call, from its head on. Whoever has it closes it.

    Attributes:
        status, reason, headers: its head.
        content: its body, decoded from the transfer's framing.
        on_progress: is called when bytes or their end have arrived, and when the connection has ended; from within
            the reading of the socket, so it must not raise.
    """

    __slots__ = ("_connection", "_protocol", "_taken", "content", "headers", "reason", "status")

    def __init__(self, connection: Any, message: Any, content: aiohttp.StreamReader) -> None:
        self._connection = connection
        self._protocol: _Protocol = connection.protocol
        self.status: int = message.code
        self.reason: str = message.reason
        self.headers: CIMultiDictProxy[str] = message.headers
        self.content = content
        self._taken = 0  # bytes

    @property
    def has_more(self) -> bool:
        """Bytes have arrived that were not taken."""
        return self.content.total_bytes > self._taken

    @property
    def has_ended(self) -> bool:
        """Nothing more will arrive; what has, may not have been taken yet."""
        return self.content.is_eof() or self._protocol.is_lost or self.content.exception() is not None

    def take(self) -> bytes:
        """What has arrived, up to `READ_BYTES` of it.

        Raises:
            Exception: what the parser, or a clock, has set.
        """
        chunk = self.content.read_nowait(READ_BYTES)
        self._taken += len(chunk)
        return chunk

    @property
    def on_progress(self) -> Callable[[], None] | None:
        return self._protocol.on_progress

    @on_progress.setter
    def on_progress(self, told: Callable[[], None] | None) -> None:
        self._protocol.on_progress = told

    @property
    def is_lost(self) -> bool:
        """The connection has ended: nothing more will arrive."""
        return self._protocol.is_lost

    @property
    def content_type(self) -> str:
        """Type and subtype, in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def release(self) -> None:
        """Give the connection back, to serve again if the answer has been read and the request been sent whole."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._protocol.on_progress = None
        transport = connection.transport
        if transport is not None and transport.get_write_buffer_size():
            connection.close()
        else:
            connection.release()

    def close(self) -> None:
        """Close the connection, which cancels the call."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._protocol.on_progress = None
            connection.close()


class Uplink:
    """Makes calls, over one pool of connections."""

    def __init__(self, *, ca_file: str = "", trust_env: bool = False) -> None:
        context: ssl.SSLContext | bool = True
        if ca_file:
            context = ssl.create_default_context(cafile=ca_file)
        # The limit on calls is ours (max_streams); a second one in the pool would only make some of them wait.
        self._connector = _Connector(limit=0, ssl=context, ttl_dns_cache=60)
        self._trust_env = trust_env
        self._ways: OrderedDict[str, _Way] = OrderedDict()

    async def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        deadlines: Deadlines,
        connect_s: float = 0,
        first_byte_s: float = 0,
        auto_decompress: bool = True,
    ) -> Response:
        """Send one request; returns when the head of its answer is there.

        Args:
            headers: all but ``Host`` and ``Content-Length``.
            deadlines: those of the caller; the clock on the head of the answer is one of them while it runs.
            connect_s, first_byte_s: clocks on the connection and on the head of the answer; 0 for none.
            auto_decompress: undo a content encoding.

        Raises:
            NotHTTP: what answered does not speak HTTP.
            aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError: as aiohttp's session does.
        """
        way = self._ways.get(url) or await self._way(url)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s or None)
        try:
            connection = await self._connector.connect(way.request, [], timeout)
        except asyncio.TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError from exc
        try:
            head = _head(method, way, headers, len(body))
            protocol = connection.protocol
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=auto_decompress,
                read_bufsize=_BUFFER_BYTES,
                max_line_size=_MAX_LINE,
                max_field_size=_MAX_LINE,
                max_headers=_MAX_HEADERS,
            )
            if not protocol.is_connected():
                raise aiohttp.ClientConnectionResetError("the pooled connection has ended")
            protocol.transport.write(head + body)
            silent = functools.partial(protocol.set_exception, aiohttp.SocketTimeoutError("no answer"))
            deadlines.set(silent, first_byte_s)
            try:
                message, content = await protocol.read()
                while 100 <= message.code < 200 and message.code != 101:
                    message, content = await protocol.read()
            finally:
                deadlines.clear(silent)
        except HttpProcessingError as exc:
            connection.close()
            raise NotHTTP from exc
        except BaseException:
            connection.close()
            raise
        return Response(connection, message, content)

    async def close(self) -> None:
        """Close all connections."""
        await self._connector.close()

    async def _way(self, url: str) -> _Way:
        address = URL(url, encoded=True)
        if address.scheme not in ("http", "https") or not address.raw_host:
            raise aiohttp.InvalidURL(url)
        proxy, proxy_auth, auth = None, None, None
        if self._trust_env:
            loop = asyncio.get_running_loop()
            proxy, proxy_auth, auth = await loop.run_in_executor(None, _environment_of, address)
        request = aiohttp.ClientRequest(
            "GET",
            address,
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
            auth=auth,
            proxy=proxy,
            proxy_auth=proxy_auth,
            loop=asyncio.get_running_loop(),
        )
        way = self._ways[url] = _Way(address, request)
        if len(self._ways) > _MAX_WAYS:
            self._ways.popitem(last=False)
        return way


def _head(method: str, way: _Way, headers: Mapping[str, str], length: int) -> bytes:
    """The head of a request.

    Raises:
        ValueError: a value would begin another header.
    """
    lines = [f"{method} {way.target} HTTP/1.1"]
    for name, value in way.request.headers.items():  # Host; credentials of the environment or of the URL
        if name.lower() not in headers:
            lines.append(f"{name}: {value}")
    if not all(map(_is_token, headers)):
        raise ValueError("a header's name is none")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length or method == "POST":
        lines.append(f"content-length: {length}")
    lines += ("", "")
    head = "\r\n".join(lines)
    ends = len(lines) - 1
    if head.count("\n") != ends or head.count("\r") != ends or "\0" in head:  # operations.md E9
        raise ValueError("a header's value holds a line break")
    # What a client sent that is no UTF-8 was read with surrogates in its place.
    return head.encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=1024)  # the same few dozen in every request
def _is_token(name: str) -> bool:
    return _TOKEN.match(name) is not None


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
