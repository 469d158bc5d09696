"""Connections that are ready before they are needed, and requests that go once more on a new one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from proxyd.transport import origin as module
from tests.support.faults import MODES, entry
from tests.support.harness import running_proxy
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, ask, no_leaks, post, until
from tests.support.streams import CHUNKED, HELLO, as_chunks, judge


def whole(mode: str, *headers: bytes) -> bytes:
    head = CHUNKED.removesuffix(b"\r\n") + b"".join(line + b"\r\n" for line in headers) + b"\r\n"
    return head + as_chunks(*MODES[mode].values()) + b"0\r\n\r\n"


async def called(base: str, **more: Any) -> None:
    response = await ask(base, post({**HELLO, **more}))
    assert (response.status, judge(response.events())) == (200, "message_stop")


def close_idle(upstream: RawUpstream) -> None:
    for writer in upstream.writers:
        writer.close()


async def without_idle(upstream: RawUpstream) -> int:
    """End the idle connection that a call has left and the one that follows it; returns how many there have been."""
    before = upstream.accepted
    close_idle(upstream)
    await until(lambda: (upstream.accepted, upstream.open_connections) == (before + 1, 1))
    close_idle(upstream)
    await until(lambda: upstream.open_connections == 0)
    await asyncio.sleep(0.05)  # both ends share this loop: the proxy has seen it by then
    return upstream.accepted


# -- ahead of a call


@pytest.mark.parametrize("mode", MODES)
async def test_nothing_is_opened_before_a_call(mode: str) -> None:
    upstream = RawUpstream(lambda _: [whole(mode)])
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream, mode)], keep_warm=True) as base:
        async with RawClient.to(base) as client:
            for path in (b"/v1/models", b"/healthz", b"/api/hello"):
                await client.send(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await client.response()).status == 200
        await asyncio.sleep(0.1)
        assert upstream.accepted == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
async def test_the_connection_is_opened_while_the_body_arrives(mode: str, is_known: bool) -> None:
    """To the upstream of the model that stands near the start."""
    upstreams = [RawUpstream(lambda _: [whole(mode)]) for _ in range(2)]
    async with no_leaks(), upstreams[0].running(), upstreams[1].running():
        entries = [
            {**entry(each, mode), "model_id": name} for each, name in zip(upstreams, "mn", strict=True)
        ]
        async with running_proxy(entries, keep_warm=True) as base:
            if is_known:
                await called(base, model="m")
                await called(base, model="n")
                await without_idle(upstreams[1])
            before = [each.accepted for each in upstreams]
            request = post({"model": "n", **{k: v for k, v in HELLO.items() if k != "model"}})
            async with RawClient.to(base) as client:
                await client.send(request[:-20])
                await until(lambda: upstreams[1].accepted == before[1] + 1)
                assert len(upstreams[1].heads) == is_known
                await client.send(request[-20:])
                response = await client.response()
            assert judge(response.events()) == "message_stop"
            assert upstreams[1].accepted == before[1] + 1
            assert upstreams[0].accepted == before[0]


async def test_where_the_model_comes_late_it_is_the_upstream_of_the_last_call() -> None:
    upstream = RawUpstream(lambda _: [whole("direct")])
    late = json.dumps({**{k: v for k, v in HELLO.items() if k != "model"}, "model": "m"}).encode()
    async with no_leaks(), upstream.running():
        async with running_proxy([entry(upstream, "direct")], keep_warm=True) as base:
            await called(base)
            before = await without_idle(upstream)
            request = post(late)
            async with RawClient.to(base) as client:
                await client.send(request[: -len(late)] + late[:30])
                await until(lambda: upstream.accepted == before + 1)
                await client.send(late[30:])
                assert judge((await client.response()).events()) == "message_stop"
            assert upstream.accepted == before + 1


async def test_a_body_that_is_no_request_leaves_its_connection_for_the_next() -> None:
    upstream = RawUpstream(lambda _: [whole("direct")])
    async with no_leaks(), upstream.running():
        async with running_proxy([entry(upstream, "direct")], keep_warm=True) as base:
            request = post(b'{"model":"m","messages":[nonsense, and more of it]}')
            async with RawClient.to(base) as client:
                await client.send(request[:-10])
                await until(lambda: upstream.accepted == 1)
                await client.send(request[-10:])
                assert (await client.response()).status == 400
            await called(base)
            assert (upstream.accepted, len(upstream.heads)) == (1, 1)


# -- between calls


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_that_the_upstream_closes_is_opened_again(mode: str) -> None:
    upstream = RawUpstream(lambda _: [whole(mode)])
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream, mode)], keep_warm=True) as base:
        await called(base)
        close_idle(upstream)
        await until(lambda: (upstream.accepted, upstream.open_connections) == (2, 1))
        await called(base)
        assert upstream.accepted == 2
        close_idle(upstream)  # at most once a minute
        await asyncio.sleep(0.2)
        assert (upstream.accepted, upstream.open_connections) == (2, 0)
        await called(base)
        assert upstream.accepted == 3


async def test_an_upstream_that_closes_after_each_response_is_called_on_a_connection_that_is_ready() -> None:
    upstream = RawUpstream(lambda _: [whole("direct", b"Connection: close"), Fault.CLOSE])
    async with no_leaks(), upstream.running():
        async with running_proxy([entry(upstream, "direct")], keep_warm=True) as base:
            await called(base)
            await until(lambda: upstream.accepted == 2)
            assert len(upstream.heads) == 1
            for _ in range(3):
                await called(base)
            assert (upstream.accepted, len(upstream.heads)) == (4, 4)


@pytest.mark.parametrize("why", ["the setting is off", "no call for ten minutes"])
async def test_no_connection_is_kept_ready(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "no call for ten minutes":
        monkeypatch.setattr(module, "ACTIVE_S", 0.0)
    upstream = RawUpstream(lambda _: [whole("direct")])
    async with no_leaks(), upstream.running():
        entries = [entry(upstream, "direct")]
        async with running_proxy(entries, keep_warm=why != "the setting is off") as base:
            await called(base)
            close_idle(upstream)
            await until(lambda: upstream.open_connections == 0)
            await asyncio.sleep(0.2)
            assert upstream.accepted == 1


async def test_a_call_after_the_upstream_has_gone_says_so() -> None:
    """The connection that is kept ready can't be opened again: the next call says why."""
    async with no_leaks(), AsyncExitStack() as stack:
        upstream = RawUpstream(lambda _: [whole("direct")])
        async with upstream.running():
            base = await stack.enter_async_context(
                running_proxy([entry(upstream, "direct")], keep_warm=True, max_retries=0)
            )
            await called(base)
        for _ in range(3):
            response = await ask(base, post(HELLO))
            assert (response.status, "connection refused" in response.error()[1]) == (502, True)


