"""Reloads the configuration while calls are in flight; an invalid one changes nothing.

SIGHUP or a change of a watched file requests a reload. The files are read in a thread, since a large models.yaml takes
seconds, and the result is applied on the loop in one step (docs/spec/operations.md#a4). Requests that arrive during a
reload cause one more, not one each.

Files are watched by polling their modification time, which works on every file system and with every editor.
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

#: Seconds between two polls. A change counts once two polls see the same state: editors and sync tools write in
#: several steps, and half a file would be rejected.
POLL_S = 0.5

log = get_logger("reloading")

T = TypeVar("T")
_Stamps = list[tuple[Path, "tuple[int, int, int] | None"]]


class Reloader(Generic[T]):
    """Runs the reloads, one at a time.

    Args:
        load: reads the configuration; runs in a thread. Raises `ConfigError`.
        apply: puts it in force; runs on the loop.
        reject: is called with the error of an invalid one.
    """

    def __init__(
        self, load: Callable[[], T], apply: Callable[[T], None], reject: Callable[[ConfigError], None]
    ) -> None:
        self._load, self._apply, self._reject = load, apply, reject
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_requested_again = False

    def request(self) -> None:
        """Reload soon. Files saved before this call are read in their new state."""
        if self._reading is not None and not self._reading.done():
            self._is_requested_again = True
        else:
            self._reading = asyncio.ensure_future(self._read())

    def watch(self, paths: Callable[[], Sequence[Path]], poll_s: float = POLL_S) -> None:
        """Request a reload whenever one of the files has changed, or another one is there.

        Args:
            paths: returns the files to watch now; the first one is required for a reload.
        """
        before = _current_stamps(paths)  # here, since a save may precede the task's first run
        self._watching = asyncio.ensure_future(self._watch(paths, before, poll_s))

    async def close(self) -> None:
        """Stop watching; the result of a reload in progress is dropped."""
        tasks = [task for task in (self._reading, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            self._is_requested_again = False
            try:
                loaded = await asyncio.to_thread(self._load_without_gc)
            except ConfigError as exc:
                self._reject(exc)
            except Exception:  # a bug in `load` must not end the watch
                log.error("config.crashed", exc_info=True)
            else:
                self._apply(loaded)
            if not self._is_requested_again:
                return

    def _load_without_gc(self) -> T:
        """Read it with garbage collection disabled.

        A parsed YAML document is a hundred thousand objects, which would be traversed again and again while every
        stream waits. They hold no reference cycles.
        """
        was_on = gc.isenabled()
        gc.disable()
        try:
            return self._load()
        finally:
            if was_on:
                gc.enable()

    async def _watch(self, paths: Callable[[], Sequence[Path]], in_force: _Stamps, poll_s: float) -> None:
        before = in_force
        while True:
            await asyncio.sleep(poll_s)
            now = await asyncio.to_thread(_current_stamps, paths)  # a folder on a slow disk must not block
            # A required file that is missing was removed or is about to be replaced: there is nothing to read.
            if now == before != in_force and now[0][1] is not None:
                in_force = now
                self.request()
            before = now


def _current_stamps(paths: Callable[[], Sequence[Path]]) -> _Stamps:
    return [(path, _stamp(path)) for path in paths()]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return values of which one changes when the file is saved; None if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
