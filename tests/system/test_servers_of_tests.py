"""Servers of tests that end while a client connects leave no socket to the garbage collector."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from aiohttp import web

from tests.support.raw_sockets import RawUpstream
from tests.support.servers import running_server, running_site


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _handle(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


SERVERS: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
    "asyncio": lambda: running_server(_serve),
    "aiohttp": lambda: running_site(web.ServerRunner(web.Server(_handle))),
    "raw": lambda: RawUpstream(lambda _: ()).running(),
}


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_server_that_ends_while_a_client_connects(kind: str) -> None:
    """In whichever turn of the loop: between the accepting of a connection and its transport, too."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)  # without it asyncio reports no connection that it loses
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    for turns in range(6):
        async with SERVERS[kind]() as served:
            port = served.port if kind == "raw" else served
            with socket.create_connection(("127.0.0.1", port), 30):
                for _ in range(turns):
                    await asyncio.sleep(0)
    for _ in range(6):
        await asyncio.sleep(0)
    assert faults == []
