"""A thread for the work of large requests, which would block the event loop.

Up to 256 KiB or 20 000 values, parsing, translating and writing a request take a few milliseconds each, and the loop
does them itself. A larger request, of up to 32 MiB, takes up to two seconds. Its thread shares the interpreter's lock
with the loop, so it makes no long call into C (`proxyd.codecs.wire.large_json`), and the lock changes hands often
(`proxyd.daemon.server`). There is one thread: large requests wait for each other, not the others for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from proxyd import jsonio

__all__ = ["LargeRequests", "is_large"]

_T = TypeVar("_T")

#: Above this size the values are counted, which takes a millisecond a megabyte.
_COUNTED_BYTES = 256 * 1024
#: A request of more bytes or values is large.
_MAX_BYTES, _MAX_VALUES = 2 << 20, 20_000


def is_large(body: bytes) -> bool:
    """Return whether the work on this request would block the event loop for too long."""
    return len(body) > _COUNTED_BYTES and (
        len(body) > _MAX_BYTES or jsonio.has_more_values(body, _MAX_VALUES)
    )


class LargeRequests:
    """Runs work of large requests, one piece after the other."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "large-request")

    async def run(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call `function` in the thread and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Start no more work."""
        self._executor.shutdown(wait=False, cancel_futures=True)
