"""Retries, their budget, circuits and fallbacks, through the front door.

See docs/spec/operations.md#d2 to #d4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.proxy import retries
from proxyd.proxy.retries import RetryBudget
from tests.support.harness import running_proxy
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, ask, no_leaks, post, until
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks, judge

GOOD: Sequence[Step] = (CHUNKED, as_chunks(*TRANSLATED.values()), b"0\r\n\r\n")


def refusal(status: int, *headers: str) -> Sequence[Step]:
    body = b'{"error":{"message":"not now","type":"server_error"}}'
    lines = [
        f"HTTP/1.1 {status} No",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
        *headers,
    ]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


def entry(upstream: RawUpstream, name: str = "m", **more: Any) -> dict[str, Any]:
    return {"model_id": name, "api_base": f"{upstream.base}/v1", **more}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_DELAY_S", 0.01)


DATES = ("date: Mon, 23 Nov 2026 08:00:00 GMT", "retry-after: Mon, 23 Nov 2026 08:00:30 GMT")

#: The upstream's responses, whether direct -> how many attempts, the status that the client sees.
RETRIES: dict[str, tuple[list[Sequence[Step]], bool, int, int]] = {
    "one_500": ([refusal(500), GOOD], False, 2, 200),
    "two_503": ([refusal(503), refusal(503), GOOD], False, 3, 200),
    "three_503": ([refusal(503)] * 4, False, 3, 529),
    "one_429": ([refusal(429), GOOD], False, 2, 200),
    "one_408": ([refusal(408), GOOD], False, 2, 200),
    "a_400_never": ([refusal(400), GOOD], False, 1, 400),
    "a_401_never": ([refusal(401), GOOD], False, 1, 401),
    "retry_after_soon": ([refusal(429, "retry-after: 0"), GOOD], False, 2, 200),
    "retry_after_too_long": ([refusal(429, "retry-after: 11"), GOOD], False, 1, 429),
    "retry_after_a_date": ([refusal(503, *DATES), GOOD], False, 1, 529),
    "direct_leaves_a_500_to_the_client": ([refusal(500), GOOD], True, 1, 500),
    "direct_leaves_a_429_to_the_client": ([refusal(429), GOOD], True, 1, 429),
    "direct_passes_retry_after_on": ([refusal(429, "retry-after: 3"), GOOD], True, 1, 429),
    "retry_after_just_soon_enough": ([refusal(503, "retry-after: 0.01"), GOOD], False, 2, 200),
    "retry_after_that_is_none": ([refusal(429, "retry-after: nan"), GOOD], False, 2, 200),
    "retry_after_of_the_past": ([refusal(429, "retry-after: -1"), GOOD], False, 2, 200),
    "one_529": ([refusal(529), GOOD], False, 2, 200),
    "a_413_never": ([refusal(413), GOOD], False, 1, 413),
    "a_422_never": ([refusal(422), GOOD], False, 1, 400),
    "a_connection_that_dies": ([[Fault.CLOSE], GOOD], False, 2, 200),
    "two_connections_that_die": ([[Fault.RESET], [Fault.CLOSE], GOOD], False, 3, 200),
    "never_after_the_head": ([[CHUNKED, Fault.CLOSE], GOOD], False, 1, 502),
}


#: ``retry-after`` values that are too long to wait for, which the client is sent.
PASSED_ON = {
    "retry_after_too_long": "11",
    "retry_after_a_date": "30",
    "direct_passes_retry_after_on": "3",
}


@pytest.mark.statement("D2")
@pytest.mark.parametrize("name", RETRIES)
async def test_retries(name: str) -> None:
    responses, is_direct, asked, status = RETRIES[name]
    upstream = RawUpstream(lambda number: responses[number])
    with capture_logs() as lines:
        async with no_leaks(), upstream.running():
            async with running_proxy([entry(upstream, direct=is_direct)]) as base:
                response = await ask(base, post(HELLO))
    assert (len(upstream.heads), response.status) == (asked, status)
    assert len({*upstream.bodies}) == 1, "a retry sends the same"
    (line,) = [line for line in lines if line["event"] == "call.finished"]
    assert line["retries"] == asked - 1
    assert sum(line["event"] == "upstream.retry" for line in lines) == asked - 1
    if name in PASSED_ON:
        assert response.headers["retry-after"] == PASSED_ON[name]


@pytest.mark.statement("D3")
async def test_first_error_is_returned_over_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryBudget, "has_room", lambda self, active: False)
    upstream = RawUpstream(lambda _: refusal(500))
    async with upstream.running(), running_proxy([entry(upstream)]) as base:
        assert (await ask(base, post(HELLO))).status == 500
    assert len(upstream.heads) == 1


@pytest.mark.statement("D3")
async def test_running_retries_count_as_well_as_waiting_ones() -> None:
    """Of thirty calls that fail one after the other at most six are retried at any time."""
    calls, running, most = 30, 0, 0
    turns = [asyncio.Event() for _ in range(calls)]
    the_end = asyncio.Event()

    def steps(number: int) -> Iterable[Step]:
        if number < calls:
            return [turns[number], *refusal(503)]

        def retried() -> Iterator[Step]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            yield the_end
            running -= 1
            yield from refusal(503)

        return retried()

    upstream = RawUpstream(steps)
    with capture_logs() as lines:
        async with no_leaks(), upstream.running():
            async with running_proxy([entry(upstream)], circuit_failures=0, max_retries=1) as base:
                asked = [asyncio.ensure_future(ask(base, post(HELLO))) for _ in range(calls)]
                await until(lambda: len(upstream.heads) == calls, 30)
                for number, turn in enumerate(turns):
                    turn.set()

                    def is_decided(number: int = number) -> bool:
                        events = [line["event"] for line in lines]
                        again = len(upstream.heads) - calls
                        return again + events.count("call.finished") == number + 1

                    await until(is_decided, 30)
                the_end.set()
                responses = await asyncio.gather(*asked)
    assert {response.status for response in responses} == {529}
    assert 3 <= most <= 6


@pytest.mark.statement("D3")
async def test_retry_ends_when_its_stream_begins() -> None:
    """Otherwise three long responses would use up the budget."""
    the_end, asked = asyncio.Event(), 5

    def steps(number: int) -> Iterable[Step]:
        if number % 2 == 0:
            return refusal(503)
        return [
            CHUNKED,
            as_chunks(*list(TRANSLATED.values())[:4]),
            the_end,
            as_chunks(*list(TRANSLATED.values())[4:]),
        ]

    upstream = RawUpstream(lambda number: [*steps(number), b"0\r\n\r\n"] if number % 2 else steps(number))
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream)]) as base:
        async with AsyncExitStack() as stack:
            clients = []
            for _ in range(asked):
                clients.append(await stack.enter_async_context(RawClient.to(base)))
                await clients[-1].send(post(HELLO))
                await until(lambda: len(upstream.heads) == 2 * len(clients), 30)
            the_end.set()
            responses = [await client.response() for client in clients]
    assert [judge(response.events()) for response in responses] == ["message_stop"] * asked


@pytest.mark.statement("D4")
async def test_open_circuit_refuses_at_once_and_lets_a_fallback_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyd.transport.circuit_breaker._MAX_LOOPBACK_OPEN_S", 30)
    sick = RawUpstream(lambda number: [Fault.CLOSE] if number % 2 else refusal(503))
    well = RawUpstream(lambda _: GOOD)
    with capture_logs() as lines:
        async with no_leaks(), sick.running(), well.running():
            entries = [entry(sick, fallback=["spare"]), entry(well, "spare"), entry(sick, "alone")]
            async with running_proxy(entries, max_retries=0) as base:
                for _ in range(5):
                    assert judge((await ask(base, post(HELLO))).events()) == "message_stop"
                assert len(sick.heads) == 5
                for _ in range(3):
                    response = await ask(base, post(HELLO))
                    assert response.headers["x-claude-proxy-route"] == "spare"
                assert len(sick.heads) == 5, "no call is made while the circuit is open"
                async with RawClient.to(base) as client:
                    await client.send(post({**HELLO, "model": "alone"}))
                    refused = await client.response()
    assert (refused.status, refused.error()[0]) == (529, "overloaded_error")
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    (changed,) = [line for line in lines if line["event"] == "circuit.changed"]
    assert (changed["origin"], changed["state"], changed["failures"]) == (sick.base, "open", 5)


@pytest.mark.statement("D4")
async def test_successful_trial_closes_the_circuit() -> None:
    upstream = RawUpstream(lambda number: refusal(502) if number < 2 else GOOD)
    settings = {"max_retries": 0, "circuit_failures": 2, "circuit_open_s": 0.001}
    async with no_leaks(), upstream.running(), running_proxy([entry(upstream)], **settings) as base:
        statuses = [(await ask(base, post(HELLO))).status for _ in range(3)]
    assert statuses == [502, 502, 200]


@pytest.mark.statement("D4")
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
async def test_errors_of_the_upstream_itself_open_no_circuit(status: int) -> None:
    upstream = RawUpstream(lambda _: refusal(status))
    async with upstream.running(), running_proxy([entry(upstream)], max_retries=0) as base:
        for _ in range(7):
            await ask(base, post(HELLO))
    assert len(upstream.heads) == 7
