"""The tool runners of the official SDKs, which keep a conversation at the server by default (`thread`)."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
from anthropic import beta_async_tool

from tests.support.paths import ROOT
from tests.system.e2e import anthropic_upstream, openai_upstream
from tests.system.e2e.install import UnreachableRegistryError, installed_package
from tests.system.e2e.scripted import ScriptedUpstream
from tests.system.e2e.stage import (
    FAKE_KEY,
    ScenarioError,
    ScenarioSkipped,
    Stage,
    check,
    check_equal,
    scenario,
)

PROMPT = "What is two and three, and that and four?"
TYPESCRIPT_SDK, TYPESCRIPT_VERSION = "@anthropic-ai/sdk", "1.14.0"
TIMEOUT_S = 60.0

#: Runs one conversation at a base URL, for a model, streaming or not; returns the final text.
Run = Callable[[str, str, bool], Awaitable[str]]


async def _keep_the_conversation(stage: Stage, run: Run) -> None:
    """Check that each request holds the whole history, in both modes, streaming and not."""
    upstreams: dict[str, ScriptedUpstream] = {}
    entries: list[dict[str, Any]] = []
    for how in ("streamed", "whole"):
        for mode, dialect in (("translated", openai_upstream), ("direct", anthropic_upstream)):
            script = [
                dialect.call("add", a=2, b=3),
                dialect.call("add", a=5, b=4),
                dialect.say("It is nine."),
            ]
            name = f"{mode}-{how}"
            if mode == "direct":
                direct = await stage.anthropic(script, key_header="authorization", key=FAKE_KEY, beta="")
                upstreams[name] = direct
                entries.append({"model_id": name, "api_base": direct.api_base, "direct": True})
            else:
                translated = await stage.openai(script, key=FAKE_KEY)
                upstreams[name] = translated
                entries.append({"model_id": name, "api_base": translated.api_base})
    daemon = await stage.daemon(entries)
    for name, upstream in upstreams.items():
        text = await run(daemon.base_url, name, name.endswith("streamed"))
        check_equal(text, "It is nine.", f"the final text of {name}")
        check(
            f"thread: the upstream of model '{name}'" in daemon.log(), f"the SDK asked {name} for no thread"
        )
        check_equal(len(upstream.requests), 3, f"requests of {name}")
        for number, request in enumerate(upstream.requests):
            check(PROMPT in str(request.messages), f"request {number + 1} of {name} lacks the prompt")
            check("thread" not in request.body, f"a thread reached {name}")
            roles = [message["role"] for message in request.messages]
            check_equal(
                roles.count("assistant"), number, f"assistant's turns in request {number + 1} of {name}"
            )


@scenario
async def conversation_thread_of_the_python_sdk(stage: Stage) -> None:
    """The Python SDK's tool runner goes on with the whole history, translated and direct, streaming and not"""

    @beta_async_tool
    async def add(a: float, b: float) -> str:
        """Add two numbers."""
        return f"{a + b:g}"

    async def run(base_url: str, model: str, is_stream: bool) -> str:
        async with anthropic.AsyncAnthropic(
            base_url=base_url, api_key=None, auth_token=FAKE_KEY, max_retries=0
        ) as client:
            runner = client.beta.messages.tool_runner(
                model=model,
                max_tokens=1000,
                messages=[{"role": "user", "content": PROMPT}],
                tools=[add],
                stream=is_stream,
            )
            message = await runner.until_done()
            return "".join(block.text for block in message.content if block.type == "text")

    await _keep_the_conversation(stage, run)


@scenario
async def conversation_thread_of_the_typescript_sdk(stage: Stage) -> None:
    """The same with the TypeScript SDK's tool runner, installed from npm"""
    node = shutil.which("node")
    if node is None:
        raise ScenarioSkipped("Node is not installed")
    try:
        folder = await asyncio.to_thread(installed_package, ROOT / ".e2e", TYPESCRIPT_SDK, TYPESCRIPT_VERSION)
    except UnreachableRegistryError as exc:
        raise ScenarioSkipped(str(exc)) from None
    sdk = folder / "node_modules" / TYPESCRIPT_SDK / "index.mjs"

    async def run(base_url: str, model: str, is_stream: bool) -> str:
        return await _run_node(node, stage.project, sdk, base_url, model, is_stream)

    await _keep_the_conversation(stage, run)


async def _run_node(node: str, folder: Path, sdk: Path, base_url: str, model: str, is_stream: bool) -> str:
    process = await asyncio.create_subprocess_exec(
        node,
        str(Path(__file__).parents[1] / "tool_runner.mjs"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={
            "PATH": os.defpath,
            "SDK": str(sdk),
            "BASE_URL": base_url,
            "KEY": FAKE_KEY,
            "MODEL": model,
            "STREAM": "1" if is_stream else "",
            "PROMPT": PROMPT,
        },
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except asyncio.TimeoutError:
        process.kill()
        raise ScenarioError(f"the SDK did not end within {TIMEOUT_S:g} s") from None
    if process.returncode != 0:
        raise ScenarioError(f"the SDK ended with {process.returncode}: {err.decode()[-1500:]}")
    return out.decode().strip()
