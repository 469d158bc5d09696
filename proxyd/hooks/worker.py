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
import functools
import threading
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["PATIENCE_S", "HookFailed", "Running", "Worker"]

T = TypeVar("T")
_Work = Callable[[], Coroutine[Any, Any, T]]

#: For how long the daemon's thread stands still for a hook. All its streams do so with it.
PATIENCE_S = 0.0005
#: How long a thread of hooks that are not in force any more waits for further events of an open stream.
_IDLE_S = 2.0


class HookFailed(Exception):
    """The hook raised, or returned something that cannot go on; the text says what and where, and quotes nothing."""


class Running(Generic[T]):
    """Work that a `Worker` has been given, and what came of it.

    One lock is all that the two threads share: a future's condition takes them three times as long.

    Attributes:
        is_over: there is a result, or an `error`.
        is_cancelled: nobody waits for it any more.
        cancel: stops it, where it can be stopped.
    """

    __slots__ = (
        "_over",
        "_result",
        "_tell",
        "_thread",
        "_worker",
        "cancel",
        "error",
        "is_cancelled",
        "is_over",
        "work",
    )

    def __init__(self, work: _Work[T], worker: Worker, thread: _Thread) -> None:
        self.work = work
        self.is_over = False
        self.is_cancelled = False
        self.cancel: Callable[[], object] | None = None
        self.error: BaseException | None = None
        self._worker, self._thread = worker, thread
        self._result: T | None = None
        self._tell: Callable[[], object] | None = None  # whoever has gone back to a loop
        self._over = threading.Lock()
        self._over.acquire()

    def end(self, result: T | None, error: BaseException | None = None) -> None:
        """It is over. To be called once, by the worker's thread."""
        self._result, self.error = result, error
        self.is_over = True
        self._over.release()
        if self._tell is not None:
            try:
                self._tell()
            except RuntimeError:
                pass  # the loop is closed: the daemon has ended

    def is_over_at_once(self, timeout_s: float) -> bool:
        """Whether it is over; the caller's thread stands still for a while where that is likely."""
        if (
            not self.is_over
            and self._thread.is_quick
            and not self._over.acquire(timeout=min(PATIENCE_S, timeout_s))
        ):
            self._thread.is_quick = False  # nor is any other waited for so behind this one
        return self.is_over

    async def wait(self, timeout_s: float) -> None:
        """Wait until it is over, or `is_cancelled` since it took too long: its thread was left behind then."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._tell = functools.partial(loop.call_soon_threadsafe, _set, over)
        if self.is_over:  # since it was asked; the thread may not have seen whom to tell
            return
        try:
            await asyncio.wait_for(over, timeout_s)
        except asyncio.TimeoutError:
            self._give_up()
            self._worker.leave(self._thread)
        except asyncio.CancelledError:
            self._give_up()
            raise

    def result(self) -> T:
        """What it gave, or raised. To be asked when it is over."""
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
    """One thread, until it is idle after `retire`.

    Attributes:
        is_quick: the last call took less than `PATIENCE_S`, and nobody has waited longer for one since.
    """

    is_quick: bool

    def submit(self, running: Running[Any]) -> None:
        """Have its work done."""

    def retire(self) -> None:
        """End as soon as the calls under way have ended."""

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""


class _PlainThread:
    """One call after the other, none of which awaits anything."""

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
        begun = perf_counter()
        try:
            running.work().send(None)
        except StopIteration as done:
            self.is_quick = perf_counter() - begun < PATIENCE_S
            running.end(done.value)
        except BaseException as exc:
            running.end(None, exc)
        else:
            running.end(None, RuntimeError("a plain hook awaits something"))


class _LoopThread:
    """Calls side by side on a loop."""

    def __init__(self, name: str) -> None:
        self.is_quick = False  # never: what they await takes longer
        self._loop = asyncio.new_event_loop()
        self._open = 0  # calls that have not ended; touched in the thread alone
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
            running.end(None, exc)
            if isinstance(exc, asyncio.CancelledError):
                raise
        else:
            running.end(result)
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

    def begin(self, work: _Work[T]) -> Running[T]:
        """Have `work` done in the worker's thread."""
        if self._thread is None:
            self._thread = self._kind(self._name)
        if self._is_retired:
            self._end_when_idle()
        running = Running(work, self, self._thread)
        self._thread.submit(running)
        return running

    def leave(self, thread: _Thread) -> None:
        """`thread` does not come back: the next calls get another."""
        if self._thread is thread:
            self._thread = None
        thread.retire()

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
