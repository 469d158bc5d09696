"""The exchange of virtual keys and their usage with the store, in a thread: twice a second, and when it has news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxyd.proxy.key_ring import KeyRing
from proxyd.store.interface import KeyStore, StoreFailed

__all__ = ["EXCHANGE_S", "KeySync"]

#: A revoked key is refused after this long at most. Usage of another daemon counts after twice as long: it comes with
#: that daemon's next exchange, and is seen by ours after it.
EXCHANGE_S = 0.5


class KeySync:
    """Keeps a `KeyRing` and a store equal.

    Args:
        open_store: opens the store, which is used by one thread at a time; gets what the store may call, from any
            thread, when another process has changed keys.
    """

    def __init__(self, ring: KeyRing, open_store: Callable[[Callable[[], None]], KeyStore]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._has_news = asyncio.Event()
        self._store = open_store(self._on_news)
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def _on_news(self) -> None:
        """Exchange at once; called from the store's thread."""
        self._loop.call_soon_threadsafe(self._has_news.set)

    async def start(self) -> None:
        """Read the keys, and go on exchanging until `close`."""
        await self.exchange()
        self._task = asyncio.create_task(self._run(), name="key-sync")

    async def exchange(self) -> None:
        """Exchange once. A failure is reported by the ring, and what was not stored is kept."""
        async with self._lock:  # the last exchange may come while another one still runs
            exchange = self._ring.begin_exchange()
            try:
                await asyncio.to_thread(exchange.run, self._store)
            except StoreFailed as exc:
                self._ring.end_exchange(exchange, exc)
            else:
                self._ring.end_exchange(exchange)

    async def close(self) -> None:
        """Store what is left."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.exchange()
        await asyncio.to_thread(self._store.close)

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._has_news.wait(), EXCHANGE_S)
            except asyncio.TimeoutError:
                pass
            self._has_news.clear()
            # Not cancelled within an exchange, whose result would be lost.
            await asyncio.shield(self.exchange())
