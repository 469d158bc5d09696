"""``python -m tests.system.real``: the proxy in front of a real llama-server, for about a minute (``make real``).

With ``--vllm`` it is vLLM, whose packages have 3.5 GB (``make real-vllm``, for releases).

What scripted upstreams cannot show: that a server nobody here wrote takes our requests, and that usage, grammars,
overflow, cancellation and restarts go as docs/spec says. Exit code 0 when all checks passed, or when this machine
cannot have the packages or start the program; else 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest

from tests.support.paths import ROOT
from tests.support.raw_sockets import RawClient, post
from tests.system.e2e.claude_code import run_claude
from tests.system.e2e.daemon import Daemon
from tests.system.e2e.install import (
    PINNED_VERSION,
    InstallError,
    UnreachableRegistryError,
    installed_claude,
    installed_package,
)
from tests.system.e2e.scenarios.sdks import TYPESCRIPT_SDK, TYPESCRIPT_VERSION
from tests.system.real.server import LlamaServer, NotAvailableError, Server, install
from tests.system.real.vllm_server import VllmServer, install_vllm

FOLDER, VLLM_FOLDER = ROOT / ".real", ROOT / ".real-vllm"
#: Tokens of the server's context, shared by its slots; Claude Code's first request has some 14 000.
CONTEXT, SLOTS, VLLM_CONTEXT = 40_960, 6, 8192
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 30}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME = {
    "name": "get_time",
    "description": "Time in a zone",
    "input_schema": {"type": "object", "properties": {"zone": {"type": "string", "maxLength": 524288}}},
}
#: A conversation that has called tools, without which so small a model calls none.
CALLED: list[dict[str, Any]] = []
for _number, _zone in enumerate(("UTC", "CET", "EST")):
    CALLED += [
        {"role": "user", "content": f"Time in {_zone}?"},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": f"toolu_{_number}", "name": "get_time", "input": {"zone": _zone}}
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": f"toolu_{_number}", "content": "12:00"}],
        },
        {"role": "assistant", "content": "12:00"},
    ]
CALLED.append({"role": "user", "content": "Time in PST?"})
#: A red square of one pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


@dataclass
class Setting:
    """What a check works on."""

    server: Server
    daemon: Daemon
    folder: Path

    @property
    def client(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(
            base_url=self.daemon.base_url, api_key="made-up", max_retries=0, timeout=120
        )

    async def create(self, model: str = "llama", prompt: str = "Say hello.", **more: Any) -> Any:
        body = {"max_tokens": 24, "messages": [{"role": "user", "content": prompt}], **more}
        return await self.client.messages.create(model=model, extra_body={"temperature": 0}, **body)


Check = Callable[[Setting], Awaitable[None]]


async def whole_response(setting: Setting) -> None:
    """A response that is not streamed has text, a stop reason and usage."""
    message = await setting.create()
    assert message.content[0].text.strip()
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.output_tokens > 0


async def stream(setting: Setting) -> None:
    """A stream arrives in many events, and its text is that of the whole message."""
    async with setting.client.messages.stream(
        model="llama", max_tokens=48, messages=[{"role": "user", "content": "Count from one to ten."}]
    ) as events:
        texts = [text async for text in events.text_stream]
        message = await events.get_final_message()
    assert len(texts) > 5
    assert "".join(texts) == message.content[0].text


async def typescript_sdk(setting: Setting) -> None:
    """The official TypeScript SDK gets a whole message, a stream, and a call of a tool."""
    node = shutil.which("node")
    try:
        if node is None:
            raise UnreachableRegistryError("Node is not installed")
        folder = installed_package(ROOT / ".e2e", TYPESCRIPT_SDK, TYPESCRIPT_VERSION)
    except UnreachableRegistryError as exc:
        print(f"     (not run: {exc})")
        return
    sdk = folder / "node_modules" / TYPESCRIPT_SDK / "index.mjs"
    forced = {"messages": CALLED, "tools": [TIME, WEATHER], "tool_choice": {"type": "any"}, "max_tokens": 300}
    said = {"messages": [{"role": "user", "content": "Count from one to ten."}], "max_tokens": 48}
    for fields in (said, forced):
        request = {"model": "llama", "temperature": 0, **fields}
        environment = {"PATH": os.defpath, "SDK": str(sdk), "BASE_URL": setting.daemon.base_url}
        process = await asyncio.create_subprocess_exec(
            *(node, str(Path(__file__).parent / "sdk.mjs")),
            env={**environment, "REQUEST": json.dumps(request)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), 120)
        except asyncio.TimeoutError:
            process.kill()
            raise
        assert process.returncode == 0, err.decode()[-1500:]
        got = json.loads(out)
        for message in (got["whole"], got["streamed"]):
            kinds = {block["type"] for block in message["content"]}
            assert kinds >= ({"tool_use"} if fields is forced else {"text"}), message
            assert message["usage"]["input_tokens"] + message["usage"]["cache_read_input_tokens"] > 0
        assert fields is forced or got["texts"] > 5


async def usage_is_the_servers(setting: Setting) -> None:
    """Input tokens, cached ones included, are those that the server counted."""
    message = await setting.create(prompt=f"Repeat this: {time.time()}")
    assert isinstance(setting.server, LlamaServer), "only this one reports it"
    counted = max(slot.get("n_prompt_tokens", 0) for slot in await setting.server.slots())
    usage = message.usage
    total = (
        usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    )
    # A slot's prompt grows by what it has generated.
    assert total <= counted <= total + usage.output_tokens, (total, counted)


async def usage_equals_that_of_the_direct_route(setting: Setting) -> None:
    """Tokens of the prompt, cached ones included, are those that the server counts over its own Messages API."""
    totals = []
    for model in ("llama", "llama-direct"):
        usage = (await setting.create(model, prompt=f"Repeat this: {time.time():.0f}")).usage
        cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        totals.append(usage.input_tokens + cached)
    assert abs(totals[0] - totals[1]) <= 1, totals  # a digit may be another token


async def repeated_prompt_is_read_from_the_cache(setting: Setting) -> None:
    """The second call of one prompt reports cached tokens."""
    prompt = f"{time.time()} " + "one two three four five six seven eight nine ten " * 40
    first = await setting.create(prompt=prompt, max_tokens=2)
    second = await setting.create(prompt=prompt, max_tokens=2)
    assert (second.usage.cache_read_input_tokens or 0) > (first.usage.cache_read_input_tokens or 0)


async def forced_tool(setting: Setting) -> None:
    """A named tool choice calls that tool, though the server takes no names and the conversation calls another one."""
    message = await setting.create(
        max_tokens=200,
        tools=[TIME, WEATHER],
        messages=CALLED,
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    calls = [block for block in message.content if block.type == "tool_use"]
    assert {call.name for call in calls} == {"get_weather"}, message
    if isinstance(
        setting.server, LlamaServer
    ):  # vLLM 0.32 does not hold the arguments of a named tool to its schema
        assert all(isinstance(call.input.get("city"), str) for call in calls), message
    assert message.stop_reason == "tool_use"


async def any_tool_streamed(setting: Setting) -> None:
    """`tool_choice: any` calls a tool over a stream, with a schema whose bounds no grammar takes."""
    async with setting.client.messages.stream(
        model="llama",
        max_tokens=300,
        messages=CALLED,
        tools=[TIME, WEATHER],
        tool_choice={"type": "any"},
        extra_body={"temperature": 0},
    ) as events:
        message = await events.get_final_message()
    names = {block.name for block in message.content if block.type == "tool_use"}
    assert names, message
    assert names <= {"get_time", "get_weather"}


async def overflow(setting: Setting) -> None:
    """The server's own refusal of a long prompt becomes the words from which Claude Code compacts."""
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        await setting.create(prompt="one " * int(setting.server.context * 1.5), max_tokens=8)


