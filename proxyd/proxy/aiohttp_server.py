"""The names of aiohttp's server that its documentation does not have.

aiohttp accepts connections, parses requests and runs handlers; the responses of calls are written by
`proxyd.proxy.client_response` straight to the transport. That needs a few public but undocumented names. They are here
and nowhere else, and ``tests/unit/proxy/test_aiohttp_server.py`` checks them against the installed version;
``make test-next`` does so against the newest one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

__all__ = [
    "LAST_RESPONSE",
    "WRITTEN_RESPONSE",
    "HttpProcessingError",
    "RequestHandler",
    "drain",
    "fail_body",
    "failure_of_body",
    "hide_versions",
    "peer_of",
    "received_bytes",
    "wrap_handler",
]


class _WrittenResponse(web.StreamResponse):
    """What a handler returns for a response that it has written already: aiohttp has nothing left to send.

    aiohttp calls `prepare` and `write_eof` on what a handler returns, then reads `keep_alive`.
    """

    def __init__(self, *, keeps_alive: bool) -> None:
        super().__init__()
        self._is_to_stay = keeps_alive

    @property
    def prepared(self) -> bool:
        return True

    @property
    def keep_alive(self) -> bool | None:
        return self._is_to_stay

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


#: Responses that were written, after which the connection stays open or is closed. Shared by all calls, since nothing
#: is written into them.
WRITTEN_RESPONSE, LAST_RESPONSE = _WrittenResponse(keeps_alive=True), _WrittenResponse(keeps_alive=False)


async def drain(request: web.BaseRequest) -> None:
    """Return when the transport of `request` has room for more.

    Raises:
        ConnectionError: the connection is lost.
    """
    await request.writer.drain()


def hide_versions() -> None:
    """Keep aiohttp's version and Python's out of the ``Server`` header, which aiohttp puts into every response of its
    own, even to requests that it cannot parse.
    """
    setattr(web_response, "SERVER_SOFTWARE", "claude-proxy")  # noqa: B010 - typing does not know that it is there


def wrap_handler(server: web.Server, wrapper: Callable[[Any], Any]) -> None:
    """Put `wrapper` around the function that handles the requests of `server`."""
    server.request_handler = wrapper(server.request_handler)


def peer_of(connection: RequestHandler) -> str:
    """Return the address of the other end, without its port."""
    peer = connection.peername
    return str(peer[0] if isinstance(peer, tuple) else peer)


def fail_body(request: web.BaseRequest, exc: BaseException) -> None:
    """Raise `exc` in the read of the body of `request`."""
    request.content.set_exception(exc)


def failure_of_body(request: web.BaseRequest) -> BaseException | None:
    """Return what a read of the body of `request` raises: `fail_body`'s exception, or that of the lost connection."""
    return request.content.exception()


def received_bytes(request: web.BaseRequest) -> int:
    """Return how many bytes of the body have arrived, before decompression."""
    return request.content.total_raw_bytes
