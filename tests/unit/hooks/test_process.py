"""Hooks in a separate process: the same API for their authors, and no effect on other calls."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from proxyd.daemon.configuration import load_configuration
from proxyd.errors import ConfigError
from proxyd.hooks.loader import MAX_FAILURES, load_hooks
from tests.support.hooked import anthropic_stream, hooked_proxy, text_of, write_hook
from tests.support.raw_sockets import until

BOTH = pytest.mark.parametrize("mode", ["translated", "direct"])
#: As a regular expression that never ends does; this one needs no processor time.
BLOCKS = "import ctypes\ndef block():\n ctypes.PyDLL(None).sleep(600)\n"


def pid_of(hooks: Any) -> int:
    """Return the id of the process that runs the hooks now."""
    pid: int = hooks._process._process.pid
    return pid


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@BOTH
async def test_all_hooks_run_in_the_process_with_their_context(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path,
        "all",
        """
import os
from proxyd.hookapi import TextDelta

def request_hook(payload, ctx):
    ctx.state["seen"] = object()
    payload["metadata"] = {"user_id": f"{os.getpid()} {ctx.route} {ctx.mode} {ctx.direction} {ctx.options['word']}"}
    return payload

def response_hook(payload, ctx):
    for block in payload.get("content", []):
        block["text"] = block["text"].upper()
    return payload

async def stream_event_hook(event, ctx):
    assert ctx.direction == "response"
    if isinstance(event, TextDelta):
        ctx.state["count"] = ctx.state.get("count", 0) + 1
        if event.text.startswith("world"):
            return None
        return [event, {"type": "content_block_delta", "index": event.index,
                        "delta": {"type": "text_delta", "text": f"{ctx.state['count']} {'seen' in ctx.state}"}}]
    return event
""",
    )
    async with hooked_proxy(tmp_path, mode, options={"all": {"word": "w"}}, isolation="process") as proxy:
        for _ in range(2):  # each call has its own state
            assert text_of(await proxy.events()) == "Hello 1 True"
        pid, rest = proxy.upstream.requests[-1]["metadata"]["user_id"].split(" ", 1)
        assert int(pid) == pid_of(proxy.hooks) != os.getpid()
        assert rest == f"m {mode} request w"
        assert (await proxy.message())["content"][-1]["text"] == "HELLO WORLD"
        assert proxy.hooks.files[0].failures == 0
    await until(lambda: not is_there(int(pid)), 30)


async def test_a_direct_stream_that_no_hook_changes_keeps_its_bytes(tmp_path: Path) -> None:
    write_hook(
        tmp_path, "look", "def response_hook(p):\n return p\ndef stream_event_hook(e, ctx):\n return e\n"
    )
    stream = anthropic_stream("a", "b", context_management={"applied_edits": []}) + b": a comment\n\n"
    async with hooked_proxy(tmp_path, "direct", stream=stream, isolation="process") as proxy:
        assert await proxy.raw(stream=True) == stream
        assert proxy.hooks.files[0].calls == 16


@pytest.mark.statement("D table")
@BOTH
@pytest.mark.parametrize("where", ["request_hook(p)", "response_hook(p)", "stream_event_hook(p, ctx)"])
async def test_a_hook_that_blocks_in_c_code_delays_no_other_stream(
    tmp_path: Path, mode: str, where: str
) -> None:
    """C code that never ends keeps the interpreter's lock; other calls continue."""
    write_hook(tmp_path, "bad", f"{BLOCKS}def {where}:\n block()\n return p\n")
    write_hook(tmp_path, "good", "def request_hook(p):\n p['user'] = 'good'\n return p\n")
    async with hooked_proxy(tmp_path, mode, timeout_s=2, isolation="process") as proxy:
        first = pid_of(proxy.hooks)
        blocked = asyncio.ensure_future(proxy.events())
        async with aiohttp.ClientSession() as session:
            answered = 0
            while not blocked.done():  # it blocked all the time
                async with session.get(f"{proxy.base}/healthz") as response:
                    assert response.status == 200
                answered += 1
                await asyncio.sleep(0.05)
        assert text_of(await blocked) == "Hello world"
        assert answered > 3
        bad, good = proxy.hooks.files
        assert "took longer than 2 s; its process was ended" in (bad.last_failure or "")
        assert good.failures == 0
        assert proxy.upstream.requests[-1]["user"] == "good"
        assert not is_there(first)


