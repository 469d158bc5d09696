"""A command on a terminal of its own, which a test reads and types into."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PtySession", "pty_session"]

_WITHIN_S = 30.0


class PtySession:
    """A running command; `screen` is what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process = process
        self._master = master
        self._seen = 0
        self.screen = ""

    def expect(self, text: str) -> None:
        """Wait until `text` is printed, after what was expected before."""
        deadline = time.monotonic() + _WITHIN_S
        while text not in self.screen[self._seen :]:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.screen}"
            assert self._read(deadline), f"it ended without {text!r}:\n{self.screen}"
        self._seen = self.screen.index(text, self._seen) + len(text)

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._master, text.encode() + b"\n")

    def interrupt(self) -> int:
        """Press Ctrl-C until it ends; return the exit code.

        One that arrives between the prompt and the reading of the answer has no effect before the next key.
        """
        deadline = time.monotonic() + _WITHIN_S
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.screen}"
            os.write(self._master, b"\x03")
            again = time.monotonic() + 5
            while time.monotonic() < again and self._read(again):
                pass
            if time.monotonic() < again:
                break  # its terminal is closed
        return self.end()

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        deadline = time.monotonic() + _WITHIN_S
        while self._read(deadline):
            assert time.monotonic() < deadline, f"it does not end:\n{self.screen}"
        return self._process.wait(_WITHIN_S)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: how Linux says that the other end is closed
            return False
        self.screen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)


def _take_terminal() -> None:
    """Make the terminal that of this process, which Ctrl-C ends even where the tests were started to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def pty_session(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> Iterator[PtySession]:
    """Run `command` on a terminal; it is killed if it still runs at the end."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**environ, "TERM": "xterm", "COLUMNS": "120"},
        cwd=folder,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(slave)
    try:
        yield PtySession(process, master)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)
