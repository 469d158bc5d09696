"""Hooks over real streams, in both modes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxyd.daemon.config_reloader import Reloader
from proxyd.daemon.server import Daemon
from proxyd.hooks import worker as worker_module
from proxyd.hooks.loader import MAX_FAILURES, HookSet, load_hooks
from tests.support.harness import load_entries, running_daemon, text_stream
from tests.support.hooked import anthropic_stream, hooked_proxy, text_of, write_hook
from tests.support.raw_sockets import Pause, RawClient, RawUpstream, until
from tests.support.raw_sockets import post as raw_post
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks, judge

BOTH = pytest.mark.parametrize("mode", ["translated", "direct"])


@BOTH
async def test_the_original_hooks_work_unchanged(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path,
        "shout",
        """
def request_hook(payload):
    payload["metadata"] = {"user_id": "hooked"}
    return payload

def response_hook(payload):
    delta = payload.get("delta", {})
    if "text" in delta:
        delta["text"] = delta["text"].upper()
    for block in payload.get("content", []):
        block["text"] = block["text"].upper()
    return payload
""",
    )
    async with hooked_proxy(tmp_path, mode) as proxy:
        assert text_of(await proxy.events()) == "HELLO WORLD"
        assert proxy.upstream.requests[-1]["metadata"] == {"user_id": "hooked"}
        assert (await proxy.message())["content"][-1]["text"] == "HELLO WORLD"


@BOTH
async def test_an_event_hook_may_return_one_several_or_none(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path,
        "double",
        """
from proxyd.hookapi import TextDelta

def stream_event_hook(event, ctx):
    if not isinstance(event, TextDelta):
        return event
    if event.text.startswith("world"):
        return None
    return [event, {"type": "content_block_delta", "index": event.index,
                    "delta": {"type": "text_delta", "text": ctx.mode}}]
""",
    )
    async with hooked_proxy(tmp_path, mode) as proxy:
        assert text_of(await proxy.events()) == f"Hello {mode}"


@BOTH
async def test_async_hooks_get_the_context_of_their_call(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path,
        "context",
        """
import asyncio

async def request_hook(payload, ctx):
    await asyncio.sleep(0)
    ctx.state["seen"] = ctx.direction
    payload["metadata"] = {"user_id": f"{ctx.route} {ctx.mode} {ctx.direction} {ctx.options['word']}"}
    return payload

async def stream_event_hook(event, ctx):
    await asyncio.sleep(0)
    if type(event).__name__ == "TextDelta":
        return type(event)(event.index, f"{ctx.state['seen']} {ctx.direction} {ctx.request_id[:4]} ")
    return event
""",
    )
    async with hooked_proxy(tmp_path, mode, options={"context": {"word": "w"}}) as proxy:
        assert text_of(await proxy.events()) == "request response req_ " * 2
        assert proxy.upstream.requests[-1]["metadata"]["user_id"] == f"m {mode} request w"


@BOTH
async def test_a_plain_hook_may_return_an_awaitable(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path,
        "wrapped",
        """
import asyncio

def through(function):
    return lambda *args: function(*args)

@through
async def stream_event_hook(event, ctx):
    await asyncio.sleep(0.001)
    if type(event).__name__ == "TextDelta":
        return type(event)(event.index, event.text.upper())
    return event
""",
    )
    async with hooked_proxy(tmp_path, mode) as proxy:
        assert text_of(await proxy.events()) == "HELLO WORLD"


@BOTH
async def test_files_run_in_the_order_of_their_names(tmp_path: Path, mode: str) -> None:
    for name in ("b", "a", "_c"):
        write_hook(
            tmp_path,
            name,
            f"def request_hook(p):\n p['user'] = p.get('user', '') + '{name}'\n return p\n",
        )
    async with hooked_proxy(tmp_path, mode) as proxy:
        await proxy.events()
        assert proxy.upstream.requests[-1]["user"] == "ab"


async def test_a_direct_stream_that_no_hook_changes_keeps_its_bytes(tmp_path: Path) -> None:
    write_hook(
        tmp_path, "look", "def response_hook(p):\n return p\ndef stream_event_hook(e, ctx):\n return e\n"
    )
    stream = anthropic_stream("a", "b", context_management={"applied_edits": []}) + b": a comment\n\n"
    async with hooked_proxy(tmp_path, "direct", stream=stream) as proxy:
        assert await proxy.raw(stream=True) == stream
        assert proxy.hooks.files[0].calls == 16


SHOUT = """
def response_hook(payload):
    delta = payload.get("delta", {})
    if "text" in delta:
        delta["text"] = delta["text"].upper()
    for block in payload.get("content", []):
        block["text"] = block["text"].upper()
    return payload
