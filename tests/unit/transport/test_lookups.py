"""Blocking look-ups in daemon threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proxyd.transport.lookups import Lookups


async def test_result_and_exception_of_a_look_up() -> None:
    lookups = Lookups()
    assert await lookups.run(lambda: 7) == 7
    with pytest.raises(OSError, match="unknown"):
        await lookups.run(_raise)


def _raise() -> None:
    raise OSError("unknown")


async def test_number_of_threads_is_limited_and_waiting_look_ups_follow() -> None:
    lookups, gate = Lookups(max_threads=2), threading.Event()
    lock, running, most = threading.Lock(), 0, 0

    def look_up(name: str) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(30)
        with lock:
            running -= 1
        return name

    tasks = [asyncio.ensure_future(lookups.run(lambda n=n: look_up(n))) for n in "abcde"]  # type: ignore[misc]
    await asyncio.sleep(0)
    tasks[3].cancel()
    gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [found[0], found[1], found[2], found[4]] == ["a", "b", "c", "e"]
    assert isinstance(found[3], asyncio.CancelledError)
    assert most <= 2
