"""Without a models.yaml the demo runs, and says how to add a model; a file that is named must be there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.command_line import Home

ENTRY = "- {model_id: mine, api_base: 'builtin:demo'}\n"


def test_commands_know_the_demo_alone(home: Home) -> None:
    checked = home.run("check")
    assert checked.code == 0
    assert f"There is no {home.config / 'models.yaml'} (default)" in checked.out
    assert "only the model 'demo' is offered; 'claude-proxy add' adds yours" in checked.err
    assert [each["model_id"] for each in json.loads(home.run("models", "list", "--json").out)] == ["demo"]
    assert "ANTHROPIC_BASE_URL" in home.run("env").out
    assert not home.config.exists()


def test_a_file_that_is_named_must_be_there(home: Home) -> None:
    for arguments in (("check", "--models", "other.yaml"), ("run", "--models", "other.yaml")):
        done = home.run(*arguments)
        assert done.code == 78
        assert "there is no such file; run 'claude-proxy add' to write one" in done.err


def test_a_link_that_leads_nowhere_is_a_fault(home: Home) -> None:
    home.config.mkdir(parents=True)
    (home.config / "models.yaml").symlink_to("gone.yaml")
    assert home.run("check").code == 78


@asynccontextmanager
async def foreground(home: Home) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxyd"),
        env={**home.environ, "LOG_LEVEL": "error"},
        cwd=home.path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


def listed(home: Home) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{home.port}/v1/models", timeout=120) as response:
        return [each["id"] for each in json.load(response)["data"]]


async def test_the_daemon_takes_over_the_file_once_it_is_there(home: Home) -> None:
    async with foreground(home) as process:
        assert process.stdout is not None
        said = b""
        while b"Stop it" not in said:
            said += await asyncio.wait_for(process.stdout.readline(), 20)
        assert b"Only the model 'demo' is there yet. Add one of yours: " in said
        assert b" add\n" in said
        assert "demo" in await asyncio.to_thread(listed, home)
        reloaded = await asyncio.to_thread(home.process, "reload")
        assert reloaded.code == 1
        assert "'claude-proxy add' writes it" in reloaded.err
        home.write_models(ENTRY).chmod(0o600)
        for _ in range(200):
            if "mine" in await asyncio.to_thread(listed, home):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the file was not taken over")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert os.listdir(home.config) == ["models.yaml"]
