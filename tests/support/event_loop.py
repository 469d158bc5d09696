"""The event loop of asynchronous tests: a server that is closed loses no connection that it has just accepted."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Loop"]


class Loop(asyncio.SelectorEventLoop):
    """Close servers one turn late, when what they have accepted has its transport.

    CPython creates the transport of an accepted connection in a task. If the server is closed before that
    task has begun, ``Server._attach`` raises an AssertionError in the transport's constructor, and the open
    socket is left to the garbage collector, whose ResourceWarning fails an unrelated test
    (https://github.com/python/cpython/issues/109564).
    """

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        server = await super().create_server(*args, **kwargs)
        close, wait_closed = server.close, server.wait_closed

        def close_after_accepting() -> None:
            for each in server.sockets:
                self.remove_reader(each.fileno())
            self.call_soon(close)

        async def wait_closed_after_accepting() -> None:
            await asyncio.sleep(0)
            await wait_closed()

        server.close = close_after_accepting  # type: ignore[method-assign]
        server.wait_closed = wait_closed_after_accepting  # type: ignore[method-assign]
        return server
