"""The TLS context for upstreams: made once, in a thread, when it is first needed."""

from __future__ import annotations

import asyncio
import ssl
import threading

import pytest

from proxyd.transport.pool import ConnectionPool
from proxyd.transport.tls import TLSContext


@pytest.fixture
def made_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which contexts were made."""
    threads: list[int] = []
    make = ssl.create_default_context

    def watched(*, cafile: str | None = None) -> ssl.SSLContext:
        threads.append(threading.get_ident())
        return make(cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", watched)
    return threads


async def test_context_is_made_once_and_in_a_thread(made_in: list[int]) -> None:
    context = TLSContext()
    assert made_in == []
    first, *others = await asyncio.gather(*(context.get() for _ in range(5)), context.get())
    assert all(each is first for each in others)
    assert await context.get() is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    assert len(made_in) == 1
    assert made_in[0] != threading.get_ident()


async def test_call_that_is_cancelled_leaves_the_context_to_others(made_in: list[int]) -> None:
    context = TLSContext()
    one = asyncio.ensure_future(context.get())
    other = asyncio.ensure_future(context.get())
    await asyncio.sleep(0)
    one.cancel()
    assert isinstance(await other, ssl.SSLContext)
    assert len(made_in) == 1


async def test_failure_is_not_kept() -> None:
    context = TLSContext("/nowhere/ca.pem")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await context.get()


async def test_pool_without_tls_upstreams_makes_none(made_in: list[int]) -> None:
    await ConnectionPool().close()
    assert made_in == []
