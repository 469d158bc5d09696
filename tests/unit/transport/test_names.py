"""Addresses of names: kept for a minute, looked up once at a time, and again ahead of their end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxyd.transport import names as module
from proxyd.transport.faults import NameNotResolved
from proxyd.transport.lookups import Lookups
from proxyd.transport.names import Address, Names


class _Resolver:
    """Stands in for the system's; `asked` are the names that it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: tuple[int, str]) -> None:
        self.asked: list[str] = []
        self.found = list(found) or [(socket.AF_INET, "127.0.0.1")]
        self.failure: OSError | None = None
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if self.failure is not None:
            raise self.failure
        return [
            (
                family,
                socket.SOCK_STREAM,
                6,
                "",
                (name, port) if family == socket.AF_INET else (name, port, 0, 0),
            )
            for family, name in self.found
        ]


async def test_a_numeric_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, names = _Resolver(monkeypatch), Names(Lookups())
    assert await names.addresses_of("127.0.0.2", 80) == (Address(socket.AF_INET, ("127.0.0.2", 80)),)
    assert await names.addresses_of("::1", 80) == (Address(socket.AF_INET6, ("::1", 80, 0, 0)),)
    assert resolver.asked == []


async def test_addresses_are_kept_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, names = _Resolver(monkeypatch), Names(Lookups(), is_kept_fresh=False)
    for _ in range(3):
        assert await names.addresses_of("host", 80) == (Address(socket.AF_INET, ("127.0.0.1", 80)),)
    assert resolver.asked == ["host"]
    monkeypatch.setattr(module, "_KEPT_S", 0.0)
    names.forget("host", 80)
    for _ in range(2):
        await names.addresses_of("host", 80)
    assert resolver.asked == ["host"] * 3


async def test_concurrent_callers_share_one_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, names = _Resolver(monkeypatch), Names(Lookups(), is_kept_fresh=False)
    tasks = [asyncio.ensure_future(names.addresses_of("host", 80)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # the others still get it
    assert len(set(await asyncio.gather(*tasks[1:]))) == 1
    assert resolver.asked == ["host"]


async def test_a_failure_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, names = _Resolver(monkeypatch), Names(Lookups(), is_kept_fresh=False)
    resolver.failure = socket.gaierror(socket.EAI_NONAME, "no such host")
    with pytest.raises(NameNotResolved) as raised:
        await names.addresses_of("host", 80)
    assert raised.value.cause.errno == socket.EAI_NONAME
    resolver.failure = None
    assert await names.addresses_of("host", 80)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "a..b"])
async def test_what_is_no_host_name_has_no_address(host: str) -> None:
    with pytest.raises(NameNotResolved):
        await Names(Lookups()).addresses_of(host, 80)


async def test_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    four, six = socket.AF_INET, socket.AF_INET6
    _Resolver(monkeypatch, (six, "::1"), (six, "::2"), (six, "::3"), (four, "127.0.0.1"))
    names = Names(Lookups(), is_kept_fresh=False)
    assert [each.sockaddr[0] for each in await names.addresses_of("host", 80)] == [
        "::1",
        "127.0.0.1",
        "::2",
        "::3",
    ]


async def test_a_name_in_use_is_looked_up_again_before_its_addresses_are_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_AHEAD_S", 0.03)
    resolver, names = _Resolver(monkeypatch), Names(Lookups())
    await names.addresses_of("host", 80)
    resolver.found = [(socket.AF_INET, "127.0.0.9")]
    for _ in range(3000):
        await asyncio.sleep(0.01)
        if len(resolver.asked) > 2:
            break
    assert len(resolver.asked) > 2
    assert (await names.addresses_of("host", 80))[0].sockaddr[0] == "127.0.0.9"
    await names.close()


async def test_a_name_that_no_call_uses_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AHEAD_S", 0.01)
    monkeypatch.setattr(module, "ACTIVE_S", 0.0)
    resolver, names = _Resolver(monkeypatch), Names(Lookups())
    await names.addresses_of("host", 80)
    await asyncio.sleep(0.1)
    assert resolver.asked == ["host"]
    await names.addresses_of("host", 80)
    assert resolver.asked == ["host"] * 2
    await names.close()


async def test_a_name_that_was_forgotten_is_looked_up_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AHEAD_S", 0.2)
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reports.append(what))
    resolver, names = _Resolver(monkeypatch), Names(Lookups())
    for _ in range(3):
        await names.addresses_of("host", 80)
        names.forget("host", 80)
    assert resolver.asked == ["host"] * 3
    await asyncio.sleep(0.3)
    assert resolver.asked == ["host"] * 3  # nobody has asked since it was forgotten
    assert reports == []
    await names.close()
