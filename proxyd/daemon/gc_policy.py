"""When the whole heap is searched for garbage, which holds up every stream meanwhile (docs/spec/operations.md#a8),
and how much of what is freed is kept for the next call.

CPython searches new objects often, which takes a millisecond or two, and all of them now and then, by how many have
come since. How long that takes goes by how many there are: 90 ms for 200 parsed requests of 140 KB that wait for
their upstreams, a tenth of a millisecond for each stream that is open. What is found only there are rings, and a
call leaves none, however it ends (`tests/integration/proxy/test_reference_cycles.py`): there may be some of a
hook's, or of a library's, and on Python 3.10 of a task that was cancelled. So it is searched for when little waits
and few calls are open, the more there is the more rarely, and not at all with hundreds.

What there is at the start stays for ever and is left out of all that.

After a burst of calls the C library keeps what they have freed, where it lies between blocks that are in use: 230 MB
after a thousand clients that read slowly. Once most of a burst is over, a thread gives that back to the system.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable

__all__ = ["CollectionPolicy", "keep_freed_memory"]

#: New objects after which they are searched. The interpreter's 700 are a small call's; with three times as many a call
#: costs 3 % less, and a search still takes a fraction of a millisecond.
_YOUNG = 2000
#: In collections of the middle generation, each some 20 000 objects more than went: when a search is due, how much
#: later with each MiB of requests that waits and with each call that is open, and when it is due whatever there is.
_DUE, _PER_MIB, _PER_CALL, _OVERDUE = 7, 4, 0.5, 100
#: With more calls open than these none is due: 30 ms.
_MOST_OPEN = 300
#: Four calls of 140 KB at once have no more than twice as much in use.
_KEPT_BYTES = 2 << 20
#: A burst: so many calls at once, or so many MiB of requests that wait. It is over when a quarter of either is left.
_BURST_CALLS, _BURST_MIB, _LEFT = 100, 32, 4
#: For the interpreter's own rule: never.
_NEVER = 1 << 30


def keep_freed_memory() -> None:
    """Have the C library keep what calls have freed for those that follow, up to 4 MiB.

    glibc maps each block above a threshold by itself, and gives back the top of its heap when more than twice as much
    is free there (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). At first that is 128 KiB, less than one request
    of Claude Code's, so that each call had 20 to 50 pages mapped and cleared anew. The threshold rises to the size of
    the largest mapped block that has been freed. Other C libraries are not impressed.
    """
    block = bytes(_KEPT_BYTES)  # none of which is touched
    del block


def _return_freed_memory() -> None:
    """Have the C library give back to the system what is free, but for `_KEPT_BYTES`, where it can (glibc)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(ctypes.c_size_t(2 * _KEPT_BYTES))


class CollectionPolicy:
    """Decides it, from `start` to `stop`, at each beat of the loop's watch.

    Args:
        waiting_bytes: the sizes of the requests that wait for the first byte of an answer, and are held until then.
        open_calls: how many calls are open.
        most_bytes: the largest size of all requests that were held at once since it was asked the last time.
    """

    def __init__(
        self,
        waiting_bytes: Callable[[], int],
        open_calls: Callable[[], int],
        most_bytes: Callable[[], int] = int,
    ) -> None:
        self._waiting_bytes = waiting_bytes
        self._open_calls = open_calls
        self._most_bytes = most_bytes
        self._thresholds: tuple[int, int, int] | None = None
        self._most_calls = self._most_mib = 0  # since memory was returned

    def start(self) -> None:
        keep_freed_memory()
        gc.freeze()
        self._thresholds = _, middle, _ = gc.get_threshold()
        gc.set_threshold(_YOUNG, middle, _NEVER)

    def stop(self) -> None:
        if self._thresholds is not None:
            gc.set_threshold(*self._thresholds)
            self._thresholds = None

    def beat(self) -> None:
        if self._thresholds is None:
            return
        self._return_memory(self._open_calls(), max(self._most_bytes(), self._waiting_bytes()) >> 20)
        count = gc.get_count()[2]
        if count < _DUE or (open_calls := self._open_calls()) > _MOST_OPEN:
            return
        if count >= min(_DUE + _PER_MIB * (self._waiting_bytes() >> 20) + _PER_CALL * open_calls, _OVERDUE):
            gc.collect()

    def _return_memory(self, calls: int, mib: int) -> None:
        self._most_calls = max(self._most_calls, calls)
        self._most_mib = max(self._most_mib, mib)
        if self._most_calls < _BURST_CALLS and self._most_mib < _BURST_MIB:
            return
        if calls * _LEFT <= self._most_calls and mib * _LEFT <= self._most_mib:
            self._most_calls, self._most_mib = calls, mib
            # It takes tens of milliseconds and needs nothing of the interpreter.
            threading.Thread(target=_return_freed_memory, name="return memory", daemon=True).start()
