"""Log lines leave through a thread of their own, so that a blocked stderr never blocks a stream (operations.md F4).

A terminal on hold, a pipe that nobody reads, a full disk: lines then wait in a bounded queue, and what does not fit is
counted and said once lines flow again.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

__all__ = ["LineQueue"]

#: Lines that wait: some seconds of a daemon at work, at most a few MiB.
_MAX_WAITING = 5_000
#: How long the thread rests behind each write, and gathers: to be woken for each line costs more than all else that is
#: done for it.
_GATHER_S = 0.02
#: How long the end of the process waits for what is left.
_CLOSE_S = 2.0


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
        self._lines: deque[str] = deque()
        self._is_busy = False
        self._is_closed = False
        self._is_asleep = False  # the thread, until there is a line
        self._flushing = 0  # by how many
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __call__(self, *args: Any) -> LineQueue:
        return self

    def msg(self, line: str) -> None:
        """Take a line; never waits."""
        with self._change:
            if len(self._lines) >= _MAX_WAITING or self._is_closed:
                self.dropped += 1
            else:
                self._lines.append(line)
                if self._is_asleep:
                    self._change.notify_all()

    log = debug = info = warning = warn = error = critical = exception = fatal = failure = err = msg

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until everything is written; whether it was, in that time."""
        with self._change:
            self._flushing += 1
            self._change.notify_all()
            try:
                return self._change.wait_for(lambda: not self._lines and not self._is_busy, timeout_s)
            finally:
                self._flushing -= 1

    def close(self) -> None:
        """Write what is left, within `_CLOSE_S`, and stop."""
        self.flush()
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        self._thread.join(_CLOSE_S)
        atexit.unregister(self.close)

    def _write(self, text: str) -> None:
        try:
            descriptor = self.stream.fileno()
        except OSError:  # no file: a stream in memory
            self.stream.write(text)
            return
        # Not through the stream's own buffer: the interpreter waits for its lock at the end, for ever if we are stuck.
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(descriptor, data) :]

    def _run(self) -> None:
        while True:
            with self._change:
                self._is_busy = False
                self._change.notify_all()
                self._is_asleep = True
                self._change.wait_for(lambda: bool(self._lines) or self._is_closed)
                self._is_asleep = False
                if not self._lines:
                    return
                lines = list(self._lines)
                self._lines.clear()
                self._is_busy = True
                if self.dropped > self._said:
                    lines.append(self._say_dropped(self.dropped - self._said))
                    self._said = self.dropped
            try:
                self._write("".join(f"{line}\n" for line in lines))
            except (OSError, ValueError):
                with self._change:  # nobody is left to be told: the stream is closed, or its disk is full
                    self.dropped += len(lines)
                    self._said += len(lines)
            with self._change:
                self._change.wait_for(lambda: self._is_closed or self._flushing > 0, _GATHER_S)
