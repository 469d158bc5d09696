"""The client's address behind a trusted proxy: in the log, in the details of a call, and where nearness counts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.daemon import listener
from proxyd.secret import Secret
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, ask, post
from tests.support.streams import HELLO

TOKEN = "the-token-of-this-proxy-123"
DEMO = {"model_id": "m", "api_base": "builtin:demo"}
FORGED = ("X-Forwarded-For: 127.0.0.1, 192.0.2.7", "X-Real-IP: 127.0.0.1")
ON_THIS_MACHINE, ELSEWHERE = ("127.0.0.0/8", "::1"), ("10.0.0.0/8",)


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    found = RawUpstream(lambda _: (head + b"{}",))
    async with found.running():
        yield found


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *headers)).encode() + b"\r\n\r\n"


async def message(base: str, *headers: str) -> RawResponse:
    return await ask(base, post({**HELLO, "model": "m", "stream": False}, *headers))


async def test_the_log_and_the_details_have_the_address_that_a_trusted_proxy_names(
    upstream: RawUpstream, tmp_path: Path
) -> None:
    entry = {"model_id": "m", "api_base": upstream.base, "direct": True, "api_key": "k"}
    async with running_proxy([entry], state_folder=tmp_path, trusted_proxies=ON_THIS_MACHINE) as base:
        with capture_logs() as lines:
            through = await message(base, *FORGED)
            assert through.status == (await message(base)).status == 200
            assert (await ask(base, get("/v1/nothing", *FORGED))).status == 404
            assert (await ask(base, get("/v1/stats"))).status == 200  # which reports the calls
        path = f"/v1/calls/{through.headers['request-id']}"
        found = json.loads((await ask(base, get(path))).body)
    finished = [line.get("client_address") for line in lines if line["event"] == "call.finished"]
    assert finished == ["192.0.2.7", None], "that of a client on this machine says nothing"
    assert [line["client_address"] for line in lines if line["event"] == "request.refused"] == ["192.0.2.7"]
    assert found["record"]["call"]["facts"]["client_address"] == "192.0.2.7"


async def test_a_header_of_anybody_else_is_ignored(upstream: RawUpstream) -> None:
    entry = {"model_id": "m", "api_base": upstream.base, "direct": True, "api_key": "k"}
    async with running_proxy([entry], trusted_proxies=ELSEWHERE) as base:
        with capture_logs() as lines:
            assert (await message(base, *FORGED, "Forwarded: for=10.0.0.1")).status == 200
            assert (await ask(base, get("/v1/stats"))).status == 200
    (line,) = [line for line in lines if line["event"] == "call.finished"]
    assert "client_address" not in line


@pytest.mark.statement("E1")
@pytest.mark.parametrize("trusted", [ON_THIS_MACHINE, ELSEWHERE])
async def test_no_trusted_proxy_makes_a_client_near(trusted: tuple[str, ...]) -> None:
    near = [("X-Forwarded-For: 127.0.0.1",), ("Forwarded: for=127.0.0.1",), ('Forwarded: for="[::1]"',)]
    async with running_proxy([DEMO], trusted_proxies=trusted) as base:
        for headers in near:
            assert json.loads((await ask(base, get("/readyz?verbose", *headers))).body) == {"status": "ready"}
            assert (await ask(base, get("/metrics", *headers))).status == 403
        assert json.loads((await ask(base, get("/readyz?verbose"))).body)["name"] == "claude-proxy"
    async with running_proxy([DEMO], trusted_proxies=trusted, auth_token=Secret(TOKEN)) as base:
        assert (await ask(base, get("/readyz?verbose"))).status == 401
        for headers in ((), *near):
            for path in ("/metrics", "/v1/stats"):
                assert (await ask(base, get(path, *headers))).status == 401
            assert (
                await ask(base, get("/metrics", *headers, f"Authorization: Bearer {TOKEN}"))
            ).status == 200


async def test_idle_connections_of_a_trusted_proxy_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """They serve many clients, and a balancer that finds them closed fails calls."""
    monkeypatch.setattr(listener, "_GRACE_S", 0.0)
    settings: dict[str, Any] = {"trusted_proxies": ON_THIS_MACHINE, "max_idle_per_peer": 2}
    async with running_proxy([DEMO], **settings) as base, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient.to(base)) for _ in range(6)]
        for _ in range(2):
            for client in clients:
                await client.send(get("/healthz"))
                assert (await client.response()).status == 200
