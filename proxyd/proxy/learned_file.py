"""File of the quirks and windows learned from refusals, ``learned.json`` in the state folder.

It holds digests of entries, quirks, sizes and dates; nothing of a key or a prompt.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from time import time

from proxyd import jsonio
from proxyd.config.paths import replace_private_file
from proxyd.logs.setup import get_logger
from proxyd.providers.learned_quirks import LearnedQuirkStore

__all__ = ["FILE", "LearnedQuirkFile", "read_learned"]

#: In the state folder.
FILE = "learned.json"
_MAX_BYTES = 4 << 20

log = get_logger("relay")


class LearnedQuirkFile:
    """What a daemon has learned, and its file.

    Args:
        path: of the file; None keeps them in memory alone.

    Attributes:
        changes: how often calls have changed it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.store = LearnedQuirkStore() if path is None else read_learned(path)
        self.changes = 0
        self._document = b""
        self._writing = threading.Lock()

    def save(self) -> None:
        """Note a change, and write the file. It is rarely called: a thing is learned once."""
        self.changes += 1
        self.write()

    def write(self) -> None:
        """Write the file in a thread."""
        if self._path is not None:
            self._document = jsonio.dumps(self.store.to_document())
            asyncio.get_running_loop().run_in_executor(None, self._write, self._path)

    def _write(self, path: Path) -> None:
        try:
            with self._writing:
                replace_private_file(path, self._document)
        except OSError as exc:
            log.warning("learned.not_saved", file=str(path), why=exc.strerror)


def read_learned(path: Path) -> LearnedQuirkStore:
    """Read the file; one that is missing or invalid gives an empty store, which is soon learned again."""
    store = LearnedQuirkStore()
    try:
        with path.open("rb") as file:
            store.load(jsonio.loads(file.read(_MAX_BYTES)), time())
    except FileNotFoundError:
        pass
    except (OSError, jsonio.JSONError) as exc:
        log.warning("learned.not_read", file=str(path), why=str(exc))
    return store
