"""The live feed: messages, sums, and listeners that do not read."""

from __future__ import annotations

import json
from typing import Any

from proxyd.codecs.anthropic.usage import Usage
from proxyd.telemetry.ledger_schema import row_of
from proxyd.telemetry.live_feed import LiveFeed
from tests.support.observing import finished, in_flight


def parsed(message: bytes) -> tuple[str, dict[str, Any]]:
    event, data = message.decode().strip().split("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_hello_has_the_calls_before_and_call_follows() -> None:
    running = in_flight(outcome="running", first_byte=None, ended=None)
    feed = LiveFeed(lambda: [running])
    before, after = finished(request_id="req_1"), finished(request_id="req_2", error="it broke")
    feed.observe(before, row_of(before))
    listener = feed.listen()
    event, hello = parsed(await anext(listener))
    assert event == "hello"
    assert [call["request_id"] for call in hello["recent"]] == ["req_1"]
    (active,) = hello["active"]
    assert (active["phase"], active["output_tokens"]) == ("waiting", 0)
    feed.observe(after, row_of(after))
    event, call = parsed(await anext(listener))
    assert (event, call["request_id"], call["error"]) == ("call", "req_2", "it broke")
    await listener.aclose()
    await feed.close()


def test_totals_by_route_without_token_counts() -> None:
    feed = LiveFeed(tuple)
    for call in (
        finished(usage=Usage(1, 2, 3, 4, None)),
        finished(usage=Usage(1, 2, 3, 4, None), outcome="failed", first_byte=None),
        finished(kind="count"),
    ):
        feed.observe(call, row_of(call))
    (totals,) = feed.totals()
    assert totals == {
        "route": "m", "calls": 2, "failures": 1, "cost_usd": 0.0, "input_tokens": 2, "output_tokens": 4,
        "cache_read_tokens": 6, "cache_write_tokens": 8, "ttfb_ms": 250,
    }  # fmt: skip
    assert len(feed.recent()) == 3


async def test_listener_that_never_reads_is_disconnected() -> None:
    feed = LiveFeed(tuple)
    stuck, reading = feed.listen(), feed.listen()
    await anext(stuck)
    await anext(reading)
    seen = 0
    for _ in range(300):
        call = finished()
        feed.observe(call, row_of(call))
        await anext(reading)
        seen += 1
    assert seen == 300
    left = [message async for message in stuck]
    assert len(left) < 200
    await reading.aclose()
    await feed.close()
