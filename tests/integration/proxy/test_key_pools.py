"""Entries with several keys, through the front door: which key serves, and what happens when one is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.daemon.server import Daemon
from proxyd.errors import BadReply, Refused, Truncated, UpstreamOverloaded
from proxyd.proxy import key_pools
from proxyd.proxy.key_pools import aside_for, aside_for_type
from tests.support.harness import load_entries, running_upstream
from tests.support.raw_sockets import RawResponse, ask, post
from tests.support.streams import DIRECT, HELLO, TRANSLATED, judge

KEYS = {name: f"sk-secret-of-{name}-0123456789" for name in "ABC"}
MODES = [True, False]
BODY = web.RequestKey("body", dict)
Behaviour = Callable[[str, web.Request], Any]


def error(status: int, kind: str, *, direct: bool, **headers: str) -> web.Response:
    """An error of the upstream, which repeats no key."""
    body = {"error": {"type": kind, "message": f"{kind} here"}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"type": "error", **body} if direct else body, status=status, headers=names)


def stream(*frames: bytes) -> web.Response:
    return web.Response(body=b"".join(frames), content_type="text/event-stream")


def overload_inside(direct: bool) -> web.Response:
    """An overload inside a response of status 200, before any content."""
    failure = {"error": {"type": "overloaded_error", "message": "Overloaded"}}
    if not direct:
        return stream(b"data: " + json.dumps(failure).encode() + b"\n\n")
    return stream(
        DIRECT["role"], b"event: error\ndata: " + json.dumps({"type": "error", **failure}).encode() + b"\n\n"
    )


class Service:
    """The proxy in front of one upstream that knows the keys by name.

    Attributes:
        used: the names of the keys, in the order of the requests.
    """

    def __init__(self, daemon: Daemon, base: str, direct: bool, used: list[str]) -> None:
        self.daemon, self.base, self.direct, self.used = daemon, base, direct, used

    async def ask(self, session: str | None = None, **more: Any) -> RawResponse:
        headers = () if session is None else (f"x-claude-code-session-id: {session}",)
        return await ask(self.base, post({**HELLO, **more}, *headers))

    @property
    def pools(self) -> key_pools.KeyPools:
        assert self.daemon._relay is not None
        return self.daemon._relay.key_pools

    def key(self, name: str) -> dict[str, Any]:
        return next(each for each in self.pools.describe()["m"] if each["name"] == name)


@asynccontextmanager
async def service(
    direct: bool, behaviour: Behaviour, names: str = "ABC", *, entries: Any = (), **settings: Any
) -> AsyncIterator[Service]:
    """Serve `HELLO`, except where `behaviour` returns another response for a key."""
    used: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        sent = request.headers.get("x-api-key") or request.headers["authorization"].removeprefix("Bearer ")
        name = next((name for name, key in KEYS.items() if key == sent), sent)
        used.append(name)
        request[BODY] = await request.json()
        found = behaviour(name, request)
        if isinstance(found, web.StreamResponse):
            return found
        return stream(*(DIRECT if direct else TRANSLATED).values())

    async with running_upstream(handler) as upstream:
        pool = [{"key": KEYS[name], "name": name} for name in names]
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": direct, "api_keys": pool}
        daemon = Daemon(load_entries([entry, *entries], **settings))
        await daemon.start()
        try:
            host, port = daemon.addresses[0]
            yield Service(daemon, f"http://{host}:{port}", direct, used)
        finally:
            await daemon.drain()
            await daemon.close()


REFUSALS = {
    401: ("authentication_error", 3600),
    402: ("billing_error", 3600),
    403: ("permission_error", 3600),
    429: ("rate_limit_error", 30),
}


@pytest.mark.parametrize("direct", MODES)
@pytest.mark.parametrize("status", REFUSALS)
async def test_the_next_key_is_tried_within_the_call(status: int, direct: bool) -> None:
    kind, seconds = REFUSALS[status]
    with capture_logs() as lines:
        async with service(
            direct, lambda key, _: error(status, kind, direct=direct) if key == "A" else None
        ) as proxy:
            begun = time.monotonic()
            response = await proxy.ask("s1")
            assert time.monotonic() - begun < 20, "without a delay"
            assert judge(response.events()) == "message_stop"
            assert proxy.used == ["A", "B"]
            assert proxy.key("A")["for_s"] == pytest.approx(seconds, abs=5)
            assert proxy.key("A")["state"] == ("limited" if status == 429 else "refused")
            await proxy.ask("s1")
            assert proxy.used[2:] == ["B"], "it is not asked again, and the session stays"
            assert [(proxy.key(name)["calls"], proxy.key(name)["failures"]) for name in "ABC"] == [
                (0, 1), (2, 0), (0, 0),
            ]  # fmt: skip
            assert proxy.key("B")["output_tokens"] > 0
    (aside,) = [line for line in lines if line["event"] == "upstream.key_set_aside"]
    assert (aside["route"], aside["served_with"]) == ("m", "A")
    calls = [line for line in lines if line["event"] == "call.finished"]
    assert [(line["served_with"], line["retries"]) for line in calls] == [("B", 1), ("B", 0)]
    assert "sk-secret" not in repr(lines)


@pytest.mark.parametrize("direct", MODES)
async def test_overload_inside_a_response_is_not_shown_to_the_client(direct: bool) -> None:
    async with service(direct, lambda key, _: overload_inside(direct) if key == "A" else None) as proxy:
        response = await proxy.ask()
        assert (response.status, judge(response.events())) == (200, "message_stop")
        assert proxy.used == ["A", "B"]
        assert (proxy.key("A")["state"], proxy.key("A")["why"]) == ("limited", "overloaded")


@pytest.mark.parametrize("direct", MODES)
async def test_retry_after_says_for_how_long(direct: bool) -> None:
    def behaviour(key: str, _: web.Request) -> Any:
        return error(429, "rate_limit_error", direct=direct, retry_after="700") if key == "A" else None

    async with service(direct, behaviour) as proxy:
        await proxy.ask()
        assert proxy.key("A")["for_s"] == pytest.approx(700, abs=60)
        assert proxy.key("A")["until"] == pytest.approx(time.time() + 700, abs=60)


@pytest.mark.parametrize("direct", MODES)
async def test_with_all_keys_aside_the_call_fails_with_the_earliest_time(direct: bool) -> None:
    waits = {"A": "90", "B": "40", "C": "60"}

    def behaviour(key: str, _: web.Request) -> Any:
        return error(429, "rate_limit_error", direct=direct, retry_after=waits[key])

    async with service(direct, behaviour) as proxy:
        for _ in range(2):
            response = await proxy.ask()
            assert response.status == 529
            assert response.headers["retry-after"] in ("39", "40")
            kind, message = response.error()
            assert kind == "overloaded_error"
            assert message.startswith(
                "all 3 keys of model 'm' are set aside (A is at its rate limit, B is at its rate limit, C is at its "
                "rate limit); the first one is tried again in "
            )
        assert proxy.used == ["A", "B", "C"], "the second call asked nobody"


async def test_refused_keys_stop_the_clients_retries_and_let_a_fallback_serve() -> None:
    def behaviour(key: str, _: web.Request) -> Any:
        return error(401, "authentication_error", direct=False) if key in KEYS else None

    async with service(False, behaviour, "AB") as proxy:
        response = await proxy.ask()
        assert (response.status, response.headers["x-should-retry"]) == (529, "false")
        assert "A is refused as no valid key" in response.error()[1]
    async with service(
        False, behaviour, "AB", entries=[{"model_id": "demo", "api_base": "builtin:demo"}]
    ) as proxy:
        table = load_entries(
            [
                {**_entry_of(proxy), "fallback": ["demo"]},
                {"model_id": "demo", "api_base": "builtin:demo"},
            ]
        )
        proxy.daemon._apply(table)
        response = await proxy.ask()
        assert (response.status, judge(response.events())) == (200, "message_stop")


def _entry_of(proxy: Service, names: str = "AB") -> dict[str, Any]:
    assert proxy.daemon._relay is not None
    route = proxy.daemon._relay.table.by_id("m")
    pool = [{"key": KEYS[name], "name": name} for name in names]
    return {"model_id": "m", "api_base": route.api_base, "direct": route.direct, "api_keys": pool}


@pytest.mark.parametrize("direct", MODES)
async def test_a_request_that_no_key_may_make_sets_none_aside(direct: bool) -> None:
    async with service(
        direct, lambda *_: error(403, "permission_error", direct=direct) if is_forbidden else None
    ) as proxy:
        is_forbidden = True
        response = await proxy.ask()
        assert response.status == 403
        assert proxy.used == ["A", "B", "C"]
        is_forbidden = False
        assert (await proxy.ask()).status == 200
        assert {proxy.key(name)["state"] for name in "ABC"} == {"works"}


@pytest.mark.parametrize("direct", MODES)
async def test_a_failing_server_sets_no_key_aside(direct: bool) -> None:
    async with service(direct, lambda *_: web.Response(status=503), max_retries=0) as proxy:
        assert (await proxy.ask("s")).status in (503, 529)
        assert proxy.used == ["A"]
        assert proxy.key("A")["state"] == "works"


async def test_a_translated_call_waits_for_a_key_that_is_back_soon() -> None:
    seen: list[str] = []

    def behaviour(key: str, _: web.Request) -> Any:
        seen.append(key)
        return error(429, "rate_limit_error", direct=False, retry_after="1") if len(seen) < 3 else None

    async with service(False, behaviour, "AB") as proxy:
        assert judge((await proxy.ask()).events()) == "message_stop"
        assert len(proxy.used) == 3


async def test_limits_of_token_counts_set_no_key_aside() -> None:
    def behaviour(key: str, request: web.Request) -> Any:
        return error(429, "rate_limit_error", direct=True) if "count_tokens" in request.path else None

    async with service(True, behaviour) as proxy:
        counted = await ask(proxy.base, post({**HELLO}, path="/v1/messages/count_tokens"))
        assert counted.status == 429
        assert (proxy.key("A")["state"], proxy.key("A")["calls"]) == ("works", 0)


@pytest.mark.parametrize("direct", MODES)
async def test_a_limit_within_a_stream_sets_the_key_aside_for_others(direct: bool) -> None:
    failure = {"error": {"type": "rate_limit_error", "message": "later"}}
    parts = list((DIRECT if direct else TRANSLATED).values())[:4]
    last = b"data: " + json.dumps({"type": "error", **failure} if direct else failure).encode() + b"\n\n"

    def behaviour(key: str, _: web.Request) -> Any:
        return stream(*parts, b"event: error\n" + last if direct else last) if key == "A" else None

    async with service(direct, behaviour) as proxy:
        assert judge((await proxy.ask("s")).events()) == "error"
        assert proxy.key("A")["state"] == "limited"
        assert judge((await proxy.ask("s")).events()) == "message_stop"


# -- reload


async def test_unchanged_keys_keep_what_is_known_of_them_over_a_reload() -> None:
    kinds = {"A": (429, "rate_limit_error"), "B": (401, "authentication_error")}

    def behaviour(key: str, _: web.Request) -> Any:
        return error(*kinds[key], direct=False, retry_after="300") if key in kinds else None

    async with service(False, behaviour) as proxy:
        await proxy.ask("s1")
        assert proxy.used == ["A", "B", "C"]
        proxy.daemon._apply(load_entries([_entry_of(proxy, "CBA")]))
        assert proxy.key("A")["for_s"] == pytest.approx(300, abs=5), "a limit stays"
        assert proxy.key("B")["state"] == "works", "a refused key is tried again"
        assert proxy.key("C")["calls"] == 1
        await proxy.ask("s1")
        assert proxy.used[3:] == ["C"], "and the session stays"
        proxy.daemon._apply(load_entries([_entry_of(proxy, "BA")]))
        assert [each["name"] for each in proxy.pools.describe()["m"]] == ["B", "A"]


async def test_a_call_in_flight_keeps_its_key_over_a_reload() -> None:
    waiting, go = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        waiting.set()
        await go.wait()
        return stream(*TRANSLATED.values())

    async with running_upstream(handler) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "api_keys": [KEYS["A"]]}
        daemon = Daemon(load_entries([entry]))
        await daemon.start()
        try:
            call = asyncio.ensure_future(ask("http://{}:{}".format(*daemon.addresses[0]), post(HELLO)))
            await waiting.wait()
            daemon._apply(load_entries([{"model_id": "m", "api_base": f"{upstream.base}/v1"}]))
            go.set()
            assert judge((await call).events()) == "message_stop"
        finally:
            await daemon.drain()
            await daemon.close()


# -- what is shown


async def test_keys_are_shown_by_their_names_only() -> None:
    def behaviour(key: str, _: web.Request) -> Any:
        return error(429, "rate_limit_error", direct=False, retry_after="50") if key == "A" else None

    async with service(False, behaviour) as proxy:
        await proxy.ask()
        texts = {
            path: (
                await ask(proxy.base, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            ).body.decode()
            for path in ("/healthz", "/metrics", "/test-connection", "/v1/stats")
        }
    assert not [path for path, text in texts.items() if "sk-secret" in text or "0123456789" in text]
    metrics = texts["/metrics"].splitlines()
    assert 'proxyd_key_calls_total{key="B",route="m"} 1.0' in metrics
    assert 'proxyd_key_failures_total{key="A",route="m"} 1.0' in metrics
    assert 'proxyd_key_state{key="A",route="m"} 1.0' in metrics
    assert 'proxyd_key_state{key="C",route="m"} 0.0' in metrics
    assert any(
        line.startswith('proxyd_key_tokens_total{key="B",kind="output",route="m"}') for line in metrics
    )
    shown = json.loads(texts["/test-connection"])["routes"][0]
    assert [(each["name"], each["state"]) for each in shown["keys"]] == [
        ("A", "limited"), ("B", "works"), ("C", "works"),
    ]  # fmt: skip


@pytest.mark.parametrize("direct", MODES)
async def test_an_upstream_that_repeats_keys_reveals_none(direct: bool) -> None:
    words = " and ".join(KEYS.values())
    with capture_logs() as lines:
        async with service(
            direct, lambda key, _: web.json_response({"error": {"message": words}}, status=400)
        ) as proxy:
            response = await proxy.ask()
    assert response.status == 400
    assert not [key for key in KEYS.values() if key.encode() in response.body or key in repr(lines)]


# -- many calls


@pytest.mark.parametrize("direct", MODES)
async def test_no_call_is_lost_and_no_session_moves_needlessly(direct: bool) -> None:
    """1000 calls of 20 sessions over 3 keys, which are refused at random, never all at the same time.

    The clock of the pool moves by 10 ms with each request that arrives, however long it takes.
    """
    requests = 0
    chance = random.Random(27)
    refused_at: dict[str, float] = dict.fromkeys(KEYS, -10.0)
    served: dict[str, list[tuple[float, str]]] = defaultdict(list)

    def clock() -> float:
        return requests / 100

    def behaviour(key: str, request: web.Request) -> Any:
        nonlocal requests
        requests += 1
        now = clock()
        # A key is set aside for 1 s: another one must be there for the whole of it.
        may_refuse = any(now - refused_at[other] > 2.0 for other in KEYS if other != key)
        if now - refused_at[key] < 0.5 or (may_refuse and chance.random() < 0.02):
            refused_at[key] = now
            return error(429, "rate_limit_error", direct=direct, retry_after="1")
        session = request[BODY]["messages"][0]["content"]
        if isinstance(session, list):
            session = session[0]["text"]
        if served[session] and (before := served[session][-1])[1] != key:
            assert refused_at[before[1]] > before[0] - 1.5, f"{session} left {before[1]}, which works"
        served[session].append((now, key))
        return None

    with capture_logs() as lines:
        async with service(direct, behaviour) as proxy:
            relay = proxy.daemon._relay
            assert relay is not None
            relay.key_pools = key_pools.KeyPools(relay.table, clock)

            async def one_session(name: str) -> None:
                for _ in range(50):
                    response = await proxy.ask(name, messages=[{"role": "user", "content": name}])
                    assert (response.status, judge(response.events())) == (200, "message_stop")

            await asyncio.gather(*(one_session(f"s{number}") for number in range(20)))
            calls = {name: proxy.key(name)["calls"] for name in KEYS}
    assert [len(each) for each in served.values()] == [50] * 20
    assert sum(calls.values()) == 1000
    assert min(calls.values()) > 0, "each key serves some"
    refusals = [line for line in lines if line["event"] == "upstream.key_set_aside"]
    assert len(refusals) >= 3
    moves = sum(
        before[1] != after[1] for each in served.values() for before, after in itertools.pairwise(each)
    )
    assert 0 < moves <= 20 * len(refusals)


# -- what a failure says about a key


def refused(status: int, kind: str, upstream_status: int | None = None, **headers: str) -> Refused:
    exc = Refused(
        "no", status=status, kind=kind, headers={n.replace("_", "-"): v for n, v in headers.items()}
    )
    exc.upstream_status = upstream_status or status
    return exc


def test_failures_that_are_due_to_the_key() -> None:
    assert aside_for(refused(400, "invalid_request_error")) is None
    assert aside_for(BadReply("x")) is None
    assert aside_for(Truncated("x")) is None
    assert aside_for(refused(529, "overloaded_error", 503)) is None
    assert aside_for(refused(529, "overloaded_error", 200)) is not None
    assert aside_for(refused(529, "overloaded_error", 429)) is not None
    assert aside_for(UpstreamOverloaded("x")) is not None
    assert aside_for_type(None) is None
    filtered = refused(403, "permission_error")
    filtered.body = b'{"error":{"message":"x","code":"content_filter"}}'
    assert aside_for(filtered) is None


@pytest.mark.parametrize(
    ("value", "seconds"), [("5", 5), ("0", 0), ("nan", None), ("-1", None), ("inf", None), ("soon", None)]
)
def test_only_a_number_of_seconds_is_a_retry_after(value: str, seconds: float | None) -> None:
    aside = aside_for(refused(429, "rate_limit_error", retry_after=value))
    assert aside is not None
    assert aside.seconds == seconds
