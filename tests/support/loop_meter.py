"""``python -m tests.support.loop_meter ARGUMENTS``: the daemon, with every step of its event loop measured.

Two things can hold the loop up. Work: the processor time of the loop's thread is taken around each callback; not the
time on the wall, which on a busy machine says how busy the machine is. Waiting: calls that wait for a file, a name or
another process are noted by an audit hook when they are made in the loop's thread.

Both begin with READY and end with the stop. What was found is written as JSON to the file that ``$LOOP_METER`` names.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import atexit
import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from proxyd.__main__ import main
from proxyd.daemon import server
from proxyd.telemetry import token_calibration as calibration

#: Calls that can wait for something outside (https://docs.python.org/3/library/audit_events.html).
WAITING = {
    "open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "shutil.copyfile", "socket.getaddrinfo",
    "socket.gethostbyname", "sqlite3.connect", "subprocess.Popen", "time.sleep",
}  # fmt: skip
#: No step of the event loop may take more processor time (docs/spec/operations.md#a8).
MAX_MS = 50.0
#: The slowest callbacks that are kept.
KEPT = 5

_Result = TypeVar("_Result")


class Meter:
    """What is measured; in force between `begin` and `end`. Collections of garbage are measured apart from the steps in
    which they happen to fall.
    """

    def __init__(self) -> None:
        self.thread: int | None = None
        self.callbacks = 0
        self.slowest: list[tuple[float, str]] = []
        self.waited: Counter[str] = Counter()
        self.collecting_ms = 0.0  # of the step at hand: what the garbage collector has taken
        self.longest_collection_ms = 0.0
        self._collects_since = 0.0

    def begin(self) -> None:
        self.thread = threading.get_ident()

    def end(self) -> None:
        self.thread = None

    def run(self, handle: asyncio.events.Handle) -> None:
        self.step(handle._callback, lambda: _run(handle))  # a handle forgets it when it is cancelled

    def step(self, callback: object, do: Callable[[], _Result]) -> _Result:
        if self.thread != threading.get_ident():
            return do()
        self.collecting_ms = 0.0
        begun = time.thread_time()
        result = do()
        took_ms = (time.thread_time() - begun) * 1000
        self.callbacks += 1
        self.longest_collection_ms = max(self.longest_collection_ms, self.collecting_ms)
        work_ms = took_ms - self.collecting_ms
        if len(self.slowest) < KEPT or work_ms > self.slowest[-1][0]:
            kept = [*self.slowest, (round(work_ms, 1), _name_of(callback))]
            self.slowest = sorted(kept, reverse=True)[:KEPT]
        return result

    def collects(self, phase: str, _: dict[str, int]) -> None:
        if self.thread == threading.get_ident():
            if phase == "start":
                self._collects_since = time.thread_time()
            else:
                self.collecting_ms += (time.thread_time() - self._collects_since) * 1000

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WAITING and self.thread == threading.get_ident():
            if str(arguments[0]).endswith((".py", ".pyc")):
                return  # a module that is imported late, once
            frame: Any = sys._getframe(1)
            while frame is not None and "/proxyd/" not in frame.f_code.co_filename:
                frame = frame.f_back
            code = None if frame is None else frame.f_code
            place = "elsewhere" if code is None else f"{os.path.basename(code.co_filename)}:{code.co_name}"
            self.waited[f"{event} {arguments[0]!s:.100} in {place}"] += 1

    def write(self) -> None:
        found = {
            "callbacks": self.callbacks,
            "slowest": self.slowest,
            "longest_collection_ms": round(self.longest_collection_ms, 1),
            "waited": dict(self.waited),
        }
        with open(os.environ["LOOP_METER"], "w", encoding="utf-8") as file:
            json.dump(found, file)


_run = asyncio.events.Handle._run


def attach(meter: Meter, replace: Callable[[type, str, Any], None]) -> None:
    """Have `meter` see all that a loop runs.

    Args:
        replace: sets an attribute of a class.
    """
    replace(asyncio.events.Handle, "_run", lambda handle: meter.run(handle))


def _name_of(callback: Any) -> str:
    """Which callback it was; of a task's step, which coroutine."""
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        coro: Any = task.get_coro()
        while getattr(coro, "cr_await", None) is not None and hasattr(coro.cr_await, "cr_code"):
            coro = coro.cr_await
        return f"task {task.get_coro().__qualname__}, at {getattr(coro, '__qualname__', coro)}"  # type: ignore[union-attr]
    return repr(callback)[:200]


if __name__ == "__main__":
    meter = Meter()
    attach(meter, setattr)
    sys.addaudithook(meter.heard)
    gc.callbacks.append(meter.collects)
    atexit.register(meter.write)
    calibration._SAVE_S = 0.2  # it is saved while the test lasts
    sound_run = server.Daemon._on_stop
    begun = server.Notifier.ready

    def ready(self: Any, status: str) -> None:
        begun(self, status)
        meter.begin()

    def on_stop(self: Any, name: str) -> None:
        meter.end()
        sound_run(self, name)

    server.Notifier.ready = ready  # type: ignore[method-assign]
    server.Daemon._on_stop = on_stop  # type: ignore[method-assign]
    main()