async def images_are_refused_in_words(setting: Setting) -> None:
    """A picture for a model that sees none is left out with a note in the prompt, or refused as a bad request."""
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "text", "text": "What is this?"},
    ]
    try:
        message = await setting.create(messages=[{"role": "user", "content": content}])
    except anthropic.BadRequestError as exc:
        message = exc
    assert getattr(message, "content", None) or "image" in str(message).lower(), message


async def prefill(setting: Setting) -> None:
    """A response that the client has begun is continued, not begun again."""
    begun = "The capital of France is"
    messages = [{"role": "user", "content": "Capital of France?"}, {"role": "assistant", "content": begun}]
    message = await setting.create(messages=messages)
    assert not message.content[0].text.strip().startswith(begun), message.content


async def direct_route(setting: Setting) -> None:
    """The server's own Messages API works as a direct route, streamed and not."""
    message = await setting.create("llama-direct")
    assert message.content[0].text.strip()
    async with setting.client.messages.stream(
        model="llama-direct", max_tokens=16, messages=[{"role": "user", "content": "Say hello."}]
    ) as events:
        assert (await events.get_final_message()).content


async def responses_api(setting: Setting) -> None:
    """The server's Responses API works as well, streamed and not."""
    message = await setting.create("llama-responses")
    assert message.content[0].text.strip()
    async with setting.client.messages.stream(
        model="llama-responses", max_tokens=16, messages=[{"role": "user", "content": "Say hello."}]
    ) as events:
        message = await events.get_final_message()
    assert message.content
    assert message.usage.output_tokens > 0


