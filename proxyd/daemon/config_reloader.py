"""Another configuration while calls are in flight: when it is read, and that a bad one changes nothing.

A reload is asked for by SIGHUP, or by saving the file. Reading happens in a thread, one at a time, since a large
models.yaml takes seconds and the streams go on; what was read is put in force on the loop in one step
(docs/spec/operations.md#a4). Requests that come while one is being read make one more reading, not many.

The file is watched by asking for its modification time: that works on every file system and through every way in which
editors save, and costs one system call a poll.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from proxyd.errors import ConfigError
from proxyd.logs.setup import get_logger

__all__ = ["POLL_S", "Reloader"]

#: Seconds between two looks at the files. A change is taken over when it is the same at two looks: editors and sync
#: tools write in several steps, and half a file would be reported as broken.
POLL_S = 0.5

log = get_logger("reloading")

T = TypeVar("T")


class Reloader(Generic[T]):
    """Reads a configuration again whenever asked.

    Args:
        load: reads it; runs in a thread. Raises `ConfigError`.
        apply: puts it in force; runs on the loop.
        reject: is told what was wrong with it.
    """

    def __init__(
        self, load: Callable[[], T], apply: Callable[[T], None], reject: Callable[[ConfigError], None]
    ) -> None:
        self._load, self._apply, self._reject = load, apply, reject
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_asked_again = False

    def request(self) -> None:
        """Read it soon. What has been saved before this call is seen by that reading."""
        if self._reading is not None and not self._reading.done():
            self._is_asked_again = True
        else:
            self._reading = asyncio.ensure_future(self._read())

    def watch(self, paths: Sequence[Path], poll_s: float = POLL_S) -> None:
        """Ask for a reading whenever one of `paths` has changed."""
        before = [
            _stamp(path) for path in paths
        ]  # now, not when the task first runs: a save may come between
        self._watching = asyncio.ensure_future(self._watch(paths, before, poll_s))

    async def close(self) -> None:
        """Stop watching; a reading that is under way is let go."""
        tasks = [task for task in (self._reading, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            self._is_asked_again = False
            try:
                loaded = await asyncio.to_thread(self._load_uncollected)
            except ConfigError as exc:
                self._reject(exc)
            except Exception:  # a bug in the reader must not end the watch
                log.error("config.crashed", exc_info=True)
            else:
                self._apply(loaded)
            if not self._is_asked_again:
                return

    def _load_uncollected(self) -> T:
        """Read it with the garbage collector at rest: a parsed YAML document is a hundred thousand objects, which it
        would look through again and again while every stream waits. They hold no cycles, and go with the reading.
        """
        was_on = gc.isenabled()
        gc.disable()
        try:
            return self._load()
        finally:
            if was_on:
                gc.enable()

    async def _watch(
        self, paths: Sequence[Path], in_force: list[tuple[int, int, int] | None], poll_s: float
    ) -> None:
        before = in_force
        while True:
            await asyncio.sleep(poll_s)
            now = [_stamp(path) for path in paths]
            # A file that is gone is on its way to be replaced, or was removed: either way there is nothing to read.
            if now == before != in_force and now[0] is not None:
                in_force = now
                self.request()
            before = now


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is saved, whichever way; None where there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
