"""Daemons on one store: what an upstream has refused one of them, the other one does not try."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxyd.config.database_url import parse_database_url
from proxyd.daemon.server import Daemon
from proxyd.proxy.learned_file import FILE
from proxyd.secret import Secret
from tests.support.harness import load_entries, running_upstream, text_stream
from tests.support.raw_sockets import RawResponse, ask, post
from tests.support.streams import HELLO

TOKEN = "the-token-of-this-proxy-123"
REFUSAL = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


async def upstream(request: web.Request) -> web.StreamResponse:
    """Refuses as OpenAI's reasoning models do."""
    if "max_tokens" in await request.json():
        error = {"message": REFUSAL, "type": "invalid_request_error", "param": "max_tokens", "code": None}
        return web.json_response({"error": error}, status=400)
    return web.Response(body=text_stream("Hi."), content_type="text/event-stream")


async def call(daemon: Daemon) -> RawResponse:
    base = "http://{}:{}".format(*daemon.addresses[0])
    return await ask(base, post({**HELLO, "model": "m"}, f"Authorization: Bearer {TOKEN}"))


async def exchange(daemon: Daemon) -> None:
    """Exchange until it succeeds: on a busy machine two seconds may be too little."""
    assert daemon.shared.sync is not None
    for _ in range(60):
        await daemon.shared.sync.exchange()
        if daemon.shared.sync.trouble is None:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(daemon.shared.sync.trouble)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_refusal_teaches_all_daemons(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str
) -> None:
    settings: dict[str, Any] = {"auth_token": Secret(TOKEN)}
    if engine == "sqlite":  # on one state folder
        settings["auth"], folders = "keys", (tmp_path, tmp_path)
    else:
        url = request.getfixturevalue("postgres").new_database()
        settings["store"], folders = parse_database_url(url), (tmp_path / "a", tmp_path / "b")
    async with running_upstream(upstream) as server:
        entry = {"model_id": "m", "api_base": f"{server.base}/v1", "api_key": "k", "provider": "generic"}
        loaded = load_entries([entry], **settings)
        daemons = [Daemon(loaded, state_folder=folder) for folder in folders]
        try:
            for each in daemons:
                await each.start()
            assert (await call(daemons[0])).status == 200
            assert len(server.requests) == 2, "the second without what was refused"
            for each in daemons:
                await exchange(each)
            one, other = (each._calibration.corrected("m", 1000) for each in daemons)
            assert one == other != 1000, "calibrated by the same call"
            server.requests.clear()
            assert (await call(daemons[1])).status == 200
            assert ["max_tokens" in each for each in server.requests] == [False]
        finally:
            for each in daemons:
                await each.close()
        for folder in set(folders):
            (folder / FILE).unlink()
        late = Daemon(loaded, state_folder=tmp_path / "c" if engine == "postgresql" else tmp_path)
        try:
            await late.start()
            await exchange(late)
            server.requests.clear()
            assert (await call(late)).status == 200
            assert len(server.requests) == 1, "loaded at the start"
        finally:
            await late.close()
