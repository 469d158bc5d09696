"""Exchanges with the store: in order, until one fails, and a last one at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from proxyd.daemon import shared_sync
from proxyd.daemon.shared_sync import SharedSync
from proxyd.store.interface import StoreFailed
from tests.support.raw_sockets import until


class Part:
    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events, self.is_up = name, events, True

    def begin(self) -> Callable[[], Callable[[], None]]:
        return self._exchange("exchanged")

    def leave(self) -> Callable[[], Callable[[], None]]:
        return self._exchange("left")

    def fail(self) -> None:
        self.events.append(f"{self.name} failed")

    def _exchange(self, what: str) -> Callable[[], Callable[[], None]]:
        def run() -> Callable[[], None]:
            if not self.is_up:
                raise StoreFailed("the store cannot be used (gone)")
            return lambda: self.events.append(f"{self.name} {what}")

        return run


async def test_parts_are_exchanged_until_one_fails() -> None:
    events: list[str] = []
    parts = [Part(name, events) for name in "abc"]
    sync = SharedSync(parts, lambda: events.append("closed"))
    with capture_logs() as lines:
        await sync.start()
        assert events == ["a exchanged", "b exchanged", "c exchanged"]
        parts[1].is_up = False
        for _ in range(2):
            events.clear()
            await sync.exchange()
            assert events == ["a exchanged", "b failed"], "the third need not wait for the same outage"
            assert sync.trouble == "the store cannot be used (gone)"
        parts[1].is_up = True
        events.clear()
        await sync.exchange()
        assert sync.trouble is None
        assert [line["event"] for line in lines] == ["shared.store_failed", "shared.store_recovered"]
        events.clear()
        await asyncio.gather(sync.close(), sync.exchange())
    assert [event for event in events if "exchanged" not in event] == ["a left", "b left", "c left", "closed"]


async def test_a_bug_in_a_part_is_logged_and_does_not_end_the_exchange(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_sync, "EXCHANGE_S", 0.01)
    events: list[str] = []
    part = Part("a", events)
    sync = SharedSync([part], lambda: None)
    with capture_logs() as lines:
        await sync.start()
        monkeypatch.setattr(part, "begin", lambda: 1 / 0)
        await until(lambda: any(line["event"] == "shared.crashed" for line in lines), 30)
        monkeypatch.undo()
        events.clear()
        await until(lambda: bool(events), 30)
        await sync.close()
    assert events[-1] == "a left"
