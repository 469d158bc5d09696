"""The undocumented names of aiohttp's server do what we use them for, in the installed version."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from proxyd.proxy.aiohttp_server import (
    LAST_RESPONSE,
    WRITTEN_RESPONSE,
    HttpProcessingError,
    RequestHandler,
    drain,
    fail_body,
    hide_versions,
    peer_of,
    received_bytes,
    wrap_handler,
)
from tests.support.raw_sockets import RawClient, post, until
from tests.support.servers import running_site

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, web.Server]]:
    server = web.Server(handler)
    runner = web.ServerRunner(server)
    async with running_site(runner) as port:
        yield f"http://127.0.0.1:{port}", server


def written(response: web.StreamResponse) -> Handler:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(BODY)
        await drain(request)
        return response

    return handler


async def test_nothing_follows_a_response_that_was_written() -> None:
    async with serving(written(WRITTEN_RESPONSE)) as (base, _), RawClient.to(base) as client:
        for _ in range(3):
            await client.send(post({}))
            assert await asyncio.wait_for(client.reader.readexactly(len(BODY)), 30) == BODY


async def test_the_connection_is_closed_after_a_last_response() -> None:
    async with serving(written(LAST_RESPONSE)) as (base, _), RawClient.to(base) as client:
        await client.send(post({}))
        assert await asyncio.wait_for(client.reader.read(-1), 30) == BODY


async def test_a_drain_waits_for_a_client_that_does_not_read_and_ends_with_its_connection() -> None:
    reports: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(bytes(32 << 20))
        reports.append("waits")
        try:
            await drain(request)
        except ConnectionError:
            reports.append("lost")
        return LAST_RESPONSE

    async with serving(handler) as (base, _), RawClient.to(base) as client:
        await client.send(post({}))
        await until(lambda: reports == ["waits"])
        await asyncio.sleep(0.05)
        assert reports == ["waits"]
        client.reset()
        await until(lambda: reports == ["waits", "lost"])


async def test_a_body_can_be_failed_from_outside() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asyncio.get_running_loop().call_later(0.01, fail_body, request, TimeoutError("too slow"))
        try:
            await request.content.readany()
        except TimeoutError as exc:
            return web.Response(text=str(exc), headers={"connection": "close"})
        return web.Response(text="read")

    async with serving(handler) as (base, _), RawClient.to(base) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        assert (await client.response()).body == b"too slow"


async def test_received_bytes_are_counted_before_decompression() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        return web.Response(text=f"{received_bytes(request)} of {len(body)}")

    data = gzip.compress(bytes(100_000))
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(data)}\r\n\r\n"
    async with serving(handler) as (base, _), RawClient.to(base) as client:
        await client.send(head.encode() + data)
        assert (await client.response()).body == b"%d of 100000" % len(data)


async def test_a_wrapped_handler_handles_the_requests_of_new_connections() -> None:
    seen: list[str] = []

    def wrapper(handler: Handler) -> Handler:
        async def wrapped(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.path)
            return await handler(request)

        return wrapped

    async with serving(written(WRITTEN_RESPONSE)) as (base, server):
        wrap_handler(server, wrapper)
        async with RawClient.to(base) as client:
            await client.send(post({}, path="/seen"))
            await asyncio.wait_for(client.reader.readexactly(len(BODY)), 30)
    assert seen == ["/seen"]


async def test_connections_have_a_peer_and_can_be_closed() -> None:
    async with serving(written(WRITTEN_RESPONSE)) as (base, server), RawClient.to(base) as client:
        await client.send(post({}))
        await asyncio.wait_for(client.reader.readexactly(len(BODY)), 30)
        (connection,) = server.connections
        assert isinstance(connection, RequestHandler)
        assert peer_of(connection) == "127.0.0.1"
        connection.force_close()
        assert await client.is_closed()


async def test_no_version_is_shown_and_a_malformed_request_is_reported_by_its_class() -> None:
    class Logger:
        def exception(self, message: str, *args: object, exc_info: object = None) -> None:
            reports.append(exc_info)

        def debug(self, message: str, *args: object, **more: object) -> None:
            pass

    reports: list[object] = []
    hide_versions()
    server = web.Server(written(WRITTEN_RESPONSE), logger=Logger())
    async with running_site(web.ServerRunner(server)) as port:
        async with RawClient.to(f"http://127.0.0.1:{port}") as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX Y: 1\r\n\r\n")
            response = await client.response()
    assert (response.status, response.headers["server"]) == (400, "claude-proxy")
    assert reports
    assert all(isinstance(each, HttpProcessingError) for each in reports)