async def test_an_idle_connection_is_not_used_longer_than_the_upstream_says() -> None:
    upstream = RawUpstream(lambda _: [whole("direct", b"Keep-Alive: timeout=1")])
    async with no_leaks(), upstream.running():
        async with running_proxy([entry(upstream, "direct")]) as base:
            for _ in range(2):
                await called(base)
            assert upstream.accepted == 2


async def test_idle_connections_end_with_the_setting() -> None:
    upstream = RawUpstream(lambda _: [whole("direct")])
    async with no_leaks(), upstream.running():
        async with running_proxy([entry(upstream, "direct")], idle_connection_s=0.0) as base:
            for _ in range(2):
                await called(base)
            assert upstream.accepted == 2
        async with running_proxy([entry(upstream, "direct")], idle_connection_s=0.1) as base:
            await called(base)
            await until(lambda: upstream.open_connections == 0)


# -- once more


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.RESET])
@pytest.mark.parametrize("is_unused", [False, True], ids=["used", "kept ready"])
async def test_a_request_goes_once_more_where_an_idle_connection_has_ended(
    mode: str, fault: Fault, is_unused: bool
) -> None:
    upstream = RawUpstream(lambda number: [fault] if number == 1 else [whole(mode)])
    settings = {"max_retries": 0, "keep_warm": is_unused}
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream, mode)], **settings) as base:
        await called(base)
        if is_unused:
            close_idle(upstream)
            await until(lambda: (upstream.accepted, upstream.open_connections) == (2, 1))
        await called(base)
        assert (len(upstream.heads), upstream.accepted) == (3, 2 + is_unused)
        assert upstream.bodies[1] == upstream.bodies[2]


#: What an upstream does with every request after the first: steps -> how often a request arrives.
ONCE: dict[str, tuple[tuple[Step, ...], int]] = {
    "it ends again": ((Fault.CLOSE,), 2),
    "a byte of a response": ((b"H", Fault.CLOSE), 1),
    "half a head": ((CHUNKED[:30], Fault.RESET), 1),
    "an interim response": ((b"HTTP/1.1 103 Early Hints\r\n\r\n", Fault.CLOSE), 1),
    "a head": ((CHUNKED, Fault.CLOSE), 1),
    "silence": ((Fault.STALL,), 1),
    "rubbish": ((b"rubbish\r\n\r\n", Fault.CLOSE), 1),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ONCE)
async def test_a_request_goes_once_more_in_no_other_case(mode: str, case: str) -> None:
    steps, times = ONCE[case]

    def play(number: int) -> Iterable[Step]:
        return steps if number else [whole(mode)]

    upstream = RawUpstream(play)
    settings = {"max_retries": 0, "first_byte_s": 0.3, "idle_s": 0.3}
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream, mode)], **settings) as base:
        await called(base)
        response = await ask(base, post(HELLO))
        assert response.status in (502, 504)
        assert len(upstream.heads) == 1 + times


@pytest.mark.parametrize("mode", MODES)
async def test_a_request_on_a_new_connection_goes_once(mode: str) -> None:
    upstream = RawUpstream(lambda _: [Fault.CLOSE])
    async with no_leaks(), upstream.running():
        async with running_proxy([entry(upstream, mode)], max_retries=0) as base:
            response = await ask(base, post(HELLO))
        assert (response.status, len(upstream.heads)) == (502, 1)
        assert f"127.0.0.1:{upstream.port}" in response.error()[1]
