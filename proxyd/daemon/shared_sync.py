"""What daemons share beside keys, exchanged with the store in a thread every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from proxyd.logs.setup import get_logger
from proxyd.store.interface import StoreFailed

__all__ = ["EXCHANGE_S", "Part", "SharedSync"]

#: What one daemon has is known to the others after twice this time.
EXCHANGE_S = 2.0

log = get_logger("shared")

#: Takes what an exchange has returned, in the event loop.
Finish = Callable[[], None]


class Part(Protocol):
    """One thing that is shared."""

    def begin(self) -> Callable[[], Finish]:
        """Return an exchange, which runs in a thread and may raise `StoreFailed`."""

    def fail(self) -> None:
        """The exchange that was begun has failed."""

    def leave(self) -> Callable[[], Finish]:
        """Return the last exchange, as `begin` does."""


class SharedSync:
    """Keeps `parts` and a store equal.

    Args:
        close_store: releases the resources of the store that the parts use, one at a time.

    Attributes:
        trouble: why the store cannot be used at the moment.
    """

    def __init__(self, parts: Sequence[Part], close_store: Callable[[], None]) -> None:
        self._parts = tuple(parts)
        self._close_store = close_store
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self.trouble: str | None = None

    async def start(self) -> None:
        """Exchange once, and go on until `close`."""
        await self.exchange()
        self._task = asyncio.create_task(self._run(), name="shared-sync")

    async def exchange(self, *, is_last: bool = False) -> None:
        """Exchange all parts. After a failure the rest waits for the next time: the store has no time to lose."""
        async with self._lock:
            for part in self._parts:
                run = part.leave() if is_last else part.begin()
                try:
                    finish = await asyncio.to_thread(run)
                except StoreFailed as exc:
                    part.fail()
                    if self.trouble is None:
                        log.warning("shared.store_failed", why=exc.message)
                    self.trouble = exc.message
                    return
                finish()
            if self.trouble is not None:
                log.info("shared.store_recovered")
                self.trouble = None

    async def close(self) -> None:
        """Exchange what is left."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.exchange(is_last=True)
        await asyncio.to_thread(self._close_store)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EXCHANGE_S)
            try:
                # Not cancelled within an exchange, whose result would be lost.
                await asyncio.shield(self.exchange())
            except Exception:  # a bug in one part must not end the exchange for good
                log.error("shared.crashed", exc_info=True)
