"""The exchange of virtual keys and their usage with the store, once a second, in a thread."""

from __future__ import annotations

import asyncio

from proxyd.proxy.key_ring import KeyRing
from proxyd.store.interface import KeyStore, StoreFailed

__all__ = ["EXCHANGE_S", "KeySync"]

#: A revoked key is refused, and usage of another daemon counts, after this long at most.
EXCHANGE_S = 1.0


class KeySync:
    """Keeps a `KeyRing` and a store equal.

    Args:
        store: used by one thread at a time.
    """

    def __init__(self, ring: KeyRing, store: KeyStore) -> None:
        self._ring, self._store = ring, store
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

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
            await asyncio.sleep(EXCHANGE_S)
            # Not cancelled within an exchange, whose result would be lost.
            await asyncio.shield(self.exchange())
