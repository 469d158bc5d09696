"""The writer thread of log lines, so that a blocked stderr never blocks a stream (docs/spec/operations.md#f4).

While a terminal is stopped, a pipe is not read or a disk is full, lines wait in a bounded queue. Lines that do not fit
are dropped, and their number is logged once lines can be written again.

Most of the cost of the thread is waiting for the interpreter's lock. So lines are joined to blocks of bytes before they
are queued, and the thread pauses after each write to collect more.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TextIO

__all__ = ["LineQueue"]

#: Lines that may wait: some seconds of a busy daemon, at most a few MiB.
_MAX_WAITING = 5_000
#: The pause after each write, and the longer one after a write of at least `_LOADED` lines.
_PAUSE_S, _LONG_PAUSE_S, _LOADED = 0.02, 0.2, 16
#: So many waiting lines end the pause.
_MANY = 1_000
#: How long `LineQueue.close` waits for what is left.
_CLOSE_S = 2.0


class _Block(NamedTuple):
    """Encoded lines, each with its line end."""

    data: bytes
    lines: int


class LineQueue:
    """Writes lines to `stream` in order. It is structlog's logger factory and the logger that the factory returns.

    Args:
        render_dropped: renders the line that reports how many lines were dropped.
    """

    def __init__(self, stream: TextIO, render_dropped: Callable[[int], str]) -> None:
        self.stream = stream
        self.dropped = 0
        self._render_dropped = render_dropped
        self.after_write: Callable[[], None] | None = None  # called by the thread
        self._reported = 0
        #: An event is set when everything before it is written; None ends the thread.
        self._blocks: SimpleQueue[_Block | threading.Event | None] = SimpleQueue()
        self._waiting = 0  # lines in `_blocks`
        self._is_closed = False
        self._lock = threading.Lock()  # of the counters and of what is put into `_blocks`
        self._end_pause = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __call__(self, *args: Any) -> LineQueue:
        return self

    def msg(self, line: str) -> None:
        """Queue a line; never blocks."""
        self.put((line,))

    def put(self, lines: Sequence[str]) -> None:
        """Queue lines; never blocks. Where not all of them fit, the last are dropped."""
        with self._lock:
            room = 0 if self._is_closed else _MAX_WAITING - self._waiting
            if len(lines) > room:
                self.dropped += len(lines) - room
                lines = lines[:room]
            if lines:
                self._waiting += len(lines)
                self._blocks.put(_block_of(lines))
                if self._waiting >= _MANY and not self._end_pause.is_set():
                    self._end_pause.set()

    log = debug = info = warning = warn = error = critical = exception = fatal = failure = err = msg

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until everything is written; returns whether it was within that time."""
        if self._is_closed:
            return not self._thread.is_alive()
        is_written = threading.Event()
        self._end_pause.set()
        self._blocks.put(is_written)
        return is_written.wait(timeout_s)

    def close(self) -> None:
        """Write what is left, for at most `_CLOSE_S`, and stop."""
        if not self._is_closed:
            self.flush()
            with self._lock:
                self._is_closed = True
                self._blocks.put(None)
        self._thread.join(_CLOSE_S)
        atexit.unregister(self.close)

    def _run(self) -> None:
        while True:
            blocks, written, is_over = self._take_all()
            if blocks:
                self._write(blocks)
                if self.after_write is not None:
                    self.after_write()
            for event in written:
                event.set()
            if is_over:
                return
            lines = sum(block.lines for block in blocks)
            self._end_pause.wait(_LONG_PAUSE_S if lines >= _LOADED else _PAUSE_S)
            self._end_pause.clear()

    def _take_all(self) -> tuple[list[_Block], list[threading.Event], bool]:
        """Wait for something in the queue; returns all blocks, all events to set, and whether the end was reached."""
        blocks: list[_Block] = []
        written: list[threading.Event] = []
        item = self._blocks.get()
        try:
            while item is not None:
                if isinstance(item, _Block):
                    blocks.append(item)
                else:
                    written.append(item)
                item = self._blocks.get_nowait()
        except Empty:
            pass
        with self._lock:
            self._waiting -= sum(block.lines for block in blocks)
            if blocks and self.dropped > self._reported:
                blocks.append(_block_of((self._render_dropped(self.dropped - self._reported),)))
                self._reported = self.dropped
        return blocks, written, item is None

    def _write(self, blocks: list[_Block]) -> None:
        data = b"".join(block.data for block in blocks)
        try:
            try:
                descriptor = self.stream.fileno()
            except OSError:  # not a file: a stream in memory
                self.stream.write(data.decode())
                return
            # Not through the stream's own buffer: at exit the interpreter waits for its lock, for ever if this blocks.
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        except (OSError, ValueError):
            lost = sum(block.lines for block in blocks)
            with self._lock:  # not reported: the stream is closed, or its disk is full
                self.dropped += lost
                self._reported += lost


def _block_of(lines: Sequence[str]) -> _Block:
    return _Block("\n".join((*lines, "")).encode("utf-8", "backslashreplace"), len(lines))
