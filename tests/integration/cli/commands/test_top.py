"""``claude-proxy top``: a snapshot without a terminal; a live view that reconnects in one."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxyd.secret import Secret
from tests.support.command_line import command, environment
from tests.support.harness import chunk, running_proxy, running_upstream, sse
from tests.support.observing import ask
from tests.support.ports import free_port


async def picture(home: Path, base: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command("top", "--port", base.rpartition(":")[2], *arguments),
        env={**environment(home), "COLUMNS": "110", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_snapshot(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse(chunk({"content": "x" * 800}), done=False))
        await go_on.wait()
        await response.write(sse(chunk({}, "stop")))
        return response

    async with running_upstream(slowly) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base + "/v1"}
        async with running_proxy([entry]) as base, aiohttp.ClientSession() as session:
            request = session.post(
                f"{base}/v1/messages",
                json={
                    "model": "m",
                    "max_tokens": 5,
                    "stream": True,
                    "messages": [{"role": "user", "content": "hi"}],
                },
            )
            async with request as response:
                await response.content.readuntil(b"text_delta")
                code, text, _ = await picture(tmp_path, base)
                assert code == 0
                assert "1 in flight" in text
                assert re.search(r"m +main +streaming +\d+ s +~200", text)
                assert "\x1b" not in text
                go_on.set()
                await response.read()
            code, text, _ = await picture(tmp_path, base, "--once")
            assert "Nothing is in flight." in text
            assert "since the start: 1 calls, 0 failed" in text
            assert "done" in text


async def test_no_daemon_is_exit_3(tmp_path: Path) -> None:
    code, _, err = await picture(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert code == 3
    assert "no claude-proxy answers" in err
    assert "Traceback" not in err


async def test_access_token(tmp_path: Path) -> None:
    token = "let-me-in-0123456789"
    async with running_proxy(
        [{"model_id": "demo", "api_base": "builtin:demo"}], auth_token=Secret(token)
    ) as base:
        code, _, err = await picture(tmp_path, base)
        assert code == 1
        assert "auth_token" in err
        code, text, _ = await picture(tmp_path, base, CLAUDE_PROXY_AUTH_TOKEN=token)
        assert code == 0
        assert "0 in flight" in text


@contextmanager
def terminal(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command in a pseudo-terminal; yield the process and the terminal's other end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        env={**environment(home), "TERM": "xterm", "COLUMNS": "110", "LINES": "30"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
async def test_live_view_reconnects(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    port = free_port()
    entry = {"model_id": "demo", "api_base": "builtin:demo"}
    with terminal(tmp_path, "top", "--port", str(port)) as (process, screen):

        async def until(pattern: str) -> None:
            seen = ""
            while not re.search(pattern, seen):
                seen += (await loop.run_in_executor(None, os.read, screen, 65536)).decode("utf-8", "replace")

        await asyncio.wait_for(until("waiting for it"), 20)
        for _ in range(2):
            async with running_proxy([entry], port=port) as base, aiohttp.ClientSession() as session:
                await asyncio.wait_for(until("0 in flight"), 20)
                await ask(session, base, model="demo", max_tokens=3)
                await asyncio.wait_for(until("max_tokens"), 20)
                os.write(screen, b"t")
                await asyncio.wait_for(until("sorted by tokens"), 20)
                os.write(screen, b"a")
            await asyncio.wait_for(until("waiting for it"), 20)
        os.write(screen, b"q")
        assert await loop.run_in_executor(None, process.wait, 10) == 0