"""


async def test_a_response_compressed_without_request_reaches_the_hooks(tmp_path: Path) -> None:
    write_hook(tmp_path, "shout", SHOUT)
    async with hooked_proxy(tmp_path, "direct", encoding="gzip") as proxy:
        assert text_of(await proxy.events()) == "HELLO WORLD"
        assert (await proxy.message())["content"][0]["text"] == "HELLO WORLD"


async def test_a_response_with_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    write_hook(tmp_path, "shout", SHOUT)
    async with hooked_proxy(tmp_path, "direct", encoding="br") as proxy:
        with pytest.raises(AssertionError, match=r"compressed its response \(br\).*hooks: \[\]"):
            await proxy.raw(stream=True)


async def test_a_direct_request_that_no_hook_changes_keeps_its_bytes(tmp_path: Path) -> None:
    write_hook(tmp_path, "look", "def request_hook(p):\n return p\n")
    async with hooked_proxy(tmp_path, "direct") as proxy:
        await proxy.raw(stream=True, temperature=1.0)
        assert b'"temperature": 1.0' in proxy.upstream.bodies[-1]


async def test_token_counting_sees_the_request_that_would_be_sent(tmp_path: Path) -> None:
    write_hook(
        tmp_path,
        "drop",
        "def request_hook(p):\n p.pop('tools', None)\n return p\ndef response_hook(p):\n raise ValueError\n",
    )
    async with hooked_proxy(tmp_path, "direct") as proxy:
        data = await proxy.raw("/v1/messages/count_tokens", tools=[{"name": "t", "input_schema": {}}])
        assert json.loads(data) == {"input_tokens": 7}
        assert "tools" not in proxy.upstream.requests[-1]
        assert proxy.hooks.files[0].failures == 0


@pytest.mark.statement("D table")
@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "def request_hook(p):\n p.clear()\n raise ValueError('secret prompt')\n"
        "def response_hook(p):\n p.clear()\n raise SystemExit\n"
        "def stream_event_hook(e, ctx):\n raise KeyError\n",
        "def request_hook(p):\n return 7\ndef response_hook(p):\n return []\n"
        "def stream_event_hook(e, ctx):\n return 'x'\n",
        "def request_hook(p):\n return {'a': float('nan')}\ndef response_hook(p):\n return {'a': {1, 2}}\n"
        "def stream_event_hook(e, ctx):\n return {'type': float('inf')}\n",
    ],
    ids=["raises", "returns something else", "returns what JSON cannot hold"],
)
async def test_a_failing_hook_changes_nothing_and_is_switched_off(
    tmp_path: Path, mode: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hook(tmp_path, "bad", text)
    write_hook(tmp_path, "good", "def request_hook(p):\n p['user'] = 'good'\n return p\n")
    async with hooked_proxy(tmp_path, mode) as proxy:
        for _ in range(2):
            assert text_of(await proxy.events()) == "Hello world"
            assert proxy.upstream.requests[-1]["user"] == "good"
            assert proxy.upstream.requests[-1]["messages"]
        bad, good = proxy.hooks.files
        assert bad.is_off
        assert (
            MAX_FAILURES <= bad.failures <= 3 * MAX_FAILURES
        )  # consecutive ones of one of its three functions
        failures = bad.failures
        assert bad.describe()["last_failure"]
        assert not good.is_off
        assert (await proxy.message())["content"][-1]["text"] == "Hello world"
        assert bad.failures == failures
    assert "secret prompt" not in capsys.readouterr().err


@BOTH
@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    "exception", ["asyncio.CancelledError", "KeyboardInterrupt", "GeneratorExit", "SystemExit"]
)
async def test_a_hook_ends_neither_the_call_nor_the_daemon(
    tmp_path: Path, mode: str, kind: str, exception: str
) -> None:
    write_hook(tmp_path, "end", f"import asyncio\n{kind} stream_event_hook(e, ctx):\n raise {exception}\n")
    async with hooked_proxy(tmp_path, mode) as proxy:
        for _ in range(MAX_FAILURES):
            assert text_of(await proxy.events()) == "Hello world"
        assert proxy.hooks.files[0].is_off
        assert exception.rpartition(".")[2] in str(proxy.hooks.files[0].last_failure)


@BOTH
async def test_a_blocking_hook_delays_no_other_stream(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path,
        "block",
        f"import time, pathlib\nreleased = pathlib.Path({str(tmp_path / 'released')!r})\n"
        "def response_hook(p):\n while not released.exists():\n  time.sleep(0.01)\n return p\n"
        "def request_hook(p):\n p['user'] = 'x'\n return p\n",
    )
    async with hooked_proxy(tmp_path, mode, timeout_s=0.05) as proxy:
        for _ in range(MAX_FAILURES):
            assert text_of(await proxy.events()) == "Hello world"
        assert proxy.hooks.files[0].is_off
        assert "hook_timeout_s" in str(proxy.hooks.files[0].last_failure)
        (tmp_path / "released").touch()
        await asyncio.sleep(0.3)  # its threads end here, not within another test


@BOTH
async def test_hooks_of_any_pace_keep_every_stream_whole_and_in_order(tmp_path: Path, mode: str) -> None:
    """Some hooks finish while a chunk is read and some later; which ones changes from chunk to chunk."""
    hook = (
        "import random, time\nchance = random.Random({seed})\n"
        "def stream_event_hook(event, ctx):\n time.sleep(chance.choice((0, 0, 0, 0.0004, 0.0006, 0.002)))\n"
        " return event\n"
    )
    write_hook(tmp_path, "a", hook.format(seed=1))
    write_hook(tmp_path, "b", hook.format(seed=2))
    words = [f"{number} " for number in range(150)]
    whole = anthropic_stream(*words) if mode == "direct" else text_stream(*words)
    events = [each + b"\n\n" for each in whole.split(b"\n\n")[:-1]]
    pauses = random.Random(3)
    upstream = RawUpstream(
        lambda _: [
            CHUNKED,
            *(
                step
                for event in events
                for step in (as_chunks(event), Pause(pauses.choice((0, 0.0003, 0.001, 0.003))))
            ),
            b"0\r\n\r\n",
        ]
    )
    async with upstream.running():
        base = upstream.base if mode == "direct" else f"{upstream.base}/v1"
        config = load_entries([{"model_id": "m", "api_base": base, "direct": mode == "direct"}])
        async with running_daemon(replace(config, hooks=load_hooks(tmp_path))) as base:

            async def ask() -> str:
                async with RawClient.to(base) as client:
                    await client.send(raw_post({**HELLO}))
                    events = (await client.response()).events()
                    assert judge(events) == "message_stop"
                    return text_of([data for _, data in events])

            assert await asyncio.gather(*(ask() for _ in range(8))) == ["".join(words)] * 8


async def test_an_async_hook_is_cancelled_after_its_timeout(tmp_path: Path) -> None:
    write_hook(
        tmp_path,
        "wait",
        "import asyncio\nasync def request_hook(p):\n await asyncio.Event().wait()\n",
    )
    async with hooked_proxy(tmp_path, "translated", timeout_s=0.05) as proxy:
        assert text_of(await proxy.events()) == "Hello world"
        assert proxy.hooks.files[0].failures == 1


async def test_slow_calls_are_counted(tmp_path: Path) -> None:
    write_hook(tmp_path, "slow", "import time\ndef request_hook(p):\n time.sleep(0.02)\n return p\n")
    async with hooked_proxy(tmp_path, "translated") as proxy:
        await proxy.events()
        assert proxy.hooks.files[0].slow_calls == 1


@BOTH
async def test_a_hook_that_returns_none_changes_nothing(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path, "none", "def request_hook(p):\n p['messages'] = []\ndef response_hook(p):\n p.clear()\n"
    )
    async with hooked_proxy(tmp_path, mode) as proxy:
        assert text_of(await proxy.events()) == "Hello world"
        assert proxy.upstream.requests[-1]["messages"]
        assert proxy.hooks.files[0].failures == 0


@BOTH
async def test_an_entry_selects_its_hooks(tmp_path: Path, mode: str) -> None:
    for name in ("a", "b"):
        write_hook(tmp_path, name, f"def request_hook(p):\n p['user'] = '{name}'\n return p\n")
    for names, expected in ((["a"], "a"), ([], None)):
        async with hooked_proxy(tmp_path, mode, entry={"hooks": names}) as proxy:
            await proxy.events()
            assert proxy.upstream.requests[-1].get("user") == expected


async def test_new_calls_after_a_reload_use_the_new_hooks(tmp_path: Path) -> None:
    path = write_hook(tmp_path, "h", "def request_hook(p):\n p['user'] = 'old'\n return p\n")
    async with hooked_proxy(tmp_path, "translated") as proxy:
        await proxy.events()
        path.write_text("def request_hook(p):\n p['user'] = 'new'\n return p\n")
        relay: Any = proxy.daemon._relay
        relay.swap(relay.settings, relay.table, load_hooks(tmp_path))
        await proxy.events()
        assert [request["user"] for request in proxy.upstream.requests] == ["old", "new"]


@pytest.mark.statement("A4")
async def test_streams_open_during_reloads_leak_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They continue with the old hooks, whose threads end soon after the last of them."""
    monkeypatch.setattr(worker_module, "_IDLE_S", 0.05)
    write_hook(tmp_path, "h", "def stream_event_hook(e, ctx):\n return e\n")
    events = list(TRANSLATED.values())
    go_on = asyncio.Event()
    upstream = RawUpstream(
        lambda _: [CHUNKED, as_chunks(*events[:4]), go_on, as_chunks(*events[4:]), b"0\r\n\r\n"]
    )
    async with upstream.running():
        config = load_entries([{"model_id": "m", "api_base": f"{upstream.base}/v1"}])
        daemon = Daemon(replace(config, hooks=load_hooks(tmp_path)))
        await daemon.start()
        base = f"http://127.0.0.1:{daemon.addresses[0][1]}"
        relay: Any = daemon._relay
        async with AsyncExitStack() as stack:
            clients = []
            for number in range(5):
                clients.append(await stack.enter_async_context(RawClient.to(base)))
                await clients[-1].send(raw_post({**HELLO}))
                await until(
                    lambda number=number: len(relay.records) == number + 1 and relay.records[-1].events > 0
                )
                daemon._apply(replace(config, hooks=load_hooks(tmp_path)))
            go_on.set()
            for client in clients:
                assert judge((await client.response()).events()) == "message_stop"
        await until(lambda: not _hook_threads(), 30)
        await daemon.drain()
        await daemon.close()


