"""When connections are opened ahead of calls, and who gets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from proxyd.transport import origin as module
from proxyd.transport.connection import ReadBuffer, UpstreamConnection
from proxyd.transport.dialer import Dialer
from proxyd.transport.faults import ConnectFailed, ConnectTimeout
from proxyd.transport.origin import Origin
from tests.support.raw_sockets import no_leaks, until


class _Dialer:
    """Opens connections over nothing; `gate` holds them up, `failure` is raised instead."""

    def __init__(self) -> None:
        self.opened: list[UpstreamConnection] = []
        self.begun = 0
        self.gate: asyncio.Event | None = None
        self.failure: Exception | None = None

    async def open(self, protocol: Callable[[], UpstreamConnection]) -> UpstreamConnection:
        self.begun += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        made = protocol()
        made.transport = cast(asyncio.Transport, _Transport(made))
        made.has_unread_bytes = lambda: False  # type: ignore[method-assign]
        self.opened.append(made)
        return made


class _Transport:
    def __init__(self, protocol: UpstreamConnection) -> None:
        self._protocol: UpstreamConnection | None = protocol

    def is_closing(self) -> bool:
        return self._protocol is None

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    found = _Clock()
    monkeypatch.setattr(module, "_clock", found)
    return found


@asynccontextmanager
async def origin(*, limit_s: float = 300, keeps_warm: bool = True) -> AsyncIterator[tuple[Origin, _Dialer]]:
    dialer = _Dialer()
    async with no_leaks():
        made = Origin(
            "https://host",
            cast(Dialer, dialer),
            ReadBuffer(),
            limit_s=limit_s,
            keeps_warm=keeps_warm,
            jitter=lambda: 1.0,
        )
        try:
            yield made, dialer
        finally:
            await made.close()


def by_peer(connection: UpstreamConnection) -> None:
    """The upstream closes the connection."""
    assert connection.transport is not None
    connection.transport.close()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def called(each: Origin, owner: int = 1) -> UpstreamConnection:
    connection = each.take(owner) or await each.open(0)
    each.give_back(connection, owner)
    return connection


async def test_a_connection_is_reused(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        assert await called(each) is await called(each)
        assert dialer.begun == 1


async def test_one_that_was_closed_is_forgotten(clock: _Clock) -> None:
    async with origin(keeps_warm=False) as (each, _):
        connection = await each.open(0)
        connection.close()
        each.give_back(connection, 1)
        assert len(each.idle) == 0


async def test_a_call_gets_the_connection_that_is_being_opened_ahead(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        dialer.gate = asyncio.Event()
        each.prepare()
        each.prepare()
        call = asyncio.ensure_future(each.open(5))
        await settled()
        assert dialer.begun == 1
        dialer.gate.set()
        assert await call is dialer.opened[0]
        assert len(each.idle) == 0
        each.give_back(dialer.opened[0], 1)


async def test_a_second_call_opens_one_of_its_own(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        dialer.gate = asyncio.Event()
        each.prepare()
        calls = [asyncio.ensure_future(each.open(5)) for _ in range(2)]
        await settled()
        assert dialer.begun == 2
        dialer.gate.set()
        for connection in await asyncio.gather(*calls):
            each.give_back(connection, 1)


async def test_what_was_opened_ahead_serves_anybody_once(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        each.prepare()
        await until(lambda: len(each.idle) == 1)
        connection = await called(each, owner=7)
        assert connection is dialer.opened[0]
        other = await called(each, owner=8)
        assert other is not connection


async def test_a_failure_of_one_that_is_opened_ahead_is_the_calls_if_it_waits_for_it(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        dialer.gate, dialer.failure = asyncio.Event(), ConnectFailed(OSError())
        each.prepare()
        call = asyncio.ensure_future(each.open(5))
        await settled()
        dialer.gate.set()
        with pytest.raises(ConnectFailed):
            await call
        each.prepare()
        await settled()
        dialer.failure = None
        each.give_back(await each.open(0), 1)


async def test_an_opening_has_a_timeout_and_leaves_nothing(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        dialer.gate = asyncio.Event()
        with pytest.raises(ConnectTimeout):
            await each.open(0.01)
        task = asyncio.ensure_future(each.open(0))
        await settled()
        task.cancel()
        await settled()
        assert (dialer.begun, dialer.opened) == (2, [])


async def test_an_opening_that_nobody_waits_for_is_given_up(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AHEAD_TIMEOUT_S", 0.01)
    async with origin() as (each, dialer):
        dialer.gate = asyncio.Event()
        each.prepare()
        tasks = asyncio.all_tasks()
        await until(lambda: len(asyncio.all_tasks()) < len(tasks))
        dialer.gate = None
        each.give_back(await each.open(0), 1)
        assert dialer.begun == 2


async def test_the_last_connection_is_replaced_at_most_once_a_minute(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        by_peer(await called(each))
        await until(lambda: len(dialer.opened) == 2)
        clock.now += 30
        by_peer(dialer.opened[1])
        await settled()
        await asyncio.sleep(0.02)
        assert len(dialer.opened) == 2
        await called(each)
        assert len(dialer.opened) == 3
        clock.now += 31  # a minute, and a second at random
        by_peer(dialer.opened[2])
        await until(lambda: len(dialer.opened) == 4)


async def test_the_wait_for_the_next_minute_ends_by_itself(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RENEWAL_S", 0.05)
    monkeypatch.setattr(module, "_JITTER_S", 0.0)
    monkeypatch.setattr(module, "_clock", lambda: asyncio.get_running_loop().time())
    async with origin() as (each, dialer):
        by_peer(await called(each))
        await until(lambda: len(dialer.opened) == 2)
        by_peer(dialer.opened[1])
        await until(lambda: len(dialer.opened) == 3)


async def test_a_call_that_runs_needs_no_other_connection(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        connection = await each.open(0)
        await settled()
        assert dialer.begun == 1
        connection.close()
        await settled()
        assert dialer.begun == 1
        each.give_back(connection, 1)
        await until(lambda: len(each.idle) == 1)
        assert dialer.begun == 2


async def test_nothing_is_opened_ten_minutes_after_the_last_call(clock: _Clock) -> None:
    async with origin(limit_s=3600) as (each, dialer):
        connection = await called(each)
        clock.now += 601
        by_peer(connection)
        await settled()
        await asyncio.sleep(0.02)
        assert dialer.begun == 1


async def test_a_successor_is_opened_before_the_end_of_an_idle_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_clock", lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(module, "_AHEAD_S", 0.9)
    async with origin(limit_s=1.0) as (each, _):
        first = await called(each)
        await until(lambda: len(each.idle) == 2)
        assert not first.is_lost
        await until(lambda: first.is_lost)
        assert len(each.idle) == 1


@pytest.mark.parametrize("more", [{"keeps_warm": False}, {"limit_s": 0}])
async def test_it_can_be_turned_off(more: dict[str, Any], clock: _Clock) -> None:
    async with origin(**more) as (each, dialer):
        each.prepare()
        by_peer(await called(each))
        await settled()
        await asyncio.sleep(0.02)
        assert dialer.begun == 1


async def test_nothing_is_opened_after_the_end(clock: _Clock) -> None:
    async with origin() as (each, dialer):
        connection = await each.open(0)
        dialer.gate = asyncio.Event()
        each.prepare()
        await settled()
        await each.close()
        each.give_back(connection, 1)
        each.prepare()
        await settled()
        assert connection.is_lost
        assert dialer.begun == 2


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_opened_ahead_at_the_end_is_closed(turns: int, clock: _Clock) -> None:
    """In whichever turn of the loop the end comes, even between the opening and its callbacks."""
    async with origin() as (each, dialer):
        each.prepare()
        for _ in range(turns):
            await asyncio.sleep(0)
        await each.close()
        assert all(connection.is_lost for connection in dialer.opened)
        assert not list(each.idle)
