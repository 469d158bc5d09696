"""The writer thread: order, lost lines, blocked and broken streams."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxyd.logs.writer import LineQueue


class Blocked(io.StringIO):
    """A stream that accepts nothing until `let` allows it."""

    def __init__(self) -> None:
        super().__init__()
        self._reads, self._writes = os.pipe()

    def write(self, text: str) -> int:
        os.read(self._reads, 1)
        return super().write(text)

    def let(self, writes: int) -> None:
        os.write(self._writes, b"x" * writes)

    def shut(self) -> None:
        os.close(self._writes)
        os.close(self._reads)


@contextmanager
def stuck(most: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LineQueue, Blocked]]:
    """A queue for `most` lines whose writer is stuck with the line "first", and its stream."""
    monkeypatch.setattr("proxyd.logs.writer._MAX_WAITING", most)
    stream = Blocked()
    queue = LineQueue(stream, lambda lines: f"{lines} lines were lost")
    try:
        queue.msg("first")
        while queue._waiting:  # until the writer has taken it
            time.sleep(0.001)
        yield queue, stream
    finally:
        stream.let(10)
        queue.close()
        stream.shut()


def test_blocked_stream_drops_lines_without_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    with stuck(10, monkeypatch) as (queue, stream):
        for number in range(1000):
            queue.msg(f"line {number}")  # would block for ever if it waited for the stream
        assert queue.dropped == 990
        stream.let(3)
        assert queue.flush()
        assert stream.getvalue().splitlines() == [
            "first",
            *(f"line {number}" for number in range(10)),
            "990 lines were lost",
        ]
        queue.msg("and on")
        assert queue.flush()
        assert stream.getvalue().endswith("and on\n")


def test_lines_beyond_the_limit_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with stuck(3, monkeypatch) as (queue, stream):
        queue.put(["a", "b"])
        queue.put(["c", "d", "e"])
        queue.put([])
        stream.let(3)
        assert queue.flush()
        assert stream.getvalue().splitlines() == ["first", "a", "b", "c", "2 lines were lost"]


def test_many_lines_end_the_pause_of_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyd.logs.writer._LONG_PAUSE_S", 3600)
    monkeypatch.setattr("proxyd.logs.writer._MANY", 20)
    stream = io.StringIO()
    queue = LineQueue(stream, str)
    try:
        for number in range(1, 4):
            queue.put([f"{number} {line}" for line in range(20)])
            deadline = time.monotonic() + 10
            while stream.getvalue().count("\n") < 20 * number and time.monotonic() < deadline:
                time.sleep(0.001)
            assert stream.getvalue().count("\n") == 20 * number
    finally:
        queue.close()
    assert queue.flush()  # and nothing is waited for when it is closed


def test_broken_stream_loses_lines_without_raising() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    queue = LineQueue(Broken(), str)
    queue.msg("lost")
    assert queue.flush()
    queue.msg("lost too")
    queue.close()
    assert queue.dropped == 2
