"""Virtual keys through the front door: who may call which model, how much, and what is recorded of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.daemon.key_sync import EXCHANGE_S
from proxyd.daemon.server import Daemon
from proxyd.secret import Secret
from proxyd.store.sqlite import FILE, SqliteKeyStore
from proxyd.store.virtual_keys import Limit, Team, VirtualKey, digest_of, new_secret, start_of
from proxyd.telemetry import ledger_queries
from tests.support.harness import Upstream, load_entries, running_upstream, text_stream
from tests.support.observing import until_rows
from tests.support.raw_sockets import RawResponse, ask, post
from tests.support.streams import DIRECT, HELLO, judge

#: Each call costs 15 tokens and 15 USD of them.
PRICES = {"input": 1_000_000, "output": 1_000_000}
CONFIGURED = "sk-configured-0123456789abcdef"
#: A key whose form says nothing.
POOLED = "correct horse battery staple".replace(" ", "+")


class Service:
    """The proxy with keys on, in front of two entries: ``m``, translated, and ``d``, direct without a key."""

    def __init__(self, folder: Path, upstream: Upstream, direct: Upstream) -> None:
        self.folder, self.upstream, self.direct = folder, upstream, direct
        self.daemon: Daemon
        self.secrets: list[str] = []

    @property
    def base(self) -> str:
        return "http://{}:{}".format(*self.daemon.addresses[0])

    def store(self) -> SqliteKeyStore:
        return SqliteKeyStore(self.folder / FILE)

    async def add(self, name: str = "alice", *limits: Limit, **more: Any) -> str:
        """Make a key as another process would, and wait until the daemon knows it."""
        secret = new_secret()
        self.secrets.append(secret)
        await self.put(VirtualKey(f"id-{name}", name, digest_of(secret), time.time(), limits=limits, **more))
        return secret

    async def put(self, *what: VirtualKey | Team) -> None:
        store = self.store()
        for each in what:
            if isinstance(each, Team):
                store.put_team(each)
            else:
                store.put_key(each)
        store.close()
        await self.exchange()

    async def exchange(self) -> None:
        assert self.daemon.shared.key_sync is not None
        await self.daemon.shared.key_sync.exchange()

    async def ask(self, *headers: str, path: str = "/v1/messages", **more: Any) -> RawResponse:
        return await ask(self.base, post({**HELLO, **more}, *headers, path=path))

    async def get(self, path: str, *headers: str) -> RawResponse:
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
        return await ask(self.base, "\r\n".join(lines).encode() + b"\r\n\r\n")


def bearer(secret: str) -> str:
    return f"Authorization: Bearer {secret}"


@asynccontextmanager
async def service(folder: Path, wait: asyncio.Event | None = None, **settings: Any) -> AsyncIterator[Service]:
    async def translated(_: web.Request) -> web.StreamResponse:
        if wait is not None:
            await wait.wait()
        return web.Response(body=text_stream("hello"), content_type="text/event-stream")

    async def direct(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"".join(DIRECT.values()), content_type="text/event-stream")

    async with running_upstream(translated) as first, running_upstream(direct) as second:
        proxy = Service(folder, first, second)
        entries = [
            {"model_id": "m", "api_base": f"{first.base}/v1", "api_key": CONFIGURED, "pricing": PRICES,
             "aliases": ["claude-*"]},
            {"model_id": "d", "api_base": second.base, "direct": True},
        ]  # fmt: skip
        proxy.daemon = Daemon(load_entries(entries, **{"auth": "keys", **settings}), state_folder=folder)
        await proxy.daemon.start()
        try:
            yield proxy
        finally:
            await proxy.daemon.drain()
            await proxy.daemon.close()


# -- who


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages/count_tokens", "/anthropic/v1/messages", "/v1/v1/messages"]
)
async def test_a_key_is_required(tmp_path: Path, path: str) -> None:
    async with service(tmp_path) as proxy:
        for headers in ((), (bearer("any"),), ("x-api-key: sk-cp-unknown-0123456789",)):
            response = await proxy.ask(*headers, path=path)
            assert response.status == 401
            assert response.headers["x-should-retry"] == "false"
            assert response.error()[0] == "authentication_error"
            assert "of this proxy" in response.error()[1] or "this proxy" in response.error()[1]
        assert proxy.upstream.requests == proxy.direct.requests == []
        for models in ("/v1/models", "/v1/models/m"):
            assert (await proxy.get(models)).status == 401
        assert (await proxy.get("/healthz")).status == 200


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "x-api-key: {}", "x-claude-proxy-token: {}"])
async def test_upstreams_get_the_configured_key_and_never_the_virtual_one(
    tmp_path: Path, header: str
) -> None:
    async with service(tmp_path) as proxy:
        secret = await proxy.add()
        response = await proxy.ask(header.format(secret))
        assert (response.status, judge(response.events())) == (200, "message_stop")
        assert proxy.upstream.headers[0]["authorization"] == f"Bearer {CONFIGURED}"
        response = await proxy.ask(header.format(secret), model="d")
        assert response.status == 200, "a server on this machine needs none"
        assert secret not in repr(proxy.upstream.headers) + repr(proxy.direct.headers)
        assert not {"x-api-key", "authorization"} & proxy.direct.headers[0].keys()


@pytest.mark.parametrize("auth", ["keys", "token"])
async def test_a_virtual_key_goes_nowhere_with_or_without_keys_on(tmp_path: Path, auth: str) -> None:
    async with service(tmp_path, auth=auth) as proxy:
        secret = new_secret()
        if auth == "keys":
            secret = await proxy.add()
        response = await proxy.ask(bearer("sk-client-of-its-own-1234"), f"x-api-key: {secret}", model="d")
        assert response.status == 200
        assert proxy.direct.headers[0]["authorization"] == "Bearer sk-client-of-its-own-1234"
        assert secret not in repr(proxy.direct.headers)


async def test_revoked_and_rotated_keys_end_within_seconds(tmp_path: Path) -> None:
    async with service(tmp_path) as proxy:
        secret = await proxy.add()
        assert (await proxy.ask(bearer(secret))).status == 200
        store = proxy.store()
        key = store.directory().keys[0]
        store.put_key(replace(key, revoked_at=time.time()))
        store.close()
        deadline = time.monotonic() + 10 * EXCHANGE_S
        while (response := await proxy.ask(bearer(secret))).status == 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert (response.status, response.error()[1]) == (
            401,
            "the key 'alice' of this proxy was revoked; ask for a new one",
        )
        other = new_secret()
        await proxy.put(replace(key, digest=digest_of(other)))
        assert (await proxy.ask(bearer(secret))).status == 401
        assert (await proxy.ask(bearer(other))).status == 200


async def test_a_key_sees_and_uses_its_models_only(tmp_path: Path) -> None:
    async with service(tmp_path) as proxy:
        secret = await proxy.add(models=("claude-*",))
        assert (await proxy.ask(bearer(secret), model="claude-haiku-4")).status == 200
        for path, model in (("/v1/messages", "m"), ("/v1/messages", "d"), ("/v1/messages/count_tokens", "d")):
            response = await proxy.ask(bearer(secret), path=path, model=model)
            assert (response.status, response.error()[0]) == (403, "permission_error")
            assert response.error()[1] == f"the key 'alice' may not use model {model!r}, only claude-*"
        assert (await proxy.get("/v1/models/d", bearer(secret))).status == 403
        other = await proxy.add("bob", models=("d",))
        listed = json.loads((await proxy.get("/v1/models", bearer(other))).body)
        assert [each["id"] for each in listed["data"]] == ["d"]


async def test_a_discovery_prefix_is_no_part_of_a_models_name(tmp_path: Path) -> None:
    async with service(tmp_path, discovery_prefix="claude-proxy/") as proxy:
        secret = await proxy.add(models=("claude-p*",))
        for model in ("claude-proxy/d", "claude-proxy/m[1m]", "m"):
            assert (await proxy.ask(bearer(secret), model=model)).status == 403
        assert json.loads((await proxy.get("/v1/models", bearer(secret))).body)["data"] == []
        other = await proxy.add("bob", models=("d",))
        assert (await proxy.ask(bearer(other), model="claude-proxy/d")).status == 200
        listed = json.loads((await proxy.get("/v1/models", bearer(other))).body)["data"]
        assert [each["id"] for each in listed] == ["d", "claude-proxy/d"]


async def test_the_access_token_is_for_everything_and_a_key_for_the_models(tmp_path: Path) -> None:
    from proxyd.secret import Secret

    token = "the-access-token-of-it"
    async with service(tmp_path, auth_token=Secret(token)) as proxy:
        secret = await proxy.add()
        assert (await proxy.ask(bearer(secret))).status == 200
        assert (await proxy.ask(bearer(token))).status == 200
        assert (await proxy.ask()).status == 401
        for path in ("/v1/stats", "/test-connection"):
            assert (await proxy.get(path, bearer(secret))).status == 401
            assert (await proxy.get(path, bearer(token))).status == 200


# -- how much


@pytest.mark.parametrize(
    "limit", [Limit(20, "usd", "day"), Limit(20, "tokens", "week"), Limit(2, "calls", "month")]
)
async def test_a_limit_is_reached_after_the_call_that_crosses_it(tmp_path: Path, limit: Limit) -> None:
    async with service(tmp_path) as proxy:
        secret = await proxy.add("alice", limit)
        assert [(await proxy.ask(bearer(secret))).status for _ in range(2)] == [200, 200]
        response = await proxy.ask(bearer(secret))
        assert (response.status, response.headers["x-should-retry"]) == (429, "false")
        kind, message = response.error()
        assert kind == "billing_error"
        assert message.startswith(f"the key 'alice' of this proxy has reached its limit of {limit} (")
        assert "it resets at 20" in message
        assert len(proxy.upstream.requests) == 2


async def test_usage_outlives_a_restart(tmp_path: Path) -> None:
    async with service(tmp_path) as proxy:
        secret = await proxy.add("alice", Limit(2, "calls", "day"))
        for _ in range(2):
            await proxy.ask(bearer(secret))
    async with service(tmp_path) as proxy:
        assert (await proxy.ask(bearer(secret))).status == 429


async def test_each_call_is_counted_once_whatever_exchanges_overlap(tmp_path: Path) -> None:
    async with service(tmp_path) as proxy:
        secret = await proxy.add("alice", Limit(1000, "calls", "day"))
        calls = [asyncio.ensure_future(proxy.ask(bearer(secret))) for _ in range(30)]
        exchanges = [asyncio.ensure_future(proxy.exchange()) for _ in range(20)]
        assert [(await call).status for call in calls] == [200] * 30
        await asyncio.gather(*exchanges)
        assert proxy.daemon.shared.key_ring.trouble is None
    store = proxy.store()
    day = start_of("day", time.time())
    assert store.usage([("day", day)])["key:id-alice", "day", day].calls == 30
    store.close()


async def test_calls_in_flight_are_limited_over_all_keys_of_a_team(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with service(tmp_path, go) as proxy:
        await proxy.put(Team("research", streams=2))
        secrets = [await proxy.add(name, team="research") for name in ("alice", "bob")]
        calls = [asyncio.ensure_future(proxy.ask(bearer(secret))) for secret in secrets]
        while len(proxy.upstream.requests) < 2:
            await asyncio.sleep(0.01)
        response = await proxy.ask(bearer(secrets[0]))
        assert (response.status, response.headers["retry-after"]) == (429, "1")
        assert response.error() == (
            "rate_limit_error",
            "the team 'research' has 2 calls in flight, its limit",
        )
        go.set()
        assert [(await call).status for call in calls] == [200, 200]
        assert (await proxy.ask(bearer(secrets[0]))).status == 200


async def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with service(tmp_path, go) as proxy:
        secret = await proxy.add("alice", streams=1)
        call = asyncio.ensure_future(proxy.ask(bearer(secret)))
        while not proxy.upstream.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        while proxy.daemon.shared.key_ring.describe()[0]["in_flight"]:
            await asyncio.sleep(0.01)
        go.set()
        assert (await proxy.ask(bearer(secret))).status == 200


async def test_a_damaged_store_stops_no_call(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with service(tmp_path) as proxy:
            secret = await proxy.add()
            for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
                (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / FILE).write_bytes(b"no database" * 1000)
            assert (await proxy.ask(bearer(secret))).status == 200
            assert proxy.daemon.shared.key_sync is not None
            proxy.daemon.shared.key_sync._store.close()
            await proxy.exchange()
            assert (await proxy.ask(bearer(secret))).status == 200
    assert "keys.store_failed" in [line["event"] for line in lines]


# -- what is recorded and shown


async def test_a_key_sees_its_own_usage_and_nothing_else(tmp_path: Path) -> None:
    token = Secret("the-token-of-the-administrator")
    async with service(tmp_path, auth_token=token) as proxy:
        await proxy.put(Team("research", (Limit(100, "usd", "day"),)))
        alice = await proxy.add("alice", Limit(60, "tokens", "day"), team="research")
        bob = await proxy.add("bob", Limit(5, "calls", "day"))
        for secret in (alice, alice, bob):
            assert (await proxy.ask(bearer(secret))).status == 200
        proxy.daemon._relay.finished.flush()
        await until_rows(tmp_path, 3)
        for prefix in ("", "/anthropic"):
            response = await proxy.get(f"{prefix}/v1/stats?key=self", bearer(alice))
            found = json.loads(response.body)
            assert (response.status, found["key"], found["team"]) == (200, "alice", "research")
            assert [(each["name"], each["limits"][0]["used"]) for each in found["holders"]] == [
                ("alice", 30), ("research", 30),
            ]  # fmt: skip
            for period in ("today", "days_7", "days_30"):
                assert (found[period]["total"]["calls"], found[period]["total"]["cost_usd"]) == (2, 30)
                assert [row["model"] for row in found[period]["by_model"]] == ["m"]
            assert "bob" not in response.body.decode()
            assert alice not in response.body.decode()
        for path, headers, status in (
            ("/v1/stats?key=self", (), 401),
            ("/v1/stats?key=self", (bearer("sk-cp-unknown-0123456789"),), 401),
            ("/v1/stats", (bearer(alice),), 401),
            ("/v1/stats?key=self&x=1", (bearer(bob),), 200),
            ("/v1/stats?key=bob", (bearer(alice),), 401),
            ("/v1/stats?key=self/../calls", (bearer(alice),), 401),
            ("/v1/calls/req_1?key=self", (bearer(alice),), 401),
            ("/test-connection?key=self", (bearer(alice),), 401),
            ("/v1/stats?key=self", (bearer(token.reveal()),), 400),
            ("/v1/stats?key=bob", (bearer(token.reveal()),), 400),
        ):
            assert (await proxy.get(path, *headers)).status == status, path


async def test_calls_are_recorded_by_key_and_team(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with service(tmp_path) as proxy:
            await proxy.put(Team("research", (Limit(100, "usd", "day"),)))
            alice = await proxy.add("alice", Limit(20, "usd", "day"), team="research")
            bob = await proxy.add("bob", team="research")
            for secret in (alice, alice, bob):
                await proxy.ask(bearer(secret))
            refused = await proxy.ask(bearer(alice))
            assert refused.status == 429
            shown = json.loads((await proxy.get("/test-connection")).body)["virtual_keys"]
            about = proxy.daemon.about()["virtual_keys"]
            texts = [
                (await proxy.get(path)).body.decode()
                for path in ("/metrics", "/v1/stats", "/test-connection", "/healthz?verbose")
            ]
    database = ledger_queries.open_ledger(tmp_path / "usage.db")
    by_key = {row["key"]: row for row in ledger_queries.sums(database, 0, by="key")}
    by_team = {row["team"]: row for row in ledger_queries.sums(database, 0, by="team")}
    database.close()
    assert {name: (row["calls"], row["cost_usd"]) for name, row in by_key.items()} == {
        "alice": (3, 30),
        "bob": (1, 15),
    }
    assert by_team["research"]["calls"] == 4
    assert [(each["name"], each["limits"] and each["limits"][0]["share"]) for each in shown] == [
        ("alice", 1.5), ("bob", []), ("research", 0.45),
    ]  # fmt: skip
    assert [each["name"] for each in about] == ["alice", "bob", "research"]
    finished = [line for line in lines if line["event"] == "call.finished"]
    assert [(line["caller"], line["team"]) for line in finished][-1] == ("alice", "research")
    assert [line["who"] for line in lines if line["event"] == "limit.near"] == ["the key 'alice'"]
    everything = "".join(texts) + repr(lines) + refused.body.decode()
    assert not [secret for secret in (alice, bob) if secret in everything or digest_of(secret) in everything]
    stored = (tmp_path / FILE).read_bytes()
    assert not [secret for secret in (alice, bob) if secret.encode() in stored]


async def test_no_file_holds_a_key_of_a_person_or_of_a_pool(tmp_path: Path) -> None:
    def refused(name: str) -> web.Response:
        words = f"what is {name}, {CONFIGURED} or {POOLED}?"
        return web.json_response({"error": {"message": words, "type": "invalid_request_error"}}, status=400)

    async with running_upstream(
        lambda request: _later(refused(request.headers["authorization"]))
    ) as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "api_keys": [CONFIGURED, POOLED]}
        config = load_entries([entry], auth="keys", record="all", record_bodies=True)
        store, secret = SqliteKeyStore(tmp_path / FILE), new_secret()
        store.put_key(VirtualKey("1", "alice", digest_of(secret), time.time()))
        store.close()
        daemon = Daemon(config, state_folder=tmp_path)
        await daemon.start()
        with capture_logs() as lines:
            for header in ("authorization: Bearer ", "x-api-key: ", "x-claude-proxy-token: "):
                base = "http://{}:{}".format(*daemon.addresses[0])
                response = await ask(base, post(HELLO, header + secret))
                assert response.status == 400
                assert not [each for each in (CONFIGURED, POOLED, secret) if each.encode() in response.body]
            await daemon.drain()
            await daemon.close()
    contents = _contents(tmp_path)
    assert len(contents) > 10, "records were kept"
    for each in (CONFIGURED, POOLED, secret):
        assert each not in repr(lines)
        assert not [path for path, content in contents.items() if each.encode() in content]


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def _later(response: web.Response) -> web.Response:
    return response


async def test_without_keys_nothing_is_kept(tmp_path: Path) -> None:
    async with service(tmp_path, auth="token") as proxy:
        assert (await proxy.ask()).status == 200
        assert proxy.daemon.shared.key_sync is None
    assert not (tmp_path / FILE).exists()
    database = sqlite3.connect(tmp_path / "usage.db")
    assert database.execute("SELECT caller, team FROM calls").fetchall() == [(None, None)]
    database.close()
