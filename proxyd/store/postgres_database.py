"""A PostgreSQL database for callers that block: one connection, in a thread with an event loop of its own.

The daemon's event loop, which the streams need, neither waits for the database nor decodes what it sends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from proxyd.config.database_url import DatabaseUrl
from proxyd.redaction import masked
from proxyd.store.interface import StoreFailed
from proxyd.store.postgres_schema import NewerDatabase, migrate

__all__ = ["CHANGED", "PostgresDatabase"]

T = TypeVar("T")

#: The channel on which a change of keys and teams is announced.
CHANGED = "claude_proxy_directory"
#: Shown in pg_stat_activity.
_NAME = "claude-proxy"


class PostgresDatabase:
    """Runs transactions. Used by one thread at a time.

    Args:
        timeout_s: for a transaction, the connection and the migrations included.
        on_change: called, in the thread of this object, when another connection has announced `CHANGED`.
    """

    def __init__(
        self, url: DatabaseUrl, *, timeout_s: float, on_change: Callable[[], None] | None = None
    ) -> None:
        self._url, self._timeout_s, self._on_change = url, timeout_s, on_change
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: Any = None

    def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run `work` on the connection, within one transaction, and wait for its result.

        Raises:
            StoreFailed: it failed. Where only the answer to the commit was lost, its work is done nevertheless.
        """
        try:
            return self._submit(self._in_transaction(work)).result()
        except (asyncio.TimeoutError, TimeoutError):
            raise self._failure(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, ValueError, NewerDatabase) as exc:
            raise self._failure(str(exc) or type(exc).__name__) from None
        except Exception as exc:
            if not _is_of_the_driver(exc):
                raise
            raise self._failure(str(exc) or type(exc).__name__) from None

    def close(self) -> None:
        """Close the connection and end the thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            self._submit(asyncio.wait_for(self._disconnect(), self._timeout_s)).result()
        except Exception:
            self._drop()
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="postgres", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    # -- in the thread

    async def _in_transaction(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await asyncio.wait_for(self._run(work), self._timeout_s)
        except BaseException:
            # Whatever state it is in, the next transaction begins with a new one.
            self._drop()
            raise

    async def _run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        async with self._connection.transaction():
            return await work(self._connection)

    async def _connect(self) -> Any:
        import asyncpg

        connection = await asyncpg.connect(
            self._url.reveal(),
            timeout=self._timeout_s,
            # A balancer of connections such as PgBouncer gives each transaction another session.
            statement_cache_size=0,
            server_settings={
                "application_name": _NAME,
                # The server ends what we no longer wait for.
                "statement_timeout": str(int(self._timeout_s * 1000)),
                "idle_in_transaction_session_timeout": str(int(self._timeout_s * 2000)),
            },
        )
        try:
            await migrate(connection)
            if self._on_change is not None:
                await connection.add_listener(CHANGED, self._changed)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _changed(self, *_: object) -> None:
        if self._on_change is not None:
            self._on_change()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _failure(self, why: str) -> StoreFailed:
        return StoreFailed(f"the store {self._url} cannot be used ({masked(why)})")


def _is_of_the_driver(exc: Exception) -> bool:
    import asyncpg

    return isinstance(exc, (asyncpg.PostgresError, asyncpg.InterfaceError))
