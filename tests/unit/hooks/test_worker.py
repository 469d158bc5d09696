"""How calls of hooks run in their thread, and when the event loop blocks for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from proxyd.hooks import worker as worker_module
from proxyd.hooks.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    each = Worker("test", is_async=False)
    yield each
    each.close(2.0)


async def run(worker: Worker, work: Callable[[], Coroutine[Any, Any, object]], timeout_s: float) -> object:
    running = worker.submit(work)
    if not running.wait_briefly(timeout_s):
        await running.wait(timeout_s)
    if running.is_cancelled:
        raise asyncio.TimeoutError
    return running.result()


def work_of(function: Callable[[], object]) -> Callable[[], Coroutine[Any, Any, object]]:
    async def work() -> object:
        return function()

    return work


async def test_the_loop_blocks_for_a_hook_that_was_quick(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SPIN_WAIT_S", 5.0)
    assert await run(worker, work_of(threading.get_ident), 5.0) != threading.get_ident()
    iterations = 0

    def count() -> None:
        nonlocal iterations
        iterations += 1

    asyncio.get_running_loop().call_soon(count)
    assert await run(worker, work_of(lambda: "result"), 5.0) == "result"
    assert iterations == 0


async def test_the_loop_blocks_briefly_and_not_again_after_a_slow_call(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    async def run_one_that_needs_the_loop() -> object:
        go_on = threading.Event()
        loop.call_soon(go_on.set)
        return await run(worker, work_of(lambda: go_on.wait(10)), 10.0)

    monkeypatch.setattr(worker_module, "SPIN_WAIT_S", 0.05)
    await run(worker, work_of(int), 5.0)  # quick, so that the loop blocks for the next one
    assert await run_one_that_needs_the_loop() is True
    monkeypatch.setattr(worker_module, "SPIN_WAIT_S", 60.0)
    assert await run_one_that_needs_the_loop() is True, "it was slow the last time"


async def test_the_loop_does_not_block_for_calls_queued_after_a_slow_one(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(worker_module, "SPIN_WAIT_S", 0.05)
    await run(worker, work_of(int), 5.0)
    slow = asyncio.ensure_future(run(worker, work_of(lambda: go_on.wait(10)), 10.0))
    await asyncio.sleep(0)
    monkeypatch.setattr(worker_module, "SPIN_WAIT_S", 60.0)
    asyncio.get_running_loop().call_soon(go_on.set)
    assert await run(worker, work_of(lambda: "result"), 10.0) == "result"
    assert await slow is True


async def test_a_blocked_thread_is_abandoned(worker: Worker) -> None:
    go_on = threading.Event()
    threads: list[int] = []

    def stuck() -> None:
        threads.append(threading.get_ident())
        go_on.wait(10)

    with pytest.raises(asyncio.TimeoutError):
        await run(worker, work_of(stuck), 0.05)
    threads.append(await run(worker, work_of(threading.get_ident), 5.0))  # type: ignore[arg-type]
    assert threads[0] != threads[1]
    go_on.set()


async def test_plain_hooks_run_one_at_a_time(worker: Worker) -> None:
    inside, most = 0, 0

    def count() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.001)
        inside -= 1

    await asyncio.gather(*(run(worker, work_of(count), 5.0) for _ in range(20)))
    assert (inside, most) == (0, 1)


async def test_a_cancelled_call_is_not_started(worker: Worker) -> None:
    go_on, started = threading.Event(), []
    first = asyncio.ensure_future(run(worker, work_of(lambda: go_on.wait(10)), 10.0))
    second = asyncio.ensure_future(run(worker, work_of(lambda: started.append(1)), 10.0))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go_on.set()
    assert await first is True
    await run(worker, work_of(int), 5.0)
    assert not started