def _hook_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "hook h"]


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "def response_hook(p):\n p['type'] = 'ping\\ndata: {}\\n\\nevent: message_stop'\n return p\n",
        "def stream_event_hook(e, ctx):\n return {'type': 'x\\r\\ndata: {}\\r\\n\\r\\n'}\n",
        "def stream_event_hook(e, ctx):\n return [e, {'type': 7}]\n",
        "from proxyd.hookapi import Unknown\n"
        "def stream_event_hook(e, ctx):\n return Unknown({'type': 'message_stop\\n\\n'})\n",
    ],
    ids=["response_hook", "a dict", "no text", "an object"],
)
async def test_an_event_type_that_is_not_a_plain_word_is_refused(
    tmp_path: Path, mode: str, text: str
) -> None:
    write_hook(tmp_path, "odd", text)
    async with hooked_proxy(tmp_path, mode) as proxy:
        data = (await proxy.raw(stream=True)).decode()
        (file,) = proxy.hooks.files
        assert file.failures >= MAX_FAILURES
        assert "type is not a plain word" in (file.last_failure or "")
    names = [line[7:] for line in data.splitlines() if line.startswith("event: ")]
    assert names.count("message_stop") == 1
    assert text_of([json.loads(line[6:]) for line in data.splitlines() if line.startswith("data: ")]) == (
        "Hello world"
    )


