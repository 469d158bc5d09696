"""Which store holds the virtual keys, by the setting ``store``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from proxyd.config.database_url import DatabaseUrl
from proxyd.store.interface import KeyStore
from proxyd.store.sqlite import FILE, SqliteKeyStore

if TYPE_CHECKING:
    from proxyd.store.postgres import PostgresKeyStore

__all__ = ["open_key_store", "open_shared_store"]

#: For a command, which may wait longer than a daemon that keeps usage meanwhile.
_COMMAND_TIMEOUT_S = 10.0


def open_key_store(
    url: DatabaseUrl | None, state_folder: Path, *, on_change: Callable[[], None] | None = None
) -> KeyStore:
    """Open the store at `url`, or the one in the state folder. It connects when it is first used.

    Args:
        on_change: makes it the store of a daemon; called, in another thread, when another process has changed keys.
            SQLite does not tell, and is asked twice a second.
    """
    if url is None:
        return SqliteKeyStore(state_folder / FILE)
    from proxyd.store.postgres import PostgresKeyStore
    from proxyd.store.spool import FOLDER

    if on_change is None:
        return PostgresKeyStore(url, timeout_s=_COMMAND_TIMEOUT_S)
    return PostgresKeyStore(url, state_folder / FOLDER, on_change=on_change)


def open_shared_store(url: DatabaseUrl) -> PostgresKeyStore:
    """Open the store at `url` for what daemons share beside keys. It connects when it is first used."""
    from proxyd.store.postgres import PostgresKeyStore

    return PostgresKeyStore(url)
