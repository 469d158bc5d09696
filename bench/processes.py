"""What a process tree has used, read from ``/proc`` (Linux only), and how such a tree is started and ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Process"]

_STOP_S = 10.0


class Process:
    """A child in a session of its own, with all that it starts itself."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        with log.open("wb") as stream:
            self._child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        self._log = log

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def cpu_s(self) -> float:
        """CPU seconds of all threads so far. A thread that has ended is not counted: none of the contenders ends any
        while it serves.
        """
        total = 0
        for pid in self._tree():
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    total += int((task / "schedstat").read_text().split()[0])
                except OSError:
                    continue  # it ended just now
        return total / 1e9

    def rss_bytes(self) -> int:
        """Resident memory of the tree; what its processes share is counted in each."""
        total = 0
        for pid in self._tree():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total

    def _tree(self) -> list[int]:
        found = [self._child.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    found += [int(child) for child in (task / "children").read_text().split()]
                except OSError:
                    continue
        return found

    def stop(self) -> None:
        """End the session; waits until it is gone."""
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGTERM)
            try:
                self._child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]
