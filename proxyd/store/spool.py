"""Usage that could not be stored, in a file, and what of it the database may have nevertheless.

::

    amounts = what the caller still has to store     given again with each try, with what has come since
    applied   of them, what the database is known to have
    attempt   of them, what was sent last, under `number`; it has taken effect if the database has seen that number

Each sender has a file of its own in the folder, made when it first has something to keep, and holds a lock while it
runs. Files whose sender is gone are sent by the next one. A file has one sum for each owner and period; those of
minutes are left out, since they are over before it is read again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from proxyd.config.paths import make_private_folder, replace_private_file
from proxyd.logs.setup import get_logger
from proxyd.store.interface import Window
from proxyd.store.virtual_keys import Spent

__all__ = ["FOLDER", "Spool", "waiting"]

log = get_logger("keys")

#: The folder's name in the state folder.
FOLDER = "waiting-usage"


class Spool:
    """What one sender has sent and not stored.

    Args:
        folder: of the files; None for a process that keeps none.
    """

    def __init__(self, folder: Path | None, sender: str) -> None:
        self.sender = sender
        self.amounts: dict[Window, Spent] = {}
        self._folder = folder
        self._number = 0
        self._applied: dict[Window, Spent] = {}
        self._attempt: dict[Window, Spent] = {}
        self._lock: int | None = None

    def left_of(self, amounts: Mapping[Window, Spent], seen: int | None) -> dict[Window, Spent]:
        """Return what of `amounts` is to be sent.

        Args:
            seen: the last number of this sender that the database has.
        """
        if self._attempt and seen == self._number:
            for window, spent in self._attempt.items():
                self._applied[window] = self._applied.get(window, Spent()) + spent
            self._attempt = {}
        found = {window: spent - self._applied.get(window, Spent()) for window, spent in amounts.items()}
        return {window: spent for window, spent in found.items() if spent != Spent()}

    def begin(self, left: dict[Window, Spent]) -> int:
        """Return the number under which `left` is sent."""
        self._number += 1
        self._attempt = left
        return self._number

    def keep(self, amounts: Mapping[Window, Spent]) -> None:
        """Write what was not stored, or may not be."""
        if self._folder is None or not amounts:
            return
        state = {
            "sender": self.sender,
            "number": self._number,
            "amounts": _as_rows(amounts),
            "applied": _as_rows(self._applied),
            "attempt": _as_rows(self._attempt),
        }
        try:
            if self._lock is None:
                make_private_folder(self._folder)
                self._lock = _locked(self._path(".lock"))
            replace_private_file(self._path(".json"), json.dumps(state).encode())
        except OSError as exc:
            log.warning("keys.spool_failed", why=f"{self._path('.json')} cannot be written ({exc})")

    def clear(self) -> None:
        """Forget what was sent: it is stored."""
        self._applied, self._attempt = {}, {}
        if self._lock is not None and self._folder is not None:
            self._path(".json").unlink(missing_ok=True)
            self._path(".lock").unlink(missing_ok=True)
            self.release()

    def release(self) -> None:
        """Leave the file, if there is one, to the next sender."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def take(self) -> bool:
        """Take over what a sender that is gone has left; false where it is not gone, or its file cannot be read."""
        assert self._folder is not None, "it was found in a folder"
        lock = _locked(self._path(".lock"))
        if lock is None:
            return False
        self._lock = lock
        try:
            state = json.loads(self._path(".json").read_bytes())
            self._number = int(state["number"])
            self.amounts = _of_rows(state["amounts"])
            self._applied = _of_rows(state["applied"])
            self._attempt = _of_rows(state["attempt"])
        except FileNotFoundError:
            self.clear()
            return False
        except (OSError, ValueError, KeyError, TypeError) as exc:
            log.warning("keys.spool_unreadable", why=f"{self._path('.json')} cannot be read ({exc})")
            self.release()
            return False
        return True

    def _path(self, suffix: str) -> Path:
        assert self._folder is not None, "only a spool with a folder has files"
        return self._folder / f"{self.sender}{suffix}"


def waiting(folder: Path) -> Iterator[Spool]:
    """Give what senders that are gone have left in the folder; each is then held by this process."""
    for path in sorted(folder.glob("*.json")):
        spool = Spool(folder, path.stem)
        if spool.take():
            yield spool


def _locked(path: Path) -> int | None:
    """Open and lock a file; None if another process has locked it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _as_rows(amounts: Mapping[Window, Spent]) -> list[list[object]]:
    return [
        [*window, spent.usd, spent.tokens, spent.calls]
        for window, spent in amounts.items()
        if window[1] != "minute"
    ]


def _of_rows(rows: list[list[object]]) -> dict[Window, Spent]:
    found = {}
    for owner, period, start, usd, tokens, calls in rows:
        window = str(owner), str(period), int(str(start))
        found[window] = Spent(float(str(usd)), int(str(tokens)), int(str(calls)))
    return found
