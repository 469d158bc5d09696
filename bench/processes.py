"""A contender's process tree: start, stop, CPU time and memory (Linux only, from ``/proc`` and its CPU clocks)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Process"]

_STOP_S = 10.0


class Process:
    """A child process in its own session, with its descendants."""

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
        self.folder = folder
        self._log = log

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def cpu_s(self) -> float:
        """Return the CPU seconds that the tree has used. Ended threads are included: LiteLLM ends idle ones, and a sum
        over live threads would decrease.
        """
        return sum(self.cpu_s_by_process().values())

    def cpu_s_by_process(self) -> dict[int, float]:
        """Return the CPU seconds of each process of the tree."""
        return {pid: time.clock_gettime_ns(_cpu_clock(pid)) / 1e9 for pid in self._tree()}

    def rss_bytes(self) -> int:
        """Return the tree's resident memory; shared pages count once per process."""
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
        """Terminate the session and wait for its end."""
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGTERM)
            try:
                self._child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def _cpu_clock(pid: int) -> int:
    """Return the id of the CPU-time clock of process ``pid``, computed as clock_getcpuclockid(3) does on Linux (the
    kernel's include/linux/posix-timers_types.h: the inverted pid and CPUCLOCK_SCHED, which counts in nanoseconds).
    """
    return (~pid << 3) | 2
