"""When full collections run, and when freed memory is returned to the system."""

from __future__ import annotations

import ctypes
import gc
import platform
import subprocess
import sys
import threading

import pytest

from proxyd.daemon import gc_policy
from proxyd.daemon.gc_policy import CollectionPolicy


class Collector:
    """Stands for the module `gc`."""

    def __init__(self) -> None:
        self.thresholds = (700, 10, 10)
        self.count = 0
        self.collections = self.frozen = 0
        self.live = self.garbage = 0

    def freeze(self) -> None:
        self.frozen += 1

    def get_threshold(self) -> tuple[int, int, int]:
        return self.thresholds

    def set_threshold(self, *values: int) -> None:
        self.thresholds = values  # type: ignore[assignment]

    def get_count(self) -> tuple[int, int, int]:
        return 0, 0, self.count

    def get_objects(self, *, generation: int) -> range:
        assert generation == 2
        return range(self.live + self.garbage)

    def collect(self) -> None:
        self.collections += 1
        self.count = self.garbage = 0


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    found = Collector()
    monkeypatch.setattr(gc_policy, "gc", found)
    return found


MINUTE_S = 60.0


def test_a_full_collection_runs_when_no_call_is_open_and_enough_was_allocated(collector: Collector) -> None:
    open_calls = 1
    policy = CollectionPolicy(lambda: 0, lambda: open_calls, now=lambda: 0.0)
    policy.start()
    collector.count = 1000
    policy.check()
    assert collector.collections == 0, "a call is open"
    open_calls = 0
    policy.check()
    assert collector.collections == 1
    policy.check()
    assert collector.collections == 1, "nothing was allocated since"


def test_a_daemon_that_is_never_idle_runs_a_full_collection_now_and_then(collector: Collector) -> None:
    now = 0.0
    policy = CollectionPolicy(lambda: 1 << 30, lambda: 500, now=lambda: now)
    policy.start()
    policy.check()
    now = 5 * MINUTE_S
    policy.check()
    assert collector.collections == 0
    now = 60 * MINUTE_S
    policy.check()
    policy.check()
    assert collector.collections == 1


def test_a_busy_daemon_runs_a_full_collection_when_many_objects_were_added(collector: Collector) -> None:
    now, waiting_bytes = 0.0, 0
    policy = CollectionPolicy(lambda: waiting_bytes, lambda: 500, now=lambda: now)
    policy.start()

    def collections_after(*, live: int, garbage: int, seconds: float = 30.0) -> int:
        nonlocal now
        now += seconds
        collector.live, collector.garbage = live, garbage
        policy.check()
        return collector.collections

    assert collections_after(live=20_000, garbage=30_000) == 0, "few"
    assert collections_after(live=20_000, garbage=40_000) == 1
    assert collections_after(live=20_000, garbage=40_000) == 1, "as many as were left by the last collection"
    assert collections_after(live=20_000, garbage=90_000, seconds=1) == 1, "it counts now and then"
    assert collections_after(live=20_000, garbage=90_000) == 2
    assert collections_after(live=500_000, garbage=0) == 3, "not known to be in use"
    assert collections_after(live=500_000, garbage=90_000) == 3, "less than a quarter"
    assert collections_after(live=20_000, garbage=0) == 3
    assert collections_after(live=20_000, garbage=60_000) == 4, "after a burst the smaller count is the base"
    waiting_bytes = 30 << 20
    assert collections_after(live=20_000, garbage=90_000) == 4, "it would traverse many requests"
    waiting_bytes = 1 << 20
    assert collections_after(live=20_000, garbage=90_000) == 5


def test_automatic_full_collections_are_off_between_start_and_stop(collector: Collector) -> None:
    policy = CollectionPolicy(lambda: 0, lambda: 0)
    collector.count = 50
    policy.check()
    assert collector.collections == 0
    policy.start()
    assert collector.frozen == 1
    assert collector.thresholds[2] > 1_000_000
    policy.stop()
    policy.stop()
    assert collector.thresholds == (700, 10, 10)


def test_the_interpreter_accepts_the_thresholds() -> None:
    before = gc.get_threshold()
    policy = CollectionPolicy(lambda: 0, lambda: 0)
    try:
        policy.start()
        assert gc.get_threshold()[2] > 1_000_000
    finally:
        policy.stop()
    assert gc.get_threshold() == before


_CALLS = """
import resource, sys
from proxyd.daemon.gc_policy import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def calls(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for number in range(count):
        sizes = [(117 + number * 7 % 40 + 8 * block) * 1024 for block in range(6)]  # of one request, and never the same
        blocks = [b"x" * size for size in sizes]
        del blocks
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

calls(50)
print(calls(200))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other rules")
def test_memory_freed_by_a_call_is_kept_for_the_next() -> None:
    pages = {}
    for case in ("as it is", "kept"):
        result = subprocess.run(
            [sys.executable, "-c", _CALLS, case], capture_output=True, text=True, check=True, timeout=60
        )
        pages[case] = float(result.stdout)
    assert pages["kept"] < 1 < 20 < pages["as it is"], "pages mapped for each call"


@pytest.mark.parametrize(
    ("beats", "returns"),
    [
        ([(99, 0), (0, 0)], 0),
        ([(100, 0), (26, 0), (25, 0), (0, 0)], 1),
        ([(1000, 0), (250, 0), (10, 0), (200, 0), (3, 0)], 3),
        ([(1, 31), (0, 0)], 0),
        ([(1, 32), (1, 9), (0, 8), (0, 0)], 1),
        ([(200, 64), (10, 64), (10, 0)], 1),
    ],
)
@pytest.mark.parametrize("are_brief", [False, True])
def test_memory_is_returned_once_most_of_a_burst_is_over(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    beats: list[tuple[int, int]],
    returns: int,
    are_brief: bool,
) -> None:
    done: list[int] = []
    monkeypatch.setattr(gc_policy, "_return_freed_memory", lambda: done.append(1))
    now = [0, 0]
    waiting, most = (lambda: now[1] << 20), (lambda: 0)
    if are_brief:  # they began and ended between two checks
        waiting, most = most, waiting
    policy = CollectionPolicy(waiting, lambda: now[0], most)
    policy.start()
    for beat in beats:
        now[:] = beat
        policy.check()
    for thread in threading.enumerate():
        if thread.name == "return memory":
            thread.join(10)
    assert len(done) == returns


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library")
def test_free_memory_between_blocks_in_use_is_returned() -> None:
    """In a separate process: the memory of this one is fragmented."""
    script = """
import os
from proxyd.daemon import gc_policy

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

blocks = [b"x" * 100_000 for _ in range(2000)]
kept = blocks[::50]
full = resident()
del blocks
before = resident()
gc_policy._return_freed_memory()
print(full - resident() > 150_000_000, before - resident() > 50_000_000)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True"]
