"""Admission of calls, and the registry of those in flight."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from proxyd.config.settings import Settings
from proxyd.errors import Overloaded
from proxyd.proxy.admission import CallRegistry
from proxyd.telemetry.call_record import CallRecord
from tests.support.harness import load_entries

SETTINGS = replace(Settings(), max_streams=2, max_streams_per_route=1)


def _call(request_id: str, route: str = "m") -> Any:
    return SimpleNamespace(record=CallRecord(request_id=request_id, route=route))


async def test_calls_in_flight_are_limited() -> None:
    registry = CallRegistry()
    first, second = _call("one"), _call("two")
    registry.admit(first, SETTINGS)
    registry.admit(second, SETTINGS)
    with pytest.raises(Overloaded, match="max_streams") as caught:
        registry.admit(_call("three"), SETTINGS)
    assert caught.value.headers == {"retry-after": "1"}
    assert registry.records == [first.record, second.record]
    registry.remove(first)
    registry.admit(_call("three"), SETTINGS)
    assert len(registry) == 2


async def test_calls_of_one_route_are_limited() -> None:
    registry = CallRegistry()
    table = load_entries([{"model_id": "m", "api_base": "http://127.0.0.1:1/v1"}]).config.table
    route = table.resolve("m")
    assert route is not None
    registry.admit(_call("one"), SETTINGS)
    registry.check_route_limit(route, SETTINGS)
    registry.admit(_call("two"), SETTINGS)
    with pytest.raises(Overloaded, match="max_streams_per_route"):
        registry.check_route_limit(route, SETTINGS)
    registry.check_route_limit(route, replace(SETTINGS, max_streams_per_route=0))


async def test_draining_admits_none_and_is_idle_after_the_last() -> None:
    registry = CallRegistry()
    call = _call("one")
    registry.admit(call, SETTINGS)
    registry.is_draining = True
    with pytest.raises(Overloaded, match="shutting down"):
        registry.admit(_call("two"), SETTINGS)
    waiting = asyncio.ensure_future(registry.until_idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    registry.remove(_call("never admitted"))
    assert not waiting.done()
    registry.remove(call)
    await asyncio.wait_for(waiting, 30)
