"""Anthropic credentials planted in requests reach no other vendor: no connection to an upstream is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.harness import running_proxy, running_upstream, text_stream
from tests.support.servers import running_server

LOGIN = "sk-" + "ant-" + "planted" * 6
GROQ = "gs" + "k_" + "planted" * 6
OAUTH = {"anthropic-beta": "claude-code-1,oauth-2025-04-20"}
PLANTED = {
    "login": {"authorization": f"Bearer {LOGIN}", **OAUTH},
    "login without beta": {"authorization": f"Bearer {LOGIN}"},
    "API key": {"x-api-key": LOGIN},
    "opaque login": {"authorization": "Bearer opaque", **OAUTH},
    "beside a vendor's key": {"x-api-key": "key-of-vendor", "authorization": f"Bearer {LOGIN}"},
}


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[Any]]]:
    """A port that records every connection."""
    connections: list[Any] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("peername"))
        writer.close()

    async with running_server(accept) as port:
        yield f"http://127.0.0.1:{port}", connections


def entry(base: str, mode: str, **more: Any) -> dict[str, Any]:
    address = {"api_base": base, "direct": True} if mode == "direct" else {"api_base": f"{base}/v1"}
    return {"model_id": "m", **address, **more}


async def ask(
    proxy: str, headers: dict[str, str], path: str = "/v1/messages", *, size: int = 1
) -> tuple[int, str, str | None]:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi " * size}],
        "max_tokens": 9,
        "stream": True,
    }
    async with (
        aiohttp.ClientSession(proxy) as client,
        client.post(path, json=body, headers=headers) as response,
    ):
        return response.status, await response.text(), response.headers.get("x-should-retry")


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("mode", ["direct", "translated"])
async def test_anthropic_credentials_open_no_connection(
    mode: str, planted: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with listening() as (base, connections), listening() as (other, others):
        fallback = {**entry(other, mode), "model_id": "other"}
        async with running_proxy([entry(base, mode, fallback=["other"]), fallback]) as proxy:
            for size in (1, 10_000):  # a large direct request is forwarded without parsing
                status, body, should_retry = await ask(proxy, planted, size=size)
                assert (status, should_retry) == (401, "false")
                assert "set ANTHROPIC_AUTH_TOKEN" in body
                assert LOGIN not in body
            if mode == "direct":
                assert (await ask(proxy, planted, "/v1/messages/count_tokens"))[0] == 401
    assert connections == others == []
    assert LOGIN not in capsys.readouterr().out


async def test_an_anthropic_key_in_another_header_opens_no_connection() -> None:
    async with listening() as (base, connections), running_proxy([entry(base, "direct")]) as proxy:
        headers = {"x-api-key": "key-of-vendor", "x-custom": f"Bearer {LOGIN}"}
        assert (await ask(proxy, headers))[0] == 401
    assert connections == []


async def respond(request: web.Request) -> web.StreamResponse:
    return web.Response(body=text_stream("hi"), content_type="text/event-stream")


async def test_the_key_of_the_entry_replaces_the_login() -> None:
    async with (
        running_upstream(respond) as upstream,
        running_proxy([entry(upstream.base, "translated", api_key="key-of-vendor")]) as proxy,
    ):
        assert (await ask(proxy, PLANTED["login"]))[0] == 200
    assert LOGIN not in repr(upstream.headers)


async def test_an_entry_may_accept_logins() -> None:
    async with (
        running_upstream(respond) as upstream,
        running_proxy([entry(upstream.base, "translated", accepts_anthropic_login=True)]) as proxy,
    ):
        assert (await ask(proxy, PLANTED["login"]))[0] == 200
    assert upstream.headers[0]["authorization"] == f"Bearer {LOGIN}"


async def test_another_vendors_key_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        running_upstream(respond) as upstream,
        running_proxy([entry(upstream.base, "translated")]) as proxy,
    ):
        for _ in range(2):
            assert (await ask(proxy, {"x-api-key": GROQ}))[0] == 200
    log = capsys.readouterr().out
    assert log.count("key.misplaced") == 1
    assert "issued_by=Groq" in log
    assert GROQ not in log
