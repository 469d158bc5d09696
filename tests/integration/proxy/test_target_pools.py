"""Entries with targets, through the front door: which entry serves, and what happens when one fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.daemon.server import Daemon
from proxyd.errors import BadCredential, NotFound, Overloaded, Refused, TimedOut, Unreachable
from proxyd.proxy.target_pools import TargetPools, aside_for_target
from tests.support.harness import load_entries, running_upstream
from tests.support.raw_sockets import RawResponse, ask, post
from tests.support.streams import DIRECT, HELLO, TRANSLATED, judge

Behaviour = Callable[[str], Any]


class Service:
    """The proxy in front of three upstreams, which are targets of ``m``.

    Attributes:
        used: the entries that were called, in order.
        upstreams: the base URL of each.
    """

    def __init__(self) -> None:
        self.used: list[str] = []
        self.upstreams: dict[str, str] = {}
        self.base = ""
        self.daemon: Daemon

    async def ask(self, session: str | None = None) -> RawResponse:
        headers = () if session is None else (f"x-claude-code-session-id: {session}",)
        return await ask(self.base, post(HELLO, *headers))

    @property
    def pools(self) -> TargetPools:
        assert self.daemon._relay is not None
        return self.daemon._relay.target_pools

    def state(self, name: str) -> str:
        return str(next(each["state"] for each in self.pools.describe()["m"] if each["name"] == name))


@asynccontextmanager
async def service(
    behaviour: Behaviour, targets: Any = ("b", "c"), *, max_retries: int = 0, **entry: Any
) -> AsyncIterator[Service]:
    """``m`` and ``b`` are translated, ``c`` is direct. `behaviour` returns a response other than the usual one."""
    proxy = Service()

    def handler_of(name: str) -> Callable[[web.Request], Any]:
        async def handler(request: web.Request) -> web.StreamResponse:
            proxy.used.append(name)
            found = behaviour(name)
            if asyncio.iscoroutine(found):
                found = await found
            frames = DIRECT if name == "c" else TRANSLATED
            return found or web.Response(body=b"".join(frames.values()), content_type="text/event-stream")

        return handler

    async with AsyncExitStack() as stack:
        for name in "mbc":
            upstream = await stack.enter_async_context(running_upstream(handler_of(name)))
            proxy.upstreams[name] = upstream.base
        entries = [
            {"model_id": name, "api_base": f"{base}/v1", "direct": name == "c", "api_key": f"a-key-of-{name}"}
            for name, base in proxy.upstreams.items()
        ]
        entries[0] |= {"targets": list(targets), **entry}
        proxy.daemon = Daemon(load_entries(entries, max_retries=max_retries))
        await proxy.daemon.start()
        try:
            proxy.base = "http://{}:{}".format(*proxy.daemon.addresses[0])
            yield proxy
        finally:
            await proxy.daemon.drain()
            await proxy.daemon.close()


def refusal(status: int, **headers: str) -> web.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": {"message": "not now"}}, status=status, headers=names)


async def test_sessions_are_distributed_and_stay() -> None:
    async with service(lambda _: None, ({"use": "b", "weight": 2}, "c")) as proxy:
        for _ in range(3):
            for number in range(8):
                assert judge((await proxy.ask(f"s{number}")).events()) == "message_stop"
        assert Counter(proxy.used) == {"m": 6, "b": 12, "c": 6}
        assert proxy.used[:8] == proxy.used[8:16] == proxy.used[16:]


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500, 503, 529])
async def test_the_next_target_is_tried_within_the_call(status: int) -> None:
    with capture_logs() as lines:
        async with service(lambda name: refusal(status) if name == "m" else None) as proxy:
            assert judge((await proxy.ask("s")).events()) == "message_stop"
            assert proxy.used == ["m", "b"]
            assert proxy.state("m") != "works"
            await proxy.ask("s")
            assert proxy.used == ["m", "b", "b"]
    calls = [line for line in lines if line["event"] == "call.finished"]
    assert [(line["route"], line.get("fallback_from")) for line in calls] == [("b", "m"), ("b", None)]


@pytest.mark.parametrize(("status", "tries"), [(429, 1), (529, 1), (500, 2)])
async def test_a_limit_is_not_waited_for_while_another_target_is_there(status: int, tries: int) -> None:
    async with service(lambda name: refusal(status) if name == "m" else None, max_retries=1) as proxy:
        assert judge((await proxy.ask("s")).events()) == "message_stop"
        assert proxy.used == ["m"] * tries + ["b"]


async def test_what_is_wrong_with_the_request_stays_with_the_target() -> None:
    async with service(lambda _: refusal(400)) as proxy:
        assert (await proxy.ask()).status == 400
        assert proxy.used == ["m"]
        assert proxy.state("m") == "works"


async def test_a_server_that_does_not_run_is_passed_over() -> None:
    async with service(lambda _: None, balance="in_order") as proxy:
        gone = load_entries(
            [
                {
                    "model_id": "m",
                    "api_base": "http://127.0.0.1:9/v1",
                    "api_key": "a-key-of-m",
                    "targets": ["b"],
                },
                {"model_id": "b", "api_base": f"{proxy.upstreams['b']}/v1", "api_key": "a-key-of-b"},
            ],
            max_retries=0,
        )
        proxy.daemon._apply(gone)
        assert judge((await proxy.ask("s")).events()) == "message_stop"
        assert proxy.state("m") == "failing"


async def test_with_all_aside_they_are_tried_nevertheless_and_the_fallback_last() -> None:
    fallen = {"m", "b", "c"}
    async with service(lambda name: refusal(529) if name in fallen else None) as proxy:
        assert (await proxy.ask()).status == 529
        assert proxy.used == ["m", "b", "c"]
        fallen.clear()
        assert judge((await proxy.ask()).events()) == "message_stop"


async def test_in_order_returns_to_the_first_for_new_sessions() -> None:
    is_down = True
    async with service(
        lambda name: refusal(503) if is_down and name == "m" else None, balance="in_order"
    ) as proxy:
        await proxy.ask("old")
        is_down = False
        for member in proxy.pools._pools["m"].members:
            member.readmit()
        await proxy.ask("new")
        await proxy.ask("old")
        assert proxy.used == ["m", "b", "m", "b"]


async def test_least_load_takes_the_one_with_the_fewest_calls() -> None:
    go, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def wait() -> None:
        begun.release()
        await go.wait()

    async with service(lambda _: wait(), balance="least_load") as proxy:
        calls = []
        for _ in range(6):
            calls.append(asyncio.ensure_future(proxy.ask()))
            await begun.acquire()
        assert Counter(proxy.used) == {"m": 2, "b": 2, "c": 2}
        go.set()
        for call in calls:
            assert judge((await call).events()) == "message_stop"


async def test_targets_are_shown() -> None:
    async with service(lambda name: refusal(429, retry_after="60") if name == "m" else None) as proxy:
        await proxy.ask()
        metrics = await ask(proxy.base, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        about = proxy.daemon.about()["targets"]["m"]
    lines = metrics.body.decode().splitlines()
    assert 'proxyd_target_state{route="m",target="m"} 1.0' in lines
    assert 'proxyd_target_state{route="m",target="b"} 0.0' in lines
    assert [(each["name"], each["state"], each["calls"]) for each in about] == [
        ("m", "limited", 0), ("b", "works", 1), ("c", "works", 0),
    ]  # fmt: skip


async def test_a_target_with_keys_is_left_when_all_of_them_are_aside() -> None:
    async with service(lambda name: refusal(429, retry_after="60") if name == "b" else None) as proxy:
        pool = ["key-1-of-b-1234", "key-2-of-b-1234"]
        entries = load_entries(
            [
                {"model_id": "m", "api_base": f"{proxy.upstreams['m']}/v1", "api_key": "a-key-of-m",
                 "targets": ["b", "m"], "balance": "in_order"},
                {"model_id": "b", "api_base": f"{proxy.upstreams['b']}/v1", "api_keys": pool},
            ],
            max_retries=0,
        )  # fmt: skip
        proxy.daemon._apply(entries)
        assert judge((await proxy.ask()).events()) == "message_stop"
        assert proxy.used == ["b", "b", "m"]
        assert proxy.state("b") == "failing"


def test_failures_that_another_target_may_not_have() -> None:
    def found(exc: Any) -> tuple[str, float | None] | None:
        aside = aside_for_target(exc)
        return None if aside is None else (aside.why, aside.seconds)

    assert found(TimedOut("x")) == ("slow", None)
    assert found(Unreachable("x")) == ("not reachable", None)
    assert found(Overloaded("x", headers={"retry-after": "3"})) == ("failing", 3)
    assert found(BadCredential("x")) == ("without a key", None)
    assert found(Refused("x", status=402, kind="billing_error")) == ("out of credit", 3600)
    assert found(Refused("x", status=400, kind="invalid_request_error")) is None
    assert found(NotFound("x")) is None
