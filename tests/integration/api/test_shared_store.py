"""Two daemons that share keys and limits by a real PostgreSQL, and what they do without it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.config.database_url import parse_database_url
from proxyd.daemon.server import Daemon
from proxyd.proxy.near_limits import FILE as LIMITS_FILE
from proxyd.proxy.near_limits import read_near_limits
from proxyd.store.postgres import PostgresKeyStore
from proxyd.store.virtual_keys import Limit, Spent, VirtualKey, digest_of, new_secret, start_of
from tests.support.harness import HalfStream, load_entries, running_upstream, text_stream
from tests.support.postgres import PASSWORD, Postgres, running_postgres
from tests.support.raw_sockets import RawResponse, ask, post, until
from tests.support.streams import HELLO, judge

#: Each call costs 15 tokens.
CALL_TOKENS = 15


class Replicas:
    """Daemons on one database, each with a state folder of its own."""

    def __init__(self, daemons: list[Daemon], url: str) -> None:
        self.daemons = daemons
        self.store = PostgresKeyStore(parse_database_url(url))

    async def ask(self, number: int, secret: str) -> RawResponse:
        base = "http://{}:{}".format(*self.daemons[number].addresses[0])
        return await ask(base, post(HELLO, f"Authorization: Bearer {secret}"))

    async def until(self, number: int, secret: str, status: int) -> None:
        """Ask until the status comes."""
        began = time.monotonic()
        while (response := await self.ask(number, secret)).status != status:
            assert time.monotonic() - began < 30, response.body
            await asyncio.sleep(0.02)

    async def metrics(self, number: int) -> str:
        base = "http://{}:{}".format(*self.daemons[number].addresses[0])
        return (await ask(base, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")).body.decode()

    async def exchange(self) -> None:
        """Exchange until it succeeds: on a busy machine two seconds may be too little."""
        for each in self.daemons:
            assert each.shared.key_sync is not None
            for _ in range(20):
                await each.shared.key_sync.exchange()
                if each.shared.key_ring.trouble is None:
                    break

    async def calls_in_ledger(self, number: int, calls: int) -> dict[str, Any]:
        """Ask a daemon for its statistics until they have so many calls."""
        base = "http://{}:{}".format(*self.daemons[number].addresses[0])
        began = time.monotonic()
        while True:
            response = await ask(base, b"GET /v1/stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            found: dict[str, Any] = json.loads(response.body)
            if found["ledger"]["is_shared"] and found["today"]["total"]["calls"] == calls:
                return found
            assert time.monotonic() - began < 30, found
            await asyncio.sleep(0.1)


def half_stream() -> HalfStream:
    return HalfStream(text_stream("hello"), 200)


@asynccontextmanager
async def replicas(folder: Path, url: str, upstream: HalfStream | None = None) -> AsyncIterator[Replicas]:
    if upstream is None:
        upstream = half_stream()
        upstream.go_on.set()
    async with running_upstream(upstream) as server:
        entries = [{"model_id": "m", "api_base": f"{server.base}/v1", "api_key": "sk-configured-0123456789"}]
        daemons: list[Daemon] = []
        found = Replicas(daemons, url)
        try:
            for name in ("a", "b"):
                loaded = load_entries(
                    entries, auth="keys", store=parse_database_url(url), fail_closed=name == "b"
                )
                daemons.append(Daemon(loaded, state_folder=folder / name))
                await daemons[-1].start()
            yield found
        finally:
            found.store.close()
            for each in daemons:
                await each.drain()
                await each.close()


async def test_a_change_is_announced(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the next exchange, which is ten minutes away."""
    monkeypatch.setattr("proxyd.daemon.key_sync.EXCHANGE_S", 600.0)
    async with replicas(tmp_path, postgres.new_database()) as both:
        for name in ("alice", "bob"):  # of the second one the daemons hear while they listen already
            secret = new_secret()
            both.store.put_key(VirtualKey(name, name, digest_of(secret), time.time()))
            for number in (0, 1):
                await both.until(number, secret, 200)


