"""Reopening of a log file that was rotated (docs/spec/operations.md#a5).

The daemon writes to stderr. Where stderr is a file, it has to be opened again by name after it was moved.
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
    """The file behind stderr. Its name is read once, at the start, because a file that was moved has another one."""

    def __init__(self) -> None:
        self._path = _path_of(2)

    def reopen(self) -> None:
        """Redirect stderr, and stdout if it is the same file, to a new file of that name."""
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
    """The path of an open regular file; None where it has none or the system does not know it."""
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            return None
        if sys.platform == "darwin":
            import fcntl

            name = fcntl.fcntl(descriptor, fcntl.F_GETPATH, b"\0" * 1024).rstrip(b"\0").decode()
        else:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
        named = os.stat(name)
    except OSError:
        return None
    return Path(name) if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) else None
