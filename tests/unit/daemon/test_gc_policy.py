"""When all objects are searched for garbage: by how much has come, how much waits, and how many calls are open."""

from __future__ import annotations

import ctypes
import gc
import platform
import subprocess
import sys
import threading

import pytest

from proxyd.daemon import gc_policy as garbage
from proxyd.daemon.gc_policy import CollectionPolicy


class Collector:
    """The interpreter's, as far as it is asked."""

    def __init__(self) -> None:
        self.thresholds = (700, 10, 10)
        self.count = 0
        self.searches = self.frozen = 0

    def freeze(self) -> None:
        self.frozen += 1

    def get_threshold(self) -> tuple[int, int, int]:
        return self.thresholds

    def set_threshold(self, *values: int) -> None:
        self.thresholds = values  # type: ignore[assignment]

    def get_count(self) -> tuple[int, int, int]:
        return 0, 0, self.count

    def collect(self) -> None:
        self.searches += 1
        self.count = 0


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    found = Collector()
    monkeypatch.setattr(garbage, "gc", found)
    return found


@pytest.mark.parametrize(
    ("mebibytes", "calls", "due"),
    [
        (0, 0, 7),
        (0.9, 1, 8),
        (1, 0, 11),
        (20, 0, 87),
        (28, 0, 100),
        (500, 300, 100),
        (0, 20, 17),
        (1, 20, 21),
        (0, 300, 100),
    ],
)
def test_the_more_there_is_the_later(collector: Collector, mebibytes: float, calls: int, due: int) -> None:
    sweeper = CollectionPolicy(lambda: int(mebibytes * (1 << 20)), lambda: calls)
    sweeper.start()
    for count, searches in ((0, 0), (due - 1, 0), (due, 1), (due - 1, 1), (due + 5, 2)):
        collector.count = count
        sweeper.beat()
        assert collector.searches == searches


def test_with_hundreds_of_calls_open_it_waits_until_there_are_fewer(collector: Collector) -> None:
    open_calls = 301
    sweeper = CollectionPolicy(lambda: 0, lambda: open_calls)
    sweeper.start()
    collector.count = 5000
    sweeper.beat()
    assert collector.searches == 0
    open_calls = 300
    sweeper.beat()
    assert collector.searches == 1


def test_between_start_and_stop_the_interpreter_searches_young_objects_only(collector: Collector) -> None:
    sweeper = CollectionPolicy(lambda: 0, lambda: 0)
    collector.count = 50
    sweeper.beat()
    assert collector.searches == 0
    sweeper.start()
    assert collector.frozen == 1
    assert collector.thresholds[:2] == (garbage._YOUNG, 10)
    assert collector.thresholds[2] > 1_000_000
    sweeper.stop()
    sweeper.stop()
    assert collector.thresholds == (700, 10, 10)


def test_the_interpreter_takes_such_a_threshold() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(*before[:2], garbage._NEVER)
    finally:
        gc.set_threshold(*before)


_CALLS = """
import resource, sys
from proxyd.daemon.gc_policy import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def calls(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for number in range(count):
        sizes = [(117 + number * 7 % 40 + 8 * piece) * 1024 for piece in range(6)]  # of one request, and never the same
        blocks = [b"x" * size for size in sizes]
        del blocks
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

calls(50)
print(calls(200))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own rules")
def test_what_a_call_has_freed_is_there_for_the_next() -> None:
    pages = {}
    for case in ("as it is", "kept"):
        result = subprocess.run(
            [sys.executable, "-c", _CALLS, case], capture_output=True, text=True, check=True, timeout=60
        )
        pages[case] = float(result.stdout)
    assert pages["kept"] < 1 < 20 < pages["as it is"], "pages that are mapped anew for each call"


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
    monkeypatch.setattr(garbage, "_return_freed_memory", lambda: done.append(1))
    now = [0, 0]
    waiting, most = (lambda: now[1] << 20), (lambda: 0)
    if are_brief:  # they have come and gone between two beats
        waiting, most = most, waiting
    sweeper = CollectionPolicy(waiting, lambda: now[0], most)
    sweeper.start()
    for beat in beats:
        now[:] = beat
        sweeper.beat()
    for thread in threading.enumerate():
        if thread.name == "return memory":
            thread.join(10)
    assert len(done) == returns


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library")
def test_what_lies_free_between_blocks_in_use_is_returned() -> None:
    """In a process of its own: this one's memory is in many pieces."""
    script = """
import os
from proxyd.daemon import gc_policy as garbage

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

blocks = [b"x" * 100_000 for _ in range(2000)]
kept = blocks[::50]
full = resident()
del blocks
before = resident()
garbage._return_freed_memory()
print(full - resident() > 150_000_000, before - resident() > 50_000_000)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True"]
