"""A HEAD request has no body, whatever is at its path: the bytes behind the head are the next response."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxyd.daemon.server import Daemon
from proxyd.proxy.client_request import PREFIX
from tests.support.harness import load_entries, running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream

PATHS = (
    "/", "/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/models/m", "/v1/models/d", "/v1/models/none",
    "/v1/v1/messages", "/v1/v1/messages/count_tokens", "/v1/v1/models", "/v1/v1/models/m",
    "/v1/models?limit=x", "/api/hello", "/healthz", "/health", "/readyz", "/readyz?verbose", "/v1/stats", "/metrics",
    "/v1/calls/req_none",
    "/events", "/dashboard", "/dashboard/dashboard.js", "/dashboard/none", "/test-connection",
    "/test-connection?probe=1", "/v1/entries", "/v1/entries/models", "/v1/entries/vendors", "/nothing",
)  # fmt: skip
NEXT = b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


def head_of(path: str, *headers: str) -> bytes:
    lines = [f"HEAD {path} HTTP/1.1", "Host: localhost", "anthropic-version: 2023-06-01", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@asynccontextmanager
async def proxy(tmp_path: Path) -> AsyncIterator[str]:
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    upstream = RawUpstream(lambda _: (response,))
    async with upstream.running():
        entries = [
            {"model_id": "m", "api_base": f"{upstream.base}/v1"},
            {"model_id": "d", "api_base": upstream.base, "direct": True, "api_key": "sk-configured-0001"},
        ]
        async with running_proxy(entries, state_folder=tmp_path) as base:
            yield base


@pytest.mark.statement("E9")
@pytest.mark.parametrize("headers", [(), ("Origin: https://evil.example",), ("Content-Length: 2", "X: {}")])
async def test_behind_the_head_comes_the_next_response(tmp_path: Path, headers: tuple[str, ...]) -> None:
    body = b"{}" if "Content-Length: 2" in headers else b""
    async with proxy(tmp_path) as base, RawClient.to(base) as client:
        for path in (*PATHS, *(f"{PREFIX}{each}" for each in PATHS)):
            await client.send(head_of(path, *headers) + body + NEXT)
            status, seen = await client.head()
            assert status in (200, 400, 403, 404, 405), path
            assert "transfer-encoding" not in seen, path
            follower = await client.response()
            assert (follower.status, follower.body) == (200, b'{"status":"ok"}'), path


@pytest.mark.statement("E9")
async def test_refusals_by_host_and_token_have_no_body_either(tmp_path: Path) -> None:
    from proxyd.secret import Secret

    entries = [{"model_id": "demo", "api_base": "builtin:demo"}]
    follower = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with running_proxy(entries, auth_token=Secret("the-token-of-this-proxy")) as base:
        async with RawClient.to(base) as client:
            for path in PATHS:
                for request in (head_of(path), head_of(path).replace(b"localhost", b"evil.example")):
                    await client.send(request + follower)
                    await client.head()
                    assert (await client.response()).status == 200, path


async def test_no_path_is_left_out() -> None:
    daemon = Daemon(load_entries([{"model_id": "demo", "api_base": "builtin:demo"}]))
    await daemon.start()
    try:
        assert daemon._runner is not None
        resources = daemon._runner.app.router.resources()
        known = {each.canonical for each in resources if not each.canonical.startswith(PREFIX)}
    finally:
        await daemon.drain()
        await daemon.close()
    patterns = [re.compile(re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(each)) + r"\Z") for each in known]
    paths = [path.partition("?")[0] for path in PATHS]
    assert [each.pattern for each in patterns if not any(map(each.match, paths))] == []
