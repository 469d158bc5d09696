"""The status endpoints: /metrics, /v1/stats, /events, /test-connection."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from proxyd.daemon.configuration import load_configuration
from proxyd.daemon.server import Daemon
from proxyd.secret import Secret
from proxyd.telemetry.ledger_schema import row_of
from tests.support.harness import (
    Upstream,
    chunk,
    load_entries,
    running_daemon,
    running_proxy,
    running_upstream,
    sse,
)
from tests.support.observing import SESSION, ask, finished, until_rows
from tests.support.paths import ROOT
from tests.support.ports import free_port

USAGE = {"prompt_tokens": 1000, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 600}}
PRICE = {"input": 1, "output": 10, "cache_read": 0.1}
NAMES = {
    "proxyd_requests", "proxyd_streams_active", "proxyd_first_byte_seconds", "proxyd_stream_duration_seconds",
    "proxyd_event_overhead_seconds", "proxyd_upstream_retries", "proxyd_upstream_errors", "proxyd_tokens",
    "proxyd_circuit_state", "proxyd_hook_errors", "proxyd_config_reload_success", "proxyd_loop_lag_seconds",
    "proxyd_build_info",
}  # fmt: skip


async def respond(request: web.Request) -> web.StreamResponse:
    if (await request.json())["model"] == "full":
        return web.json_response({"error": {"message": "too fast"}}, status=429)
    body = sse(chunk({"content": "Hello"}), chunk({}, "stop"), chunk(usage=USAGE))
    return web.Response(body=body, content_type="text/event-stream")


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream(respond) as upstream:
        yield upstream


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def entries(upstream: Upstream) -> list[dict[str, Any]]:
    return [
        {
            "model_id": "m",
            "api_base": upstream.base + "/v1",
            "pricing": PRICE,
            "api_key": "sk-secret-123456789",
        },
        {"model_id": "full", "api_base": upstream.base + "/v1"},
    ]


async def get(session: aiohttp.ClientSession, url: str, **more: Any) -> Any:
    async with session.get(url, **more) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_metrics(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    async with running_proxy(entries(upstream), max_retries=0) as base:
        await ask(session, base, stream=True)
        await ask(session, base)
        await ask(session, base, model="full")
        async with session.get(f"{base}/metrics") as response:
            assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await response.text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) >= NAMES
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return values[(name, *sorted(labels.items()))]

    assert value("proxyd_requests_total", route="m", mode="translated", code="200", outcome="ok") == 2
    assert value("proxyd_requests_total", route="full", mode="translated", code="429", outcome="refused") == 1
    assert value("proxyd_tokens_total", route="m", kind="input") == 800
    assert value("proxyd_tokens_total", route="m", kind="cache_read") == 1200
    assert value("proxyd_tokens_total", route="m", kind="output") == 80
    assert value("proxyd_first_byte_seconds_count", route="m", mode="translated") == 2
    assert value("proxyd_event_overhead_seconds_count") == 2
    assert value("proxyd_upstream_errors_total", route="full", type="rate_limit_error") == 1
    assert value("proxyd_config_reload_success") == 1
    assert value("proxyd_cost_usd_total", route="m") == pytest.approx(2 * (400 + 400 + 60) / 1e6)
    labels = {name for family in families.values() for sample in family.samples for name in sample.labels}
    assert labels <= {
        "route",
        "mode",
        "code",
        "outcome",
        "kind",
        "type",
        "le",
        "origin",
        "hook",
        "version",
        "hash",
    }
    if promtool := shutil.which("promtool"):
        check = [promtool, "check", "metrics"]
        await asyncio.to_thread(subprocess.run, check, input=text.encode(), check=True, timeout=120)


async def test_metrics_while_a_hook_does_not_load(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    models, hooks = tmp_path / "models.yaml", tmp_path / "hooks"
    models.write_text("- {model_id: demo, api_base: 'builtin:demo'}\n")
    hooks.mkdir(mode=0o755)
    (hooks / "broken.py").write_text("def request_hook(payload)\n")
    for path in (tmp_path, models, hooks / "broken.py"):
        path.chmod(path.stat().st_mode & ~0o022)
    loaded = load_configuration({"port": 0}, str(models), {})
    assert list(loaded.hooks.faults) == ["broken"]
    async with running_daemon(loaded) as base, session.get(f"{base}/metrics") as response:
        assert response.status == 200
        assert 'proxyd_hook_errors_total{hook="broken"}' in await response.text()


async def test_the_documented_metrics_exist(session: aiohttp.ClientSession) -> None:
    """The table in docs/observability.md, and each expression of the Grafana dashboard."""
    async with running_proxy([{"model_id": "demo", "api_base": "builtin:demo"}]) as base:
        async with session.get(f"{base}/metrics") as response:
            text = await response.text()
    declared = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    declared = {name for name in declared if not name.endswith("_created")}
    docs = ROOT / "docs"
    table = re.findall(r"^\| `(proxyd_\w+)` ", (docs / "observability.md").read_text(), re.MULTILINE)
    assert set(table) == declared
    dashboard = json.loads((docs / "grafana-dashboard.json").read_text())
    used = {
        re.sub(r"_(?:bucket|count|sum)$", "", name)
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"proxyd_\w+", target["expr"])
    }
    assert used <= declared
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


async def test_stats(tmp_path: Path, upstream: Upstream, session: aiohttp.ClientSession) -> None:
    async with running_proxy(entries(upstream), state_folder=tmp_path, max_retries=0) as base:
        empty = await get(session, f"{base}/v1/stats")
        assert empty["today"]["total"]["calls"] == 0
        await ask(session, base, headers={"x-claude-code-session-id": SESSION})
        await ask(session, base, model="full")
        await until_rows(tmp_path, 2)
        found = await get(session, f"{base}/anthropic/v1/stats")
        one = await get(session, f"{base}/v1/stats?session={SESSION}")
    assert {row["route"]: row["calls"] for row in found["since_start"]} == {"m": 1, "full": 1}
    assert found["ledger"] == {
        "is_kept": True,
        "days": 90,
        "trouble": None,
        "calls_lost": 0,
        "damaged": [],
        "is_shared": False,
    }
    for period in ("today", "days_7", "days_30"):
        assert found[period]["total"]["calls"] == 2
        assert [row["model"] for row in found[period]["by_model"]] == ["m", "full"]
        assert {row["outcome"] for row in found[period]["by_outcome"]} == {"ok", "refused"}
    assert [(row["model"], row["tokens"], row["failures"]) for row in found["hours"]] == [
        ("full", 0, 1),
        ("m", 1040, 0),
    ]
    assert [row["route"] for row in found["recent"]] == ["full", "m"]
    assert one["total"]["cost_usd"] == pytest.approx(860 / 1e6)
    assert [call["request_id"] for call in one["calls"]] == [found["recent"][1]["request_id"]]


async def test_stats_report_a_damaged_ledger(
    tmp_path: Path, upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    (tmp_path / "usage.db").write_bytes(b"not a database at all " * 100)
    async with running_proxy(entries(upstream), state_folder=tmp_path) as base:
        found = await get(session, f"{base}/v1/stats")
    assert "move it away" in found["ledger"]["trouble"]
    assert "today" not in found


async def messages(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    while True:
        frame = (await response.content.readuntil(b"\n\n")).decode()
        event, _, data = frame.strip().partition("\n")
        yield event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def until(feed: AsyncIterator[tuple[str, Any]], wanted: str) -> Any:
    """Return the data of the next event of that name."""
    while True:
        event, data = await anext(feed)
        if event == wanted:
            return data


async def test_the_feed(session: aiohttp.ClientSession) -> None:
    go_on = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse(chunk({"content": "x" * 400}), done=False))
        await go_on.wait()
        await response.write(sse(chunk({}, "stop"), chunk(usage=USAGE)))
        return response

    async with running_upstream(slowly) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
        async with running_proxy([entry]) as base:
            calling = asyncio.create_task(ask(session, base, stream=True))
            async with session.get(f"{base}/events") as response:
                assert response.content_type == "text/event-stream"
                feed = messages(response)
                event, hello = await anext(feed)
                assert (event, hello["recent"]) == ("hello", [])
                data = await until(feed, "active")
                while not (data["active"] and data["active"][0]["output_tokens"]):
                    data = await until(feed, "active")
                (call,) = data["active"]
                assert (call["phase"], call["output_tokens"], call["route"]) == ("streaming", 100, "m")
                go_on.set()
                data = await until(feed, "call")
                assert (data["outcome"], data["input_tokens"], data["output_tokens"]) == ("ok", 400, 40)
                assert (await until(feed, "active"))["active"] == []
                await feed.aclose()
            await calling
            async with session.get(f"{base}/events") as response:
                feed = messages(response)
                _, hello = await anext(feed)
                assert len(hello["recent"]) == 1
                await feed.aclose()


async def test_a_stop_ends_the_feed_at_once(session: aiohttp.ClientSession) -> None:
    loop = asyncio.get_running_loop()
    async with running_proxy([{"model_id": "demo", "api_base": "builtin:demo"}]) as base:
        response = await session.get(f"{base}/events")
        await response.content.readuntil(b"\n\n")
        begun = loop.time()
    assert loop.time() - begun < 20
    await response.read()
    response.close()


async def _is_cut(deaf: socket.socket) -> bool:
    """Read from a socket to the end of its connection."""
    loop = asyncio.get_running_loop()
    deaf.setblocking(False)
    try:
        while await loop.sock_recv(deaf, 1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


async def test_a_socket_that_never_reads_is_closed_and_delays_no_one(
    session: aiohttp.ClientSession,
) -> None:
    """On a real connection, whose kernel buffers take some megabytes before anything is noticed."""
    daemon = Daemon(load_entries([{"model_id": "demo", "api_base": "builtin:demo"}], write_stall_s=0.3))
    await daemon.start()
    base = f"http://127.0.0.1:{daemon.addresses[0][1]}"
    assert daemon._observers is not None
    live = daemon._observers.live
    call = finished(error="x" * 20_000)
    calls = 1500
    try:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", daemon.addresses[0][1]))
            deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with session.get(f"{base}/events") as response:
                feed = messages(response)
                assert (await anext(feed))[0] == "hello"
                while len(live._listeners) < 2:
                    await asyncio.sleep(0.01)
                longest = 0
                for _ in range(calls):
                    live.observe(call, row_of(call))
                    longest = max(longest, *(queue.qsize() for queue in live._listeners))
                    assert (await until(feed, "call"))["request_id"] == call.request_id
                assert len(live._listeners) == 1, "it is dropped, and the one that reads stays"
                assert longest <= 121, "what waits for one listener is bounded"
                for _ in range(20):  # its write times out after write_stall_s
                    if daemon._listener.connections > 1:
                        await asyncio.sleep(0.1)
                assert daemon._listener.connections == 1
                assert await asyncio.wait_for(_is_cut(deaf), 30), "its connection is closed"
                await until(feed, "active")
                await feed.aclose()
    finally:
        await daemon.drain()
        await daemon.close()


async def test_test_connection_shows_routes_and_probes_them(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    async with running_proxy(entries(upstream), max_retries=0) as base:
        found = await get(session, f"{base}/test-connection")
        assert upstream.requests == []
        assert [route["model_id"] for route in found["routes"]] == ["m", "full"]
        first = found["routes"][0]
        assert first["upstream"] == upstream.base
        assert (first["credential"], first["circuit"], first["is_priced"]) == (
            "from models.yaml",
            "closed",
            True,
        )
        assert found["settings"]["max_retries"] == {"value": 0, "from": "default"}
        assert "sk-secret" not in json.dumps(found)
        for probe in ("1", "many"):
            async with session.get(f"{base}/test-connection?probe={probe}") as response:
                assert response.status == 400
                assert "POST" in await response.text()
        bad_model = {"probe": True, "model": "no-such"}
        for body in ({}, {"probe": 1}, {"probe": True, "more": 1}, [True], bad_model):
            async with session.post(f"{base}/test-connection", json=body) as response:
                assert response.status == 400, body
        assert upstream.requests == [], "none of these spends anything"
        async with session.post(f"{base}/test-connection", json={"probe": True}) as response:
            assert response.status == 200
            probed = await response.json()
        async with session.post(f"{base}/test-connection", json={"probe": True, "model": "full"}) as response:
            only = await response.json()
    assert [route["model_id"] for route in only["routes"]] == ["full"]
    assert only["routes"][0]["probe"]["error"].startswith("too fast (http://127.0.0.1:")
    assert probed["ok"] is False
    good, bad = (route["probe"] for route in probed["routes"])
    assert (good["ok"], good["status"]) == (True, 200)
    assert (bad["ok"], bad["status"]) == (False, 429)
    assert bad["error"].startswith("too fast (http://127.0.0.1:")
    assert [request["model"] for request in upstream.requests] == ["m", "full", "full"]


PATHS = ("/v1/stats", "/events", "/test-connection", "/metrics", "/v1/calls/req_1")


@pytest.mark.parametrize("path", PATHS)
async def test_other_machines_and_proxied_clients_are_refused(
    session: aiohttp.ClientSession, path: str
) -> None:
    token = "let-me-in-0123456789"
    entry = {"model_id": "demo", "api_base": "builtin:demo"}
    async with running_proxy([entry], auth_token=Secret(token)) as base:
        for headers, status in (
            ({}, 401),
            ({"x-claude-proxy-token": token}, 200),
            ({"x-claude-proxy-token": token, "origin": "http://evil.example"}, 403),
            ({"x-claude-proxy-token": token, "sec-fetch-site": "cross-site"}, 403),
            ({"x-claude-proxy-token": token, "host": "evil.example"}, 421),
        ):
            async with session.get(base + path, headers=headers) as response:
                assert response.status == status, headers
                if status == 200 and path != "/events":
                    assert token not in await response.text()
        async with session.get(f"{base}/dashboard") as response:
            assert response.status == 200
            assert "default-src 'none'" in response.headers["content-security-policy"]
        async with session.get(f"{base}/dashboard/../usage.db") as response:
            assert response.status in (401, 404)


@pytest.mark.statement("D4")
async def test_an_open_circuit_breaker_is_shown(session: aiohttp.ClientSession) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    async with running_proxy([{"model_id": "m", "api_base": origin + "/v1"}], max_retries=0) as base:
        for _ in range(6):
            await ask(session, base)
        async with session.get(f"{base}/metrics") as response:
            lines = (await response.text()).splitlines()
        found = await get(session, f"{base}/test-connection")
    assert f'proxyd_circuit_state{{origin="{origin}"}} 2.0' in lines
    assert found["routes"][0]["circuit"] == "open"
