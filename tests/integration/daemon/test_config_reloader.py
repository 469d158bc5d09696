"""Reloads under load: streams lose no byte, calls use the table in force, an invalid file changes nothing
(docs/spec/operations.md#a4, #h2)."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.config.models import load
from proxyd.config.settings import Settings
from proxyd.daemon.config_reloader import Reloader
from proxyd.daemon.configuration import LoadedConfig, checks
from proxyd.daemon.server import Daemon
from proxyd.errors import ConfigError
from proxyd.hooks.loader import find_hook_files
from tests.support.harness import chunk, running_upstream, sse
from tests.support.keyrings import MemoryKeyring, using_keyring

POLL_S = 0.01
TIMEOUT_S = 60


async def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds` returns true."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen"
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def daemon_on(path: Path) -> AsyncIterator[tuple[Daemon, str]]:
    """A daemon that reads `path`, and its base URL."""

    def read() -> LoadedConfig:
        return LoadedConfig(load(path, {}, checks=checks()), replace(Settings(), port=0))

    daemon = Daemon(read(), reload=read)
    await daemon.start()
    try:
        yield daemon, f"http://127.0.0.1:{daemon.addresses[0][1]}"
    finally:
        await daemon.drain()
        await daemon.close()


async def ids(client: aiohttp.ClientSession) -> list[str]:
    async with client.get("/v1/models") as response:
        return [entry["id"] for entry in (await response.json())["data"]]


async def until_ids(client: aiohttp.ClientSession, wanted: list[str]) -> None:
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while (found := await ids(client)) != wanted:
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(POLL_S)


def write(path: Path, *entries: dict[str, Any]) -> None:
    """Save atomically, as a careful editor does."""
    temporary = path.with_suffix(".new")
    temporary.write_text("".join(f"- {json.dumps(entry)}\n" for entry in entries))
    os.replace(temporary, path)


def demo(model_id: str) -> dict[str, Any]:
    return {"model_id": model_id, "api_base": "builtin:demo"}


# -- the reader


async def test_requests_during_a_reload_cause_one_more() -> None:
    gate, read, applied = threading.Event(), [], []

    def slow() -> int:
        gate.wait(TIMEOUT_S)
        read.append(len(read))
        return read[-1]

    reloader = Reloader(slow, applied.append, lambda exc: None)
    for _ in range(5):
        reloader.request()
        await asyncio.sleep(0)
    gate.set()
    await until(lambda: len(applied) == 2)
    await reloader.close()
    assert read == [0, 1]


@pytest.mark.parametrize("failure", [ConfigError("line 3"), ZeroDivisionError("a bug")])
async def test_an_invalid_configuration_is_not_applied(failure: Exception) -> None:
    responses: list[Any] = [failure, "good"]
    applied, rejected = [], []

    def read() -> Any:
        response = responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    reloader = Reloader(read, applied.append, rejected.append)
    reloader.request()
    await until(lambda: len(responses) == 1)
    reloader.request()
    await until(lambda: applied == ["good"])
    await reloader.close()
    assert [exc.message for exc in rejected] == (["line 3"] if isinstance(failure, ConfigError) else [])


async def test_a_file_is_read_once_it_stops_changing(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("one")
    seen: list[str] = []
    reloader = Reloader(path.read_text, seen.append, lambda exc: None)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    reloader.watch(lambda: [path, tmp_path / "env", *find_hook_files(hooks)], POLL_S)
    path.unlink()
    path.write_text("two")
    await until(lambda: seen == ["two"])
    (tmp_path / "env").write_text("A=1")
    await until(lambda: seen == ["two", "two"])
    (hooks / "_disabled.py").write_text("1")
    (hooks / "new.py").write_text("1")
    await until(lambda: len(seen) == 3)
    (hooks / "new.py").write_text("22")
    await until(lambda: len(seen) == 4)
    (hooks / "new.py").unlink()
    await until(lambda: len(seen) == 5)
    await reloader.close()


# -- the daemon


async def test_saving_the_file_reloads_it(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    write(path, demo("a"))
    async with daemon_on(path) as (_, base), aiohttp.ClientSession(base) as client:
        assert await ids(client) == ["a"]
        write(path, demo("a"), demo("b"))
        await until_ids(client, ["a", "b"])
        # In place, in two steps; the file after the first one is invalid.
        with path.open("w") as file:
            file.write("- {model_id: c,")
            file.flush()
            file.write(" api_base: 'builtin:demo'}\n")
        await until_ids(client, ["c"])


async def test_an_invalid_file_leaves_the_old_one_in_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "models.yaml"
    write(path, demo("a"))
    async with daemon_on(path) as (daemon, base), aiohttp.ClientSession(base) as client:
        path.write_text("- model_id: b\n  api_bas: builtin:demo\n")
        daemon.reload()
        seen = ""
        while "config.rejected" not in seen:
            await asyncio.sleep(POLL_S)
            seen += capsys.readouterr().out
        assert "models.yaml:2:3: models[0].api_bas: unknown key; did you mean 'api_base'?" in seen
        assert await ids(client) == ["a"]
        write(path, demo("b"))
        daemon.reload()
        await until_ids(client, ["b"])


async def test_warnings_are_logged_at_reload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "models.yaml"
    write(path, demo("a"))
    async with daemon_on(path) as (_, base), aiohttp.ClientSession(base) as client:
        write(path, demo("a"), {**demo("b"), "aliases": ["x"]}, {**demo("c"), "aliases": ["x"]})
        await until_ids(client, ["a", "b", "c"])
    assert (
        "models[2].aliases[0]: 'x' is an alias on line 2 already, and that one wins"
        in capsys.readouterr().out
    )


FRAME = 'event: content_block_delta\ndata: {{"type":"content_block_delta","index":0,"n":{}}}\n\n'
DIRECT_HEAD = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n'
)
DIRECT_TAIL = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Ticking:
    """An upstream whose streams send one frame a tick; other calls get the name of their model."""

    def __init__(self, ticks: int) -> None:
        self._ticks = [asyncio.Event() for _ in range(ticks)]

    def tick(self, number: int) -> None:
        self._ticks[number].set()

    async def respond(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        is_direct = request.path == "/v1/messages"
        if body["messages"][0]["content"] == "who?":
            if is_direct:
                return web.json_response({"type": "message", "model": body["model"]})
            chunks = (chunk({"content": body["model"]}), chunk({}, "stop"))
            return web.Response(body=sse(*chunks), content_type="text/event-stream")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(DIRECT_HEAD if is_direct else sse(chunk({"content": ""}), done=False))
        for number, each in enumerate(self._ticks):
            await each.wait()
            piece = (
                FRAME.format(number).encode()
                if is_direct
                else sse(chunk({"content": f"{number} "}), done=False)
            )
            await response.write(piece)
        await response.write(DIRECT_TAIL if is_direct else sse(chunk({}, "stop")))
        return response


async def test_a_hundred_reloads_during_fifty_streams(tmp_path: Path) -> None:
    """Every fifth file is invalid; each new call uses the table in force."""
    reloads, streams = 100, 50
    path = tmp_path / "models.yaml"
    upstream_of = Ticking(reloads)

    async with running_upstream(upstream_of.respond) as upstream:

        def save(generation: int) -> None:
            name = f"name-{generation}"
            write(
                path,
                {"model_id": "d", "model_name": name, "api_base": upstream.base, "direct": True},
                {"model_id": "t", "model_name": name, "api_base": f"{upstream.base}/v1"},
                demo(f"generation-{generation}"),
            )

        def asking(model: str, prompt: str, *, stream: bool) -> dict[str, Any]:
            message = {"role": "user", "content": prompt}
            return {"model": model, "stream": stream, "max_tokens": 9, "messages": [message]}

        async def read(client: aiohttp.ClientSession, model: str) -> bytes:
            async with client.post("/v1/messages", json=asking(model, "count", stream=True)) as response:
                assert response.status == 200
                return await response.read()

        save(0)
        timeout = aiohttp.ClientTimeout(total=120)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            daemon_on(path) as (daemon, base),
            aiohttp.ClientSession(base, timeout=timeout, connector=connector) as client,
        ):
            tasks = [asyncio.ensure_future(read(client, "dt"[n % 2])) for n in range(streams)]
            await until(lambda: len(upstream.requests) == streams)
            for generation in range(1, reloads + 1):
                if generation % 5 == 0:
                    path.write_text("- {model_id: broken\n")
                    daemon.reload()
                save(generation)
                daemon.reload()
                await until_ids(client, ["d", "t", f"generation-{generation}"])
                upstream_of.tick(generation - 1)
                model = "dt"[generation % 2]
                async with client.post("/v1/messages", json=asking(model, "who?", stream=False)) as response:
                    assert response.status == 200
                    assert f"name-{generation}" in await response.text()
            bodies = await asyncio.gather(*tasks)
    whole = DIRECT_HEAD + b"".join(FRAME.format(n).encode() for n in range(reloads)) + DIRECT_TAIL
    assert set(bodies[0::2]) == {whole}
    texts = "".join(f"{n} " for n in range(reloads))
    for body in bodies[1::2]:
        events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
        deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
        assert "".join(delta["text"] for delta in deltas) == texts
        assert events[-1]["type"] == "message_stop"


async def test_a_keyring_that_does_not_respond_holds_no_call_up(tmp_path: Path) -> None:
    path, asked, unlocked = tmp_path / "models.yaml", threading.Event(), threading.Event()
    keyring = MemoryKeyring(K="sk-0123456789abcdef")

    def wait() -> None:
        asked.set()
        unlocked.wait(TIMEOUT_S)

    keyring.on_use = wait
    write(path, demo("old"))
    with using_keyring(keyring):
        async with daemon_on(path) as (daemon, base), aiohttp.ClientSession(base) as client:
            keyed = {"model_id": "new", "api_base": "https://api.example.com/v1", "api_key": "${keyring:K}"}
            write(path, keyed)
            daemon.reload()
            await until(asked.is_set)
            assert await ids(client) == ["old"], "it responds while the keyring does not"
            unlocked.set()
            await until_ids(client, ["new"])
