"""A thread for each hook file, so that no hook can hold up the daemon's.

Plain functions of one file run one at a time, as their authors expect; ``async def`` ones run side by side, in a thread
with an event loop of its own. Who waits, waits with a limit. A thread that does not come back, because a hook blocks in
it, is left behind and a new one takes the next calls: Python cannot end a thread from outside. As daemon threads they
do not keep the process alive.

Most hooks take some microseconds. The daemon's own thread stands still for one that was quick the last time, for at
most `PATIENCE_S`: to go back to its loop, be woken there and find its caches cold takes it many times as long.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Protocol, TypeVar

__all__ = ["PATIENCE_S", "Worker"]

T = TypeVar("T")
_Work = Callable[[], Coroutine[Any, Any, T]]

#: For how long the daemon's thread stands still for a hook. All its streams do so with it.
PATIENCE_S = 0.0005
#: How long a thread of hooks that are not in force any more waits for further events of an open stream.
_IDLE_S = 2.0


class _Thread(Protocol):
    """One thread, until it is idle after `retire`.

    Attributes:
        is_quick: the last call took less than `PATIENCE_S`, and nobody has waited longer for one since.
    """

    is_quick: bool

    def submit(self, work: _Work[T]) -> Future[T]:
        """Have `work` done."""

    def retire(self) -> None:
        """End as soon as the calls under way have ended."""

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""


class _PlainThread:
    """One call after the other, none of which awaits anything."""

    def __init__(self, name: str) -> None:
        self.is_quick = False
        self._calls: SimpleQueue[tuple[Future[Any], _Work[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"hook {name}", daemon=True)
        self._thread.start()

    def submit(self, work: _Work[T]) -> Future[T]:
        future: Future[T] = Future()
        self._calls.put((future, work))
        return future

    def retire(self) -> None:
        self._calls.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, work = call
            if future.set_running_or_notify_cancel():
                self._do(future, work)
            del call, future, work  # they hold the events of a stream

    def _do(self, future: Future[Any], work: _Work[Any]) -> None:
        begun = perf_counter()
        try:
            work().send(None)
        except StopIteration as done:
            self.is_quick = perf_counter() - begun < PATIENCE_S
            future.set_result(done.value)
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_exception(RuntimeError("a plain hook awaits something"))


class _LoopThread:
    """Calls side by side on a loop."""

    def __init__(self, name: str) -> None:
        self.is_quick = False  # never: what they await takes longer
        self._loop = asyncio.new_event_loop()
        self._open = 0  # calls that have not ended; touched in the thread alone
        self._is_retired = False
        self._thread = threading.Thread(target=self._run, name=f"hook {name}", daemon=True)
        self._thread.start()

    def submit(self, work: _Work[T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._counted(work), self._loop)

    def retire(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._retire)
        except RuntimeError:
            pass  # it has ended

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    async def _counted(self, work: _Work[T]) -> T:
        self._open += 1
        try:
            return await work()
        finally:
            self._open -= 1
            self._stop_if_idle()

    def _retire(self) -> None:
        self._is_retired = True
        self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        if self._is_retired and not self._open:
            # Not at once: the result of the call that ends now is handed over by a callback still to come.
            self._loop.call_soon(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            for task in asyncio.all_tasks(self._loop):  # what a hook has started and not awaited
                task.cancel()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()


class Worker:
    """Runs the calls of one hook file. Threads start with the first call.

    Args:
        is_async: the calls may await something.
    """

    def __init__(self, name: str, *, is_async: bool) -> None:
        self._name = name
        self._kind: Callable[[str], _Thread] = _LoopThread if is_async else _PlainThread
        self._thread: _Thread | None = None
        self._is_retired = False
        self._end: asyncio.TimerHandle | None = None  # of a thread that was begun after `retire`

    async def run(self, work: _Work[T], timeout_s: float) -> T:
        """Await `work` in the worker's thread.

        Raises:
            asyncio.TimeoutError: it took longer; it was cancelled if it can be, else its thread was left behind.
        """
        if self._thread is None:
            self._thread = self._kind(self._name)
        thread = self._thread
        try:
            future = thread.submit(work)
            if thread.is_quick:
                try:
                    return future.result(min(PATIENCE_S, timeout_s))
                except concurrent.futures.TimeoutError:
                    thread.is_quick = False  # nor is any other waited for so behind this one
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except asyncio.TimeoutError:
            if self._thread is thread:
                self._thread = None
            thread.retire()
            raise
        finally:
            if self._is_retired:
                self._end_when_idle()

    def retire(self) -> None:
        """No more calls are expected soon. A stream that was open at a reload may bring some all the same: they get a
        new thread, which ends when none has come for a while.
        """
        self._is_retired = True
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.retire()

    def _end_when_idle(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(_IDLE_S, self.retire)

    def close(self, timeout_s: float) -> None:
        """Retire, and wait for the thread for at most `timeout_s`."""
        thread = self._thread
        self.retire()
        if thread is not None:
            thread.join(timeout_s)
