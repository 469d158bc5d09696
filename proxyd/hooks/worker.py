"""Runs each hook file in a thread of its own, so that no hook can block the event loop.

Plain functions of one file run one at a time, as their authors expect; ``async def`` ones run concurrently, on an event
loop in the thread. Waiting has a timeout. A thread in which a hook blocks is abandoned, and a new one takes the next
calls: Python cannot end a thread from outside. Daemon threads do not keep the process alive.

Most hooks take some microseconds. For a hook that was quick the last time, the event loop blocks for at most
`SPIN_WAIT_S`: returning to the loop and being woken there takes many times as long.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["SPIN_WAIT_S", "HookFailed", "Running", "Worker"]

T = TypeVar("T")
_Work = Callable[[], Coroutine[Any, Any, T]]

#: For how long the event loop, with all its streams, blocks for a hook.
SPIN_WAIT_S = 0.0005
#: How long a thread of retired hooks waits for further events of an open stream.
_IDLE_S = 2.0


class HookFailed(Exception):
    """The hook raised or returned an invalid value. The text says what and where, without any content."""


class Running(Generic[T]):
    """Work submitted to a `Worker`, and its result.

    The two threads share one lock: the condition of a `concurrent.futures.Future` takes three times as long.

    Attributes:
        is_finished: there is a result or an `error`.
        is_cancelled: nobody waits for it any more.
        cancel: stops it, if it can be stopped.
    """

    __slots__ = (
        "_finished",
        "_notify",
        "_result",
        "_thread",
        "_worker",
        "cancel",
        "error",
        "is_cancelled",
        "is_finished",
        "work",
    )

    def __init__(self, work: _Work[T], worker: Worker, thread: _Thread) -> None:
        self.work = work
        self.is_finished = False
        self.is_cancelled = False
        self.cancel: Callable[[], object] | None = None
        self.error: BaseException | None = None
        self._worker, self._thread = worker, thread
        self._result: T | None = None
        self._notify: Callable[[], object] | None = None  # wakes a task that waits
        self._finished = threading.Lock()
        self._finished.acquire()

    def finish(self, result: T | None, error: BaseException | None = None) -> None:
        """Store the outcome. Called once, by the worker's thread."""
        self._result, self.error = result, error
        self.is_finished = True
        self._finished.release()
        if self._notify is not None:
            try:
                self._notify()
            except RuntimeError:
                pass  # the loop is closed: the daemon has ended

    def wait_briefly(self, timeout_s: float) -> bool:
        """Return whether it is finished, after blocking for a moment if that is likely to help."""
        if (
            not self.is_finished
            and self._thread.is_quick
            and not self._finished.acquire(timeout=min(SPIN_WAIT_S, timeout_s))
        ):
            self._thread.is_quick = False  # do not block for the calls queued after this one either
        return self.is_finished

    async def wait(self, timeout_s: float) -> None:
        """Wait until it is finished; after the timeout it `is_cancelled` and its thread abandoned."""
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()
        self._notify = functools.partial(loop.call_soon_threadsafe, _set, finished)
        if self.is_finished:  # meanwhile; the thread may not have seen `_notify`
            return
        try:
            await asyncio.wait_for(finished, timeout_s)
        except asyncio.TimeoutError:
            self._give_up()
            self._worker.abandon(self._thread)
        except asyncio.CancelledError:
            self._give_up()
            raise

    def result(self) -> T:
        """Return the result, or raise what the work raised. Requires `is_finished`."""
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]

    def _give_up(self) -> None:
        self.is_cancelled = True
        if self.cancel is not None:
            self.cancel()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Thread(Protocol):
    """A thread that ends when it is idle after `retire`.

    Attributes:
        is_quick: the last call took less than `SPIN_WAIT_S`, and no later one has taken longer so far.
    """

    is_quick: bool

    def submit(self, running: Running[Any]) -> None:
        """Queue its work."""

    def retire(self) -> None:
        """End as soon as the running calls have finished."""

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""


class _PlainThread:
    """Runs plain functions one after the other."""

    def __init__(self, name: str) -> None:
        self.is_quick = False
        self._calls: SimpleQueue[Running[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"hook {name}", daemon=True)
        self._thread.start()

    def submit(self, running: Running[Any]) -> None:
        self._calls.put(running)

    def retire(self) -> None:
        self._calls.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (running := self._calls.get()) is not None:
            if not running.is_cancelled:
                self._do(running)
            del running  # it holds the events of a stream

    def _do(self, running: Running[Any]) -> None:
        started = perf_counter()
        try:
            running.work().send(None)
        except StopIteration as done:
            self.is_quick = perf_counter() - started < SPIN_WAIT_S
            running.finish(done.value)
        except BaseException as exc:
            running.finish(None, exc)
        else:
            running.finish(None, RuntimeError("a plain hook awaits something"))


class _LoopThread:
    """Runs coroutines concurrently on an event loop."""

    def __init__(self, name: str) -> None:
        self.is_quick = False  # never: what they await takes longer
        self._loop = asyncio.new_event_loop()
        self._open = 0  # running calls; used in the thread only
        self._is_retired = False
        self._thread = threading.Thread(target=self._run, name=f"hook {name}", daemon=True)
        self._thread.start()

    def submit(self, running: Running[Any]) -> None:
        running.cancel = asyncio.run_coroutine_threadsafe(self._do(running), self._loop).cancel

    def retire(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._retire)
        except RuntimeError:
            pass  # it has ended

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    async def _do(self, running: Running[Any]) -> None:
        self._open += 1
        try:
            result = await running.work()
        except BaseException as exc:
            running.finish(None, exc)
            if isinstance(exc, asyncio.CancelledError):
                raise
        else:
            running.finish(result)
        finally:
            self._open -= 1
            self._stop_if_idle()

    def _retire(self) -> None:
        self._is_retired = True
        self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        if self._is_retired and not self._open:
            # Later: a callback that is still due delivers the result of the call that ends now.
            self._loop.call_soon(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            for task in asyncio.all_tasks(self._loop):  # started by a hook and not awaited
                task.cancel()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()


class Worker:
    """Runs the calls of one hook file. The thread starts with the first call.

    Args:
        is_async: the calls may await something.
    """

    def __init__(self, name: str, *, is_async: bool) -> None:
        self._name = name
        self._kind: Callable[[str], _Thread] = _LoopThread if is_async else _PlainThread
        self._thread: _Thread | None = None
        self._is_retired = False
        self._end: asyncio.TimerHandle | None = None  # of a thread that started after `retire`

    def submit(self, work: _Work[T]) -> Running[T]:
        """Run `work` in the worker's thread."""
        if self._thread is None:
            self._thread = self._kind(self._name)
        if self._is_retired:
            self._end_when_idle()
        running = Running(work, self, self._thread)
        self._thread.submit(running)
        return running

    def abandon(self, thread: _Thread) -> None:
        """Leave a blocked thread behind; the next calls get a new one."""
        if self._thread is thread:
            self._thread = None
        thread.retire()

    def retire(self) -> None:
        """End the thread when it is idle, after a reload.

        Streams that are still open may bring further calls: they get a new thread, which ends after `_IDLE_S` without
        one.
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
        """Retire, and wait for the thread up to `timeout_s`."""
        thread = self._thread
        self.retire()
        if thread is not None:
            thread.join(timeout_s)
