"""Log lines leave through a thread of their own, so that a blocked stderr never blocks a stream
(docs/spec/operations.md#f4).

A terminal on hold, a pipe that nobody reads, a full disk: lines then wait in a bounded queue, and what does not fit is
counted and said once lines flow again.

To wait for the interpreter's lock is what such a thread costs, a dozen times what it does. So it takes whole blocks of
bytes from a queue that needs no more of the interpreter, and waits for nothing else.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TextIO

__all__ = ["LineQueue"]

#: Lines that wait: some seconds of a daemon at work, at most a few MiB.
_MAX_WAITING = 5_000
#: How long the thread rests behind each write, and gathers, unless somebody waits or many lines do: to be woken for
#: each line costs more than all else that is done for it. The longer is for a daemon under load, behind so many lines.
_REST_S, _LONG_REST_S, _LOADED = 0.02, 0.2, 16
#: So many do not wait for the end of it.
_MANY = 1_000
#: How long the end of the process waits for what is left.
_CLOSE_S = 2.0


class _Block(NamedTuple):
    """Lines on their way, each with its end."""

    data: bytes
    lines: int


class LineQueue:
    """Writes lines to `stream` in the order in which they came. Calling it gives structlog its logger: itself.

    Args:
        say_dropped: makes the line that says how many were lost.
    """

    def __init__(self, stream: TextIO, say_dropped: Callable[[int], str]) -> None:
        self.stream = stream
        self.dropped = 0
        self._say_dropped = say_dropped
        self._said = 0
        #: An event is set when all ahead of it is written; None ends the thread.
        self._blocks: SimpleQueue[_Block | threading.Event | None] = SimpleQueue()
        self._waiting = 0  # lines in there
        self._is_closed = False
        self._lock = threading.Lock()  # of the three numbers and of what is put in there
        self._force_stop = threading.Event()  # no rest
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __call__(self, *args: Any) -> LineQueue:
        return self

    def msg(self, line: str) -> None:
        """Take a line; never waits."""
        self.take((line,))

    def take(self, lines: Sequence[str]) -> None:
        """Take lines; never waits. Of those for which there is no room the last are dropped."""
        with self._lock:
            room = 0 if self._is_closed else _MAX_WAITING - self._waiting
            if len(lines) > room:
                self.dropped += len(lines) - room
                lines = lines[:room]
            if lines:
                self._waiting += len(lines)
                self._blocks.put(_block_of(lines))
                if self._waiting >= _MANY and not self._force_stop.is_set():
                    self._force_stop.set()

    log = debug = info = warning = warn = error = critical = exception = fatal = failure = err = msg

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until everything is written; whether it was, in that time."""
        if self._is_closed:
            return not self._thread.is_alive()
        is_written = threading.Event()
        self._force_stop.set()
        self._blocks.put(is_written)
        return is_written.wait(timeout_s)

    def close(self) -> None:
        """Write what is left, within `_CLOSE_S`, and stop."""
        if not self._is_closed:
            self.flush()
            with self._lock:
                self._is_closed = True
                self._blocks.put(None)
        self._thread.join(_CLOSE_S)
        atexit.unregister(self.close)

    def _run(self) -> None:
        while True:
            blocks, written, is_over = self._taken()
            if blocks:
                self._write(blocks)
            for event in written:
                event.set()
            if is_over:
                return
            lines = sum(block.lines for block in blocks)
            self._force_stop.wait(_LONG_REST_S if lines >= _LOADED else _REST_S)
            self._force_stop.clear()

    def _taken(self) -> tuple[list[_Block], list[threading.Event], bool]:
        """All that has come, as soon as there is something: blocks, who waits for them, whether that was the end."""
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
            if blocks and self.dropped > self._said:
                blocks.append(_block_of((self._say_dropped(self.dropped - self._said),)))
                self._said = self.dropped
        return blocks, written, item is None

    def _write(self, blocks: list[_Block]) -> None:
        data = b"".join(block.data for block in blocks)
        try:
            try:
                descriptor = self.stream.fileno()
            except OSError:  # no file: a stream in memory
                self.stream.write(data.decode())
                return
            # Not through the stream's own buffer: the interpreter waits for its lock at the end, for ever if we are
            # stuck.
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        except (OSError, ValueError):
            lost = sum(block.lines for block in blocks)
            with self._lock:  # nobody is left to be told: the stream is closed, or its disk is full
                self.dropped += lost
                self._said += lost


def _block_of(lines: Sequence[str]) -> _Block:
    return _Block("\n".join((*lines, "")).encode("utf-8", "backslashreplace"), len(lines))
