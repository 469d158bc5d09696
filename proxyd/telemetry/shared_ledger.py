"""The ledger of all daemons that share a PostgreSQL database, for the queries of `proxyd.telemetry.ledger_queries`."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from proxyd.config.database_url import DatabaseUrl
from proxyd.store.interface import StoreFailed
from proxyd.store.postgres_database import PostgresDatabase
from proxyd.telemetry.ledger_queries import LedgerUnreadable

__all__ = ["SharedLedger"]


class SharedLedger:
    """Runs queries; it connects with the first one. Used by one thread at a time."""

    def __init__(self, url: DatabaseUrl, *, timeout_s: float = 10.0) -> None:
        self._database = PostgresDatabase(url, timeout_s=timeout_s)

    def rows(self, query: str, parameters: Sequence[int | float | str | None]) -> list[dict[str, Any]]:
        """Run a query whose parameters are marked by ``?``.

        Raises:
            LedgerUnreadable: the database cannot be used.
        """
        parts = query.split("?")
        numbered = "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]

        async def read(connection: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in await connection.fetch(numbered, *parameters)]

        try:
            found = self._database.run(read)
        except StoreFailed as exc:
            raise LedgerUnreadable(exc.message) from None
        return [{name: _plain(value) for name, value in row.items()} for row in found]

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


def _plain(value: Any) -> Any:
    """Convert a sum of integers, for which PostgreSQL has a type of any length."""
    return int(value) if isinstance(value, Decimal) else value
