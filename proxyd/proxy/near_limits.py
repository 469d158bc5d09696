"""File of the limits that are nearly used up, ``near-limits.json`` in the state folder, for the status line.

A status line is a new process every few seconds, in the environment of Claude Code. It has neither the time to ask a
database nor always its address, so the daemon, which knows the usage, writes what is to be shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxyd import jsonio
from proxyd.config.paths import replace_private_file
from proxyd.logs.setup import get_logger
from proxyd.store.interface import Window
from proxyd.store.limits import described_limits
from proxyd.store.virtual_keys import Directory, Spent, Team, VirtualKey

if TYPE_CHECKING:
    from proxyd.proxy.key_ring import KeyRing

__all__ = ["FILE", "NearLimitsFile", "read_near_limits"]

#: In the state folder.
FILE = "near-limits.json"

log = get_logger("keys")


class NearLimitsFile:
    """Keeps the file up to date.

    Args:
        now: Unix time.
    """

    def __init__(self, ring: KeyRing, path: Path, now: Callable[[], float] = time.time) -> None:
        self._ring, self._path, self._now = ring, path, now
        #: None until it is known what the file has.
        self._document: bytes | None = None

    def begin(self) -> Callable[[], Callable[[], None]]:
        (directory, usage), now = self._ring.snapshot(), self._now()

        def write() -> Callable[[], None]:
            # In the thread, since the calendar of a thousand limits takes its time.
            document = jsonio.dumps(_document_of(directory, usage, now))
            if document != self._document:
                try:
                    replace_private_file(self._path, document)
                except OSError as exc:
                    log.warning("limits.not_saved", file=str(self._path), why=exc.strerror)
                self._document = document
            return lambda: None

        return write

    def leave(self) -> Callable[[], Callable[[], None]]:
        return self.begin()

    def fail(self) -> None:
        """Never needed: no store is asked."""


def read_near_limits(path: Path, key: str, team: str | None, now: float) -> list[str]:
    """Return what the status line shows to the holder of a key: ``alice: 80% of $20.00 a day``."""
    try:
        document: Any = jsonio.loads(path.read_bytes())
        found = (("keys", key), ("teams", team))
        return [
            f"{name}: {limit['text']}"
            for kind, name in found
            for limit in document[kind].get(name, ())
            if limit["resets_at"] > now
        ]
    except (OSError, jsonio.JSONError, LookupError, TypeError, AttributeError):
        return []  # there is none, or it is that of another version


def _document_of(directory: Directory, usage: Mapping[Window, Spent], now: float) -> dict[str, Any]:
    return {
        "keys": _near_of((key for key in directory.keys if key.state_at(now) == "active"), usage, now),
        "teams": _near_of(directory.teams, usage, now),
    }


def _near_of(
    holders: Iterable[VirtualKey | Team], usage: Mapping[Window, Spent], now: float
) -> dict[str, list[dict[str, Any]]]:
    found = {
        holder.name: [
            {"text": f"{limit['share']:.0%} of {limit['limit']}", "resets_at": limit["resets_at"]}
            for limit in described_limits(holder, usage, now)
            if limit["is_near"] and limit["period"] != "minute"
        ]
        for holder in holders
    }
    return {name: limits for name, limits in found.items() if limits}
