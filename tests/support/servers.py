"""Servers of tests on free ports of loopback, whose sockets are all closed when they end.

asyncio loses a connection that it has accepted in the turn of the event loop in which its server is closed: the
transport is left half made, and the garbage collector reports its socket in whatever test runs then.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

__all__ = ["running_server", "running_site", "stop_accepting"]

#: Of the event loop, between the accepting of a connection and its transport; one more than it takes.
_TURNS = 4


async def stop_accepting(*listening: Any) -> None:
    """Accept no more connections on these sockets, and wait until those accepted before have their transports."""
    loop = asyncio.get_running_loop()
    for each in listening:
        if each.fileno() >= 0:
            loop.remove_reader(each.fileno())
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def running_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **options: Any
) -> AsyncIterator[int]:
    """Serve connections; gives the port. Those that are open at the end are aborted.

    Args:
        options: for `asyncio.start_server`.
    """
    tasks: set[asyncio.Task[Any]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.add(writer)
        try:
            await serve(reader, writer)
        finally:
            tasks.discard(task)

    where = {} if "sock" in options else {"host": "127.0.0.1", "port": 0}
    server = await asyncio.start_server(tracked, **where, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await stop_accepting(*server.sockets)
        server.close()
        ending = list(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # one that is closed waits until its peer has read all
        await server.wait_closed()


@asynccontextmanager
async def running_site(runner: web.BaseRunner[Any], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve what a runner of aiohttp runs; gives the port."""
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    try:
        await web.SockSite(runner, listening, ssl_context=tls).start()
        yield listening.getsockname()[1]
    finally:
        await stop_accepting(listening)
        await runner.cleanup()
        listening.close()
