"""A log file that was moved away is opened anew (docs/spec/operations.md#a5).

The daemon writes to stderr and knows of no file; whoever started it may have sent stderr into one, and may rotate it.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from proxyd.logs.setup import get_logger

__all__ = ["LogFile"]

log = get_logger("logs")


class LogFile:
    """The file behind stderr, by the name that it has now; afterwards only its descriptor is known."""

    def __init__(self) -> None:
        self._path = _path_of(2)

    def reopen(self) -> None:
        """Send stderr, and stdout if it goes there too, to a file of the same name."""
        if self._path is None:
            log.info("logs.not_reopened", why="stderr is not a file")
            return
        try:
            new = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as exc:
            log.error("logs.not_reopened", file=str(self._path), why=exc.strerror)
            return
        try:
            sys.stderr.flush()
            if os.path.sameopenfile(1, 2):
                os.dup2(new, 1)
            os.dup2(new, 2)
        finally:
            os.close(new)
        log.info("logs.reopened", file=str(self._path))


def _path_of(descriptor: int) -> Path | None:
    """The name of an open regular file; None where it has none, or the system does not tell."""
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            return None
        if sys.platform == "darwin":
            import fcntl

            name = fcntl.fcntl(descriptor, fcntl.F_GETPATH, b"\0" * 1024).rstrip(b"\0").decode()
        else:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
        found = os.stat(name)
    except OSError:
        return None
    return Path(name) if (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino) else None
