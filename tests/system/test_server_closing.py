"""Servers that tests close while a client connects: nothing is left open, in whichever turn of the loop it happens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.raw_sockets import until


class _Protocol(asyncio.Protocol):
    made = 0
    lost = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _Protocol.made += 1

    def connection_lost(self, exc: BaseException | None) -> None:
        _Protocol.lost += 1


async def test_a_connection_accepted_at_the_end_has_its_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Protocol, "made", 0)
    monkeypatch.setattr(_Protocol, "lost", 0)
    loop = asyncio.get_running_loop()
    failures: list[str] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["message"]))
    for turns in range(6):
        server = await loop.create_server(_Protocol, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            for _ in range(turns):
                await asyncio.sleep(0)
            server.close()
        await server.wait_closed()
        assert not server.sockets
    await until(lambda: _Protocol.lost == _Protocol.made)
    assert not failures
    assert _Protocol.made, "one of them is accepted"