async def five_streams(setting: Setting) -> None:
    """Five streams at once end whole."""

    async def one(number: int) -> str:
        async with setting.client.messages.stream(
            model="llama", max_tokens=40, messages=[{"role": "user", "content": f"Story number {number}."}]
        ) as events:
            return (await events.get_final_message()).content[0].text

    assert all(await asyncio.gather(*map(one, range(5))))


async def leaving_frees_the_slot(setting: Setting) -> None:
    """A client that leaves has its slot idle within a second."""
    host, port = setting.daemon.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = RawClient(reader, writer)
    body = {"model": "llama", "max_tokens": 4000, "stream": True}
    await client.send(post({**body, "messages": [{"role": "user", "content": "Tell a very long story."}]}))
    await reader.readuntil(b"content_block_delta")
    assert await setting.server.is_busy()
    writer.transport.abort()
    deadline = time.monotonic() + 1
    while await setting.server.is_busy():
        assert time.monotonic() < deadline, "the server still works for a client that has left"
        await asyncio.sleep(0.02)


async def claude_code(setting: Setting) -> None:
    """The real Claude Code gets a response; what a model of 135M parameters says does not matter."""
    try:
        binary, _ = installed_claude(ROOT / ".e2e", os.environ.get("CLAUDE_VERSION") or PINNED_VERSION)
    except (UnreachableRegistryError, InstallError) as exc:
        print(f"     (not run: {exc})")
        return
    home, directory = setting.folder / "claude", setting.folder / "work"
    home.mkdir()
    directory.mkdir()
    run = await run_claude(
        binary,
        "Say hello.",
        base_url=setting.daemon.base_url,
        model="llama",
        credentials={"ANTHROPIC_API_KEY": "made-up"},
        home=home,
        directory=directory,
        options=["--system-prompt", "You are brief.", "--max-turns", "2", "--tools", ""],
        environment={"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "64"},
        timeout_s=150,
    )
    assert run.stdout.strip().startswith("{"), (run.stdout[-500:], run.stderr[-500:])
    # A model that talks beyond the output limit is an error to Claude Code, and none of the proxy's.
    assert json.loads(run.stdout)["usage"]["output_tokens"] > 0, run.stdout[:1500]


async def killed_in_the_middle(setting: Setting) -> None:
    """A server that is killed in the middle of a stream ends it in one error event, never in an end of turn."""
    body = {"model": "llama", "max_tokens": 4000, "stream": True}
    request = {**body, "messages": [{"role": "user", "content": "Tell a very long story."}]}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{setting.daemon.base_url}/v1/messages", json=request) as response:
            received = b""
            async for chunk in response.content.iter_any():
                if b"content_block_delta" not in received and b"content_block_delta" in received + chunk:
                    await setting.server.kill()
                received += chunk
    assert received.count(b"event: error") == 1, received[-500:]
    assert b"message_stop" not in received


async def restart_is_waited_for(setting: Setting) -> None:
    """A call while the server loads its model is served soon after it has, without half a minute of 529."""
    await setting.server.start(waits=False)
    client = anthropic.AsyncAnthropic(base_url=setting.daemon.base_url, api_key="made-up", max_retries=100)
    hello: list[Any] = [{"role": "user", "content": "Say hello."}]
    call = asyncio.ensure_future(client.messages.create(model="llama", max_tokens=4, messages=hello))
    await setting.server.until_ready()
    message = await asyncio.wait_for(call, 15)
    assert message.content


#: In this order: the last two kill the server and start it again.
LLAMA_CHECKS = (
    whole_response,
    stream,
    typescript_sdk,
    usage_is_the_servers,
    repeated_prompt_is_read_from_the_cache,
    forced_tool,
    any_tool_streamed,
    overflow,
    images_are_refused_in_words,
    prefill,
    direct_route,
    five_streams,
    leaving_frees_the_slot,
    claude_code,
    killed_in_the_middle,
    restart_is_waited_for,
)


#: What vLLM can show; its context is too small for Claude Code, and it takes a minute to start.
VLLM_CHECKS = (
    whole_response,
    stream,
    typescript_sdk,
    usage_equals_that_of_the_direct_route,
    repeated_prompt_is_read_from_the_cache,
    forced_tool,
    any_tool_streamed,
    overflow,
    images_are_refused_in_words,
    prefill,
    direct_route,
    responses_api,
    five_streams,
    leaving_frees_the_slot,
    killed_in_the_middle,
)


def entries_for(server: Server, provider: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the entries for a server: over Chat Completions, over Responses, and direct."""
    return [
        {"model_id": "llama", "api_base": f"{server.base}/v1", "provider": provider, **fields},
        {
            "model_id": "llama-responses",
            "api_base": f"{server.base}/v1",
            "format": "openai-responses",
            **fields,
        },
        {"model_id": "llama-direct", "api_base": server.base, "direct": True, **fields},
    ]


async def run_all(
    names: list[str],
    checks: Sequence[Check],
    server: Server,
    entries: list[dict[str, Any]],
    folder: Path,
) -> int:
    daemon = Daemon(entries, folder / "daemon")
    setting = Setting(server, daemon, folder)
    failed = count = 0
    await server.start()
    try:
        await daemon.start()
        for check in checks:
            if names and check.__name__ not in names:
                continue
            count += 1
            started = time.monotonic()
            try:
                await check(setting)
            except Exception:
                failed += 1
                print(f"FAIL {check.__name__}")
                traceback.print_exc()
            else:
                print(
                    f"PASS {check.__name__:40} {time.monotonic() - started:5.1f} s  {check.__doc__}",
                    flush=True,
                )
        for complaint in await daemon.stop():
            failed += 1
            print(f"FAIL {complaint}")
    finally:
        await daemon.stop()
        await server.kill()
    print(f"{count - failed} passed, {failed} failed")
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    names = [each for each in arguments if each != "--vllm"]
    FOLDER.mkdir(exist_ok=True)
    try:
        program, model = install(FOLDER)
        if "--vllm" in arguments:
            VLLM_FOLDER.mkdir(exist_ok=True)
            program, model = install_vllm(VLLM_FOLDER, model)
    except NotAvailableError as exc:
        print(f"real: not run, since the server is not to be had here: {exc}")
        return 0
    with tempfile.TemporaryDirectory(prefix="proxyd-real-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        server: Server
        if "--vllm" in arguments:
            server = VllmServer(program, model, folder / "server.log", context=VLLM_CONTEXT)
            entries = entries_for(server, "vllm", model_name="smollm2")
            return asyncio.run(run_all(names, VLLM_CHECKS, server, entries, folder))
        server = LlamaServer(program, model, folder / "server.log", context=CONTEXT, slots=SLOTS)
        entries = entries_for(server, "llamacpp")
        return asyncio.run(run_all(names, LLAMA_CHECKS, server, entries, folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