@pytest.mark.parametrize(
    "ends",
    [
        "import os; os._exit(3)",
        "import os; os.kill(os.getpid(), 9)",
        "import os; [os.close(n) for n in range(3, 50) if _is_open(n)]",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "import asyncio; raise asyncio.CancelledError",
    ],
)
async def test_a_hook_that_ends_its_process_fails_only_its_call(tmp_path: Path, ends: str) -> None:
    is_open = "def _is_open(n):\n import os\n try:\n  os.fstat(n)\n  return True\n except OSError:\n  return False\n"
    write_hook(tmp_path, "bad", f"{is_open}def request_hook(p):\n {ends}\n return p\n")
    write_hook(
        tmp_path, "good", "def response_hook(p):\n return p\ndef stream_event_hook(e, ctx):\n return e\n"
    )
    async with hooked_proxy(tmp_path, "direct", isolation="process") as proxy:
        for _ in range(MAX_FAILURES + 1):
            assert text_of(await proxy.events()) == "Hello world"
        bad, good = proxy.hooks.files
        assert bad.is_off
        assert bad.failures == MAX_FAILURES
        assert good.failures == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import nothing_of_that_name\n", "ModuleNotFoundError.*line 1"),
        ("x = 1\n", "defines none of"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("import os\nos._exit(4)\n", r"it ended its process \(4\) while it was loaded"),
        (f"{BLOCKS}block()\n", "it took longer than 10 s; its process was ended while it was loaded"),
    ],
)
def test_a_file_that_does_not_load_is_reported_and_the_others_run(
    tmp_path: Path, text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hook(tmp_path, "a_good", "def request_hook(p):\n return p\n")
    write_hook(tmp_path, "bad", text)
    write_hook(tmp_path, "c_good", "def request_hook(p):\n return p\n")
    if "block()\n" in text:
        monkeypatch.setattr("proxyd.hooks.process._START_S", 10.0)
    hooks = load_hooks(tmp_path, timeout_s=1, isolation="process")
    try:
        assert [file.name for file in hooks.files] == ["a_good", "c_good"]
        assert re.search(why, hooks.faults["bad"]), hooks.faults
    finally:
        hooks.close()


async def test_results_of_hooks_are_validated_in_the_process_too(tmp_path: Path) -> None:
    write_hook(
        tmp_path,
        "odd",
        "def request_hook(p):\n return 7\n"
        "def response_hook(p):\n return {'a': float('nan')}\n"
        "def stream_event_hook(e, ctx):\n return {'type': 'x\\n\\nevent: message_stop'}\n",
    )
    async with hooked_proxy(tmp_path, "direct", isolation="process") as proxy:
        assert (await proxy.raw(stream=True)) == anthropic_stream("Hello ", "world")
        (file,) = proxy.hooks.files
        assert file.failures > MAX_FAILURES
        assert file.last_failure


async def test_a_reload_leaves_no_process_behind(tmp_path: Path) -> None:
    write_hook(tmp_path, "h", "def stream_event_hook(e, ctx):\n return e\n")
    async with hooked_proxy(tmp_path, "translated", isolation="process") as proxy:
        assert text_of(await proxy.events()) == "Hello world"
        before = pid_of(proxy.hooks)
        relay: Any = proxy.daemon._relay
        new = load_hooks(tmp_path, isolation="process")
        relay.swap(relay.settings, relay.table, new)
        assert text_of(await proxy.events()) == "Hello world"
        assert new.files[0].calls > 0
        await until(lambda: not is_there(before), 30)
        last = pid_of(new)
    await until(lambda: not is_there(last), 30)


async def test_a_killed_process_is_restarted(tmp_path: Path) -> None:
    write_hook(tmp_path, "h", "def request_hook(p):\n p['user'] = 'hooked'\n return p\n")
    async with hooked_proxy(tmp_path, "translated", isolation="process") as proxy:
        os.kill(pid_of(proxy.hooks), signal.SIGKILL)
        before = pid_of(proxy.hooks)
        deadline = time.monotonic() + 10
        while proxy.hooks._process._process.is_alive():  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert text_of(await proxy.events()) == "Hello world"
        assert proxy.upstream.requests[-1]["user"] == "hooked"
        assert pid_of(proxy.hooks) != before
        assert proxy.hooks.files[0].failures == 0


def test_the_setting_selects_thread_or_process(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir(mode=0o755)
    write_hook(tmp_path / "hooks", "h", "def request_hook(p):\n return p\n")
    path = tmp_path / "models.yaml"
    text = "models:\n- model_id: m\n  api_base: http://127.0.0.1:1/v1\nsettings:\n  hooks: {isolation: %s}\n"
    for word, is_apart in (("process", True), ("thread", False)):
        path.write_text(text % word)
        loaded = load_configuration({}, str(path), {})
        assert (loaded.hooks._process is not None) == is_apart
        loaded.hooks.close()
    path.write_text(text % "container")
    with pytest.raises(ConfigError, match="hooks: isolation: expected one of thread, process"):
        load_configuration({}, str(path), {})


async def test_a_process_that_does_not_read_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process does not read a body that is larger than the buffer of the pipe."""
    monkeypatch.setattr("proxyd.hooks.process._WATCHDOG_S", 0.05)
    write_hook(tmp_path, "h", "def request_hook(p):\n p['user'] = 'hooked'\n return p\n")
    async with hooked_proxy(tmp_path, "translated", timeout_s=1, isolation="process") as proxy:
        assert text_of(await proxy.events()) == "Hello world"
        stopped = pid_of(proxy.hooks)
        os.kill(stopped, signal.SIGSTOP)
        large = [{"role": "user", "content": "x" * 1_000_000}]
        assert text_of(await proxy.events(messages=large)) == "Hello world"
        assert "user" not in proxy.upstream.requests[-1]
        assert "took longer than 1 s" in (proxy.hooks.files[0].last_failure or "")
        assert not is_there(stopped)
        assert text_of(await proxy.events()) == "Hello world"
        assert proxy.upstream.requests[-1]["user"] == "hooked"


async def test_a_hook_that_hangs_costs_the_calls_behind_it_one_timeout(tmp_path: Path) -> None:
    """They run in the next process, each once, and no other process is ended."""
    write_hook(
        tmp_path,
        "bad",
        "import time\ndef request_hook(p):\n if 77 in p.values():\n  time.sleep(60)\n p['user'] = 'seen'\n return p\n",
    )
    with capture_logs() as lines:
        async with hooked_proxy(tmp_path, "translated", timeout_s=1, isolation="process") as proxy:
            calls = [proxy.events(max_tokens=number) for number in (77, *range(1, 9))]
            for events in await asyncio.gather(*calls):
                assert text_of(events) == "Hello world"
            assert [each.get("user") for each in proxy.upstream.requests].count("seen") == 8
            assert proxy.hooks.files[0].calls == 9
    (failure,) = [line["why"] for line in lines if line["event"] == "hook.failed"]
    assert failure == "it took longer than 1 s; its process was ended"
