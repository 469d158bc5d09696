"""Fetching a small document: what can go wrong, and what is said of it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxyd.onboarding.fetching import FetchFailed, fetch_json, http_session
from tests.support.certificates import make_certificate, server_context
from tests.support.model_servers import ModelServer, serving
from tests.support.ports import free_port

KEY = "sk-0123456789abcdef"


async def failure(document: Any, path: str = "/x", **options: Any) -> FetchFailed:
    async with serving(ModelServer({"/x": document})) as server, http_session() as session:
        with pytest.raises(FetchFailed) as caught:
            await fetch_json(session, server.base + path, **options)
    assert caught.value.message.startswith(f"{server.base}{path}: ")
    return caught.value


async def test_json_of_a_get_and_of_a_post() -> None:
    async with (
        serving(ModelServer({"/x": {"a": 1}, "/api/show": {"b": 2}})) as server,
        http_session() as session,
    ):
        assert await fetch_json(session, f"{server.base}/x") == {"a": 1}
        assert await fetch_json(session, f"{server.base}/api/show", body={"model": "m"}) == {"b": 2}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ((200, "text/html", b"<!doctype html><html></html>"), "got a web page; check the address"),
        ((200, "application/json", b"<html>"), "got a web page"),
        ((200, "application/json", b"{"), "got application/json that is no JSON; check the address"),
        ((200, "text/plain", b"hello"), "got text/plain; check the address"),
        ((200, "text/plain", b" "), "got an empty response; check the address"),
        ((401, "application/json", b'{"error":{"message":"bad key"}}'), "the key was refused (401: bad key)"),
        ((403, "text/plain", b"no"), "the key was refused (403)"),
        ((404, "text/plain", b""), "there is no list of models (404); check the address"),
        ((429, "application/json", b'{"error":"slow down"}'), "too many requests (429: slow down)"),
        (
            (500, "application/json", b'{"message":"broken"}'),
            "the server failed (500: broken); try again in a minute",
        ),
        ((302, "text/plain", b""), "redirects elsewhere (302)"),
    ],
)
async def test_what_is_no_list(document: Any, said: str) -> None:
    assert said in (await failure(document)).message


async def test_a_refusal_that_repeats_the_key_does_not_show_it() -> None:
    body = b'{"error":{"message":"Incorrect API key provided: ' + KEY.encode() + b'"}}'
    found = await failure((401, "application/json", body), headers={"authorization": f"Bearer {KEY}"})
    assert KEY not in found.message
    assert found.status == 401


async def test_a_list_of_5_mb_is_refused() -> None:
    found = await failure((200, "application/json", b'{"data": "' + b"x" * (5 << 20) + b'"}'))
    assert "larger than 4 MB; check the address" in found.message


async def test_a_server_that_does_not_run() -> None:
    port = free_port()
    async with http_session() as session:
        with pytest.raises(FetchFailed, match=r"cannot be reached \(connection refused\); start the server"):
            await fetch_json(session, f"http://127.0.0.1:{port}/x")
        with pytest.raises(FetchFailed, match=r"there is no such host, or no network\); check the network"):
            await fetch_json(session, "https://nothing.invalid/x")


async def test_a_certificate_of_an_unknown_authority(tmp_path: Path) -> None:
    app, context = web.Application(), server_context(*make_certificate(tmp_path))
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://localhost:{runner.addresses[0][1]}/models"
        async with http_session() as session:
            with pytest.raises(
                FetchFailed, match=r"its certificate cannot be verified\); .* set CLAUDE_PROXY_CA_FILE to"
            ):
                await fetch_json(session, url)
        async with http_session(str(tmp_path / "certificate.pem")) as session:
            with pytest.raises(FetchFailed, match="no list of models"):
                await fetch_json(session, url)
    finally:
        await runner.cleanup()


async def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with http_session() as session:
            with pytest.raises(FetchFailed, match=r"no response within 0\.2 s"):
                await fetch_json(session, f"http://127.0.0.1:{silent.getsockname()[1]}/x", timeout_s=0.2)