async def test_keys_limits_and_usage_are_shared(postgres: Postgres, tmp_path: Path) -> None:
    url, secret = postgres.new_database(), new_secret()
    async with replicas(tmp_path, url) as both:
        assert (await both.ask(0, secret)).status == 401
        key = VirtualKey(
            "id-1", "alice", digest_of(secret), time.time(), limits=(Limit(40, "tokens", "day"),)
        )
        both.store.put_key(key)
        await both.until(0, secret, 200)
        await both.until(1, secret, 200)
        assert (await both.ask(0, secret)).status == 200
        # 45 tokens of 40, of which each has seen only its own.
        await both.until(1, secret, 429)
        await both.until(0, secret, 429)
        await both.exchange()
        used = both.store.usage([("day", start_of("day", time.time()))])
        (spent,) = used.values()
        assert spent.tokens == spent.calls * CALL_TOKENS >= 45
        for name, each in zip("ab", both.daemons, strict=True):
            assert each.shared.sync is not None
            await each.shared.sync.exchange()
            (line,) = read_near_limits(tmp_path / name / LIMITS_FILE, "alice", None, time.time())
            assert re.fullmatch(r"alice: [1-9][0-9]{2}% of 40 tokens a day", line), "for the status line"
            assert each._relay is not None
            each._relay.finished.flush()
        calls = sum(
            row["calls"] for each in both.daemons if each._observers for row in each._observers.live.totals()
        )
        for number in (0, 1):
            stats = await both.calls_in_ledger(number, calls)
            assert stats["ledger"]["trouble"] is None
        assert (
            sum(row["calls"] for row in stats["today"]["by_outcome"] if row["outcome"] == "ok") == spent.calls
        )
        secrets = await both.metrics(0) + repr([each.about() for each in both.daemons])
        assert "proxyd_store_up 1.0" in secrets
        assert both.daemons[0].about()["store"] == {"place": str(parse_database_url(url)), "trouble": None}
        assert PASSWORD not in secrets


async def test_without_the_database_streams_and_calls_go_on(tmp_path: Path) -> None:
    half = half_stream()
    with running_postgres() as server, capture_logs() as lines:
        async with replicas(tmp_path, server.new_database(), half) as both:
            secret = new_secret()
            both.store.put_key(VirtualKey("id-1", "alice", digest_of(secret), time.time()))
            both.store.close()
            await both.exchange()
            open_streams = [asyncio.ensure_future(both.ask(number, secret)) for number in (0, 1)]
            await until(lambda: half.begun == 2)
            server.stop()
            for each in both.daemons:
                assert each.shared.key_sync is not None
                await each.shared.key_sync.exchange()
            half.go_on.set()
            for stream in await asyncio.gather(*open_streams):
                assert judge(stream.events()) == "message_stop"
            assert (await both.ask(0, secret)).status == 200
            refused = await both.ask(1, secret)
            assert (refused.status, refused.headers["retry-after"]) == (529, "2")
            assert "fail_closed is set" in refused.error()[1]
            assert "proxyd_store_up 0.0" in await both.metrics(0)
            base = "http://{}:{}".format(*both.daemons[0].addresses[0])
            stats = await ask(base, b"GET /v1/stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            found = json.loads(stats.body)["ledger"]
            assert (found["is_shared"], found["trouble"].split("; ")[-1]) == (
                False,
                "only the calls of this daemon are shown",
            )
            server.start()
            await both.exchange()
            assert (await both.ask(1, secret)).status == 200
            stats = await both.calls_in_ledger(1, 5)
            outcomes = {row["outcome"]: row["calls"] for row in stats["today"]["by_outcome"]}
            assert outcomes == {"ok": 4, "refused": 1}, "each call is there once"
        store = PostgresKeyStore(parse_database_url(server.url("test1")))
        used = store.usage([("day", start_of("day", time.time()))])
        store.close()
    assert used == {("key:id-1", "day", start_of("day", time.time())): Spent(0.0, 4 * CALL_TOKENS, 4)}
    events = [line["event"] for line in lines]
    assert events.count("keys.store_failed") == events.count("keys.store_recovered") >= 2
    assert PASSWORD not in repr(lines)
