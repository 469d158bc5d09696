"""Connections to upstreams between calls: nothing that one call leaves there reaches another call."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.support.faults import BREAKS, MODES, Break, entry
from tests.support.harness import running_proxy
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, ask, no_leaks, post, until
from tests.support.streams import CHUNKED, HELLO, as_chunks, judge


def whole(mode: str) -> bytes:
    return CHUNKED + as_chunks(*MODES[mode].values()) + b"0\r\n\r\n"


@pytest.mark.statement("D table")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.RESET])
async def test_stale_connection_is_replaced_at_once(mode: str, fault: Fault) -> None:
    """A reused connection that ends at the next request is the upstream's idle timeout, and not a failure."""
    upstream = RawUpstream(lambda number: [fault] if number == 1 else [whole(mode)])
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream, mode)]) as base:
        for _ in range(2):
            response = await asyncio.wait_for(ask(base, post(HELLO)), 30)
            assert judge(response.events()) == "message_stop"
    assert (len(upstream.heads), upstream.accepted) == (3, 2)
    assert upstream.bodies[1] == upstream.bodies[2]


#: What an upstream, or something between, may write on a connection that nobody asks anything on.
UNASKED = {
    "another_answer": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 15\r\n\r\n"
    b"data: poison!\n\n",
    "idle_timeout": b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "half_an_answer": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
    "rubbish": b"\0\xff poison",
}


@pytest.mark.statement("D table")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("when", ["with_the_answer", "later"])
@pytest.mark.parametrize("name", UNASKED)
async def test_unrequested_response_is_not_used_for_the_next_call(name: str, when: str, mode: str) -> None:
    go_on, said = asyncio.Event(), asyncio.Event()

    def steps(number: int) -> Iterable[Step]:
        if number:
            yield whole(mode)
        elif when == "with_the_answer":
            yield whole(mode) + UNASKED[name]
        else:
            yield whole(mode)
            yield go_on
            yield UNASKED[name]
            said.set()

    upstream = RawUpstream(steps)
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream, mode)]) as base:
        first = await ask(base, post(HELLO))
        if when == "later":
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.wait_for(said.wait(), 30)
            await asyncio.sleep(0.02)  # both ends share this loop: it has been read by then
        second = await ask(base, post(HELLO))
    if (name, when) != ("rubbish", "with_the_answer"):  # one piece that is no HTTP as a whole
        assert (first.status, judge(first.events())) == (200, "message_stop")
    assert (second.status, judge(second.events())) == (200, "message_stop")
    assert b"poison" not in first.body + second.body


@pytest.mark.parametrize("mode", MODES)
async def test_faults_leave_no_objects(mode: str) -> None:
    """Neither objects nor bytes of a call: one that stays per fault is a leak, one that stays once is the pool's."""
    cases = [
        Break(mode, framing, name, whole=5, is_inside=True)
        for name, fault in BREAKS.items()
        for framing in fault.framings
        if mode in fault.modes and Fault.STALL not in fault.steps
    ]

    async def every_fault(base: str) -> None:
        for number in range(len(cases)):
            upstream.current = number
            await ask(base, post(HELLO))

    class Upstream(RawUpstream):
        current = 0

    upstream = Upstream(lambda _: cases[upstream.current].steps)
    async with (
        upstream.running(),
        running_proxy([entry(upstream, mode)], circuit_failures=0, max_retries=0) as base,
    ):
        await every_fault(base)
        await until(lambda: upstream.open_connections == 0)
        await _all_are_told_of(base)
        before = _ours()
        for _ in range(3):
            await every_fault(base)
        await until(lambda: upstream.open_connections == 0)
        await _all_are_told_of(base)
        left = _ours() - before
    del left["proxyd.api.call_details._Remembered"]  # of the last 200 calls, on purpose
    assert {name: count for name, count in left.items() if count >= 3} == {}


async def _all_are_told_of(base: str) -> None:
    """Flush the finished calls, which otherwise wait for their batch."""
    async with RawClient.to(base) as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.response()).status == 200


def _ours() -> Counter[str]:
    """Count live objects of the proxy and of aiohttp, by class."""
    gc.collect()
    return Counter(
        f"{type(each).__module__}.{type(each).__qualname__}"
        for each in gc.get_objects()
        if str(type(each).__module__).startswith(("proxyd", "aiohttp"))
    )


@pytest.mark.parametrize("mode", MODES)
async def test_fault_of_one_call_does_not_affect_others(mode: str) -> None:
    """Streams are complete while others of the same upstream break."""
    events = list(MODES[mode].values())
    go_on = asyncio.Event()

    def steps(number: int) -> Iterable[Step]:
        if number < 5:
            return [CHUNKED, as_chunks(*events[:4]), go_on, as_chunks(*events[4:]), b"0\r\n\r\n"]
        return [CHUNKED, as_chunks(*events[:5]), Fault.RESET if number % 2 else Fault.CLOSE]

    upstream = RawUpstream(steps)
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream, mode)]) as base:
        running = []
        for number in range(5):
            running.append(asyncio.ensure_future(ask(base, post(HELLO))))
            await until(lambda number=number: len(upstream.heads) == number + 1)
        broken = [await ask(base, post(HELLO)) for _ in range(10)]
        go_on.set()
        responses = await asyncio.gather(*running)
    assert {judge(response.events()) for response in broken} == {"error"}
    assert {judge(response.events()) for response in responses} == {"message_stop"}
    assert all(response.is_whole for response in (*responses, *broken))