async def test_no_endpoint_fails_because_of_a_hook(tmp_path: Path) -> None:
    """Neither one that does not load nor one whose name is not UTF-8."""
    write_hook(tmp_path, "broken", "def request_hook(p:\n")
    write_hook(tmp_path, "line\nbreak", "def request_hook(p):\n return p\n")
    (tmp_path / os.fsdecode(b"odd\xff.py")).write_text("def request_hook(p):\n return p\n")
    write_hook(tmp_path, "failing", "def request_hook(p):\n raise ValueError('\\udcff')\n")
    async with hooked_proxy(tmp_path, "direct") as proxy, aiohttp.ClientSession() as session:
        assert text_of(await proxy.events()) == "Hello world"
        for path in ("/metrics", "/test-connection", "/readyz?verbose", "/v1/stats", "/dashboard", "/"):
            async with session.get(proxy.base + path) as response:
                said = await response.text()
                assert response.status == 200, (path, said)
            if path == "/metrics":
                assert 'proxyd_hook_errors_total{hook="broken"} 0.0' in said
                assert 'proxyd_hook_errors_total{hook="failing"} 1.0' in said
        assert sorted(proxy.hooks.faults) == ["broken", "line\nbreak", "odd\\udcff"]


async def test_a_reload_survives_whatever_a_hook_raises(tmp_path: Path) -> None:
    """The configuration is read in a thread, whose exceptions reach the event loop."""
    write_hook(tmp_path / "hooks", "h", "raise KeyboardInterrupt\n")
    applied: list[HookSet] = []
    reloader = Reloader(lambda: load_hooks(tmp_path / "hooks"), applied.append, pytest.fail)
    reloader.request()
    await until(lambda: bool(applied))
    await reloader.close()
    assert "KeyboardInterrupt" in applied[0].faults["h"]
