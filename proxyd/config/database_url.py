"""The address of a PostgreSQL database, whose password is never printed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from proxyd.config.secrets import read_credential
from proxyd.secret import Secret

__all__ = ["SQLITE", "DatabaseUrl", "has_password", "parse_database_url", "read_store"]

#: The value that stands for files in the state folder.
SQLITE = "sqlite"
_SCHEMES = ("postgresql", "postgres")


class DatabaseUrl:
    """An address with its credentials. ``repr`` and ``str`` show user, host and database only.

    Args:
        url: as `parse_database_url` has checked it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self._url = Secret(url)
        # Held because each `Secret` is masked in all output for as long as it is in use.
        passwords = {parts.password, unquote(parts.password or ""), query.get("password")}
        self._passwords = [Secret(each) for each in passwords if each]
        user = parts.username or query.get("user")
        place = (parts.netloc.rpartition("@")[2] or query.get("host", "")) + parts.path
        self._shown = f"postgresql://{f'{user}@' if user else ''}{place}"

    def reveal(self) -> str:
        """Return the whole address, for the driver."""
        return self._url.reveal()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseUrl) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __repr__(self) -> str:
        return self._shown

    __str__ = __repr__


def has_password(text: str) -> bool:
    """Return whether a text is an address with a password in it."""
    try:
        parts = urlsplit(text)
        return bool(parts.password or dict(parse_qsl(parts.query)).get("password"))
    except ValueError:
        return False


def parse_database_url(text: str) -> DatabaseUrl:
    """Read ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``.

    Raises:
        ValueError: it is none, or the driver is not installed. The message holds no part of `text`.
    """
    expected = "expected sqlite, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in _SCHEMES and (parts.port is None or parts.port > 0)
        host = parts.hostname or dict(parse_qsl(parts.query)).get("host")
    except ValueError:  # of the port, or of a bracketed host; its message repeats them
        raise ValueError(f"{expected}; the host or the port cannot be read") from None
    if not is_one:
        raise ValueError(expected)
    if not host or not parts.path.strip("/"):
        raise ValueError(f"{expected}; there is no {'database' if host else 'host'} in it")
    if importlib.util.find_spec("asyncpg") is None:
        raise ValueError("PostgreSQL needs the driver asyncpg: pip install 'claude-proxyd[postgres]'")
    return DatabaseUrl(text)


def read_store(text: str, environ: Mapping[str, str], folder: Path) -> DatabaseUrl | None:
    """Read the setting ``store``, an address or a reference to one; None stands for SQLite.

    Raises:
        ValueError: it is neither; the message holds no part of an address.
    """
    if text.strip() == SQLITE:
        return None
    credential = read_credential(text, environ, folder)
    if credential.secret is None:
        raise ValueError(str(credential.missing))
    value = credential.secret.reveal()
    return None if value == SQLITE else parse_database_url(value)
