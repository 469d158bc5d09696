"""Garbage-collection policy: when to run a full collection, which pauses every open stream, and how much freed memory
malloc keeps (docs/spec/operations.md#a8).

CPython collects young objects often, which takes a millisecond or two, and all objects now and then, which takes up to
90 ms while 200 parsed requests of 140 KB are open. A full collection frees only reference cycles, and a call leaves
none (`tests/integration/proxy/test_reference_cycles.py`), though a hook or a library may, and asyncio leaves one of
five objects for each connection that closes: its transport refers to its own methods. So automatic full collections
are off; one runs when the daemon is idle and has allocated enough, when many old objects have been added since the
last one, and every ten minutes otherwise. What exists at the start is permanent and left out of all collections.

After a burst of calls malloc keeps what they freed between blocks that are in use: 230 MB after a thousand clients that
read slowly. When most of a burst is over, a thread returns it to the system.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from time import monotonic

__all__ = ["CollectionPolicy", "keep_freed_memory"]

#: Allocations between young collections. CPython's default of 700 is one small call's: this saves 3 % of it.
_YOUNG_THRESHOLD = 2000
#: A threshold that is never reached.
_NEVER = 1 << 30
#: Collections of the middle generation, some 20 000 objects each, that make a full one worthwhile.
_WORTHWHILE = 7
#: Seconds between full collections of a daemon that is never idle.
_INTERVAL_S = 600.0
#: Seconds between counts of the old objects. A count takes 1.4 ms for 50 000 objects, 49 ms for a million.
_COUNT_INTERVAL_S = 30.0
#: So many more old objects since the last full collection make one due: 12 MB of closed connections.
_MOST_NEW_OBJECTS = 50_000
#: With more than this in waiting requests, whose parsed form a full collection would traverse, they are not counted.
_MOST_WAITING_BYTES = 8 << 20
#: Four calls of 140 KB at once have no more than twice as much in use.
_KEPT_BYTES = 2 << 20
#: A burst is this many calls at once, or MiB of waiting requests. It is over when a quarter of either is left.
_BURST_CALLS, _BURST_MIB, _LEFT = 100, 32, 4


def keep_freed_memory() -> None:
    """Make malloc keep up to 4 MiB that calls have freed for the calls that follow.

    glibc maps each block above a threshold separately, and returns the top of its heap when more than twice as much is
    free there (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). It starts at 128 KiB, less than one request of
    Claude Code's, so that each call had 20 to 50 pages mapped and cleared. It rises to the size of the largest mapped
    block that was freed. Other C libraries are not affected.
    """
    block = bytes(_KEPT_BYTES)  # none of it is touched
    del block


def _return_freed_memory() -> None:
    """Make malloc return free memory beyond `_KEPT_BYTES` to the system, where it can (glibc)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(ctypes.c_size_t(2 * _KEPT_BYTES))


def _count_old_objects() -> int:
    """Count what full collections alone traverse."""
    return len(gc.get_objects(generation=2))


class CollectionPolicy:
    """Controls the collector from `start` to `stop`; `check` is called twice a second.

    Args:
        waiting_bytes: the size of the requests that wait for the first byte of a response.
        open_calls: how many calls are open.
        most_bytes: the largest size of all requests that were held at once since its last call.
        now: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        waiting_bytes: Callable[[], int],
        open_calls: Callable[[], int],
        most_bytes: Callable[[], int] = int,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._waiting_bytes = waiting_bytes
        self._open_calls = open_calls
        self._most_bytes = most_bytes
        self._now = now
        self._collected_at = self._counted_at = now()
        self._fewest_objects = 0  # old ones, since the last full collection
        self._thresholds: tuple[int, int, int] | None = None
        self._most_calls = self._most_mib = 0  # since memory was returned

    def start(self) -> None:
        keep_freed_memory()
        gc.freeze()
        self._thresholds = _, middle, _ = gc.get_threshold()
        gc.set_threshold(_YOUNG_THRESHOLD, middle, _NEVER)
        self._collected_at = self._counted_at = self._now()

    def stop(self) -> None:
        """Restore the interpreter's own thresholds."""
        if self._thresholds is not None:
            gc.set_threshold(*self._thresholds)
            self._thresholds = None

    def check(self) -> None:
        """Run a full collection, and return memory to the system, when it is time."""
        if self._thresholds is None:
            return
        open_calls = self._open_calls()
        self._return_memory(open_calls, max(self._most_bytes(), self._waiting_bytes()) >> 20)
        is_worthwhile = not open_calls and gc.get_count()[2] >= _WORTHWHILE
        if is_worthwhile or self._has_many_new_objects() or self._now() - self._collected_at >= _INTERVAL_S:
            gc.collect()
            self._fewest_objects = _count_old_objects()
            self._collected_at = self._counted_at = self._now()

    def _has_many_new_objects(self) -> bool:
        """Whether many old objects, and more than a quarter, have been added since there were fewest of them."""
        is_due = self._now() - self._counted_at >= _COUNT_INTERVAL_S
        if not is_due or self._waiting_bytes() > _MOST_WAITING_BYTES:
            return False
        self._counted_at = self._now()
        count = _count_old_objects()
        self._fewest_objects = min(self._fewest_objects, count)
        return count - self._fewest_objects > max(_MOST_NEW_OBJECTS, self._fewest_objects // 4)

    def _return_memory(self, calls: int, mib: int) -> None:
        self._most_calls = max(self._most_calls, calls)
        self._most_mib = max(self._most_mib, mib)
        if self._most_calls < _BURST_CALLS and self._most_mib < _BURST_MIB:
            return
        if calls * _LEFT <= self._most_calls and mib * _LEFT <= self._most_mib:
            self._most_calls, self._most_mib = calls, mib
            # In a thread: it takes tens of milliseconds and does not need the interpreter's lock.
            threading.Thread(target=_return_freed_memory, name="return memory", daemon=True).start()
