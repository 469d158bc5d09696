"""Threads for name look-ups and the like.

`getaddrinfo` blocks until the resolver responds. In the event loop's default executor a few look-ups that never end
would block everything else that needs a thread there, and the end of the process, which joins the threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Lookups"]

T = TypeVar("T")

#: Concurrent look-ups; further ones wait. `proxyd.transport.names` looks up each name only once at a time.
_MAX_THREADS = 64


class Lookups:
    """Runs blocking functions in daemon threads, one each.

    A ThreadPoolExecutor has no daemon threads: the interpreter joins them at exit.
    """

    def __init__(self, max_threads: int = _MAX_THREADS) -> None:
        self._free = max_threads
        self._waiting: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` and return its result. If the caller is cancelled, the thread runs on."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._free:
            self._start(future, function)
        else:
            self._waiting.append((future, function))
        return await future

    def _start(self, future: asyncio.Future[Any], function: Callable[[], Any]) -> None:
        self._free -= 1
        thread = threading.Thread(
            target=self._work, args=(future.get_loop(), future, function), name="lookup", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            self._free += 1
            raise

    def _work(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], function: Callable[[], Any]
    ) -> None:
        result, failure = None, None
        try:
            result = function()
        except Exception as exc:
            failure = exc
        try:
            loop.call_soon_threadsafe(self._end, future, result, failure)
        except RuntimeError:
            pass  # the loop has been closed meanwhile

    def _end(self, future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
        self._free += 1
        if not future.done():
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
        while self._waiting:
            future, function = self._waiting.popleft()
            if future.done():
                continue  # its caller was cancelled
            try:
                self._start(future, function)
            except RuntimeError as exc:  # no thread can be started
                future.set_exception(OSError(str(exc)))
                continue
            return
