"""Rotation of the log file, and reopening of one that another program has rotated (docs/spec/operations.md#a5).

The daemon writes to stderr. Where stderr is a file, it has to be opened again by name after it was moved. A file that
the daemon was given for its log, by ``claude-proxy start`` or launchd, is rotated by the daemon itself; a file to which
a user has redirected stderr is left to the user.
"""

from __future__ import annotations

import itertools
import os
import stat
import sys
from pathlib import Path

from proxyd.logs.setup import call_after_writes, get_logger

__all__ = ["KEPT_FILES", "MAX_BYTES", "LogFile", "rotate_files", "rotate_when_large"]

log = get_logger("logs")

#: A log file that has reached this size is rotated.
MAX_BYTES = 10 << 20
#: How many rotated files are kept: NAME.1, the newest, to NAME.5.
KEPT_FILES = 5


def rotate_when_large() -> None:
    """Rotate the file behind stderr from now on, whenever it has reached `MAX_BYTES`."""
    call_after_writes(LogFile().rotate_if_large)


def rotate_files(path: Path) -> None:
    """Rename `path` to NAME.1, NAME.1 to NAME.2 and so on; the last of `KEPT_FILES` is replaced.

    Raises:
        OSError: a file cannot be renamed.
    """
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT_FILES + 1))]
    for newer, older in reversed(list(itertools.pairwise(names))):
        if newer.exists():
            newer.replace(older)


class LogFile:
    """The file behind stderr. Its name is read once, at the start, because a file that was moved has another one."""

    def __init__(self) -> None:
        self._path = _path_of(2)

    def rotate_if_large(self) -> None:
        """Rotate the file if it has reached `MAX_BYTES`; called by the writer thread."""
        if self._path is None:
            return
        try:
            opened = os.fstat(2)
            if opened.st_size < MAX_BYTES:
                return
            if _is_same(self._path, opened):  # else another daemon that writes to it was faster
                rotate_files(self._path)
        except OSError as exc:
            log.error("logs.not_rotated", file=str(self._path), why=exc.strerror)
            self._path = None
            return
        self.reopen()

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
    except OSError:
        return None
    return Path(name) if _is_same(Path(name), opened) else None


def _is_same(path: Path, opened: os.stat_result) -> bool:
    """Whether `path` is the name of an open file."""
    try:
        named = path.stat()
    except OSError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
