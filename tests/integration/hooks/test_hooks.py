"""Hooks as their authors and users meet them: through real streams, in both modes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxyd.config.routes import ModelRoute
from proxyd.daemon.config_reloader import Reloader
from proxyd.daemon.server import Daemon
from proxyd.errors import ConfigError
from proxyd.hooks import worker as hookworker
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
async def test_a_plain_hook_may_return_what_has_to_be_awaited(tmp_path: Path, mode: str) -> None:
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


async def test_an_answer_that_was_packed_unasked_does_not_escape_its_hooks(tmp_path: Path) -> None:
    write_hook(tmp_path, "shout", SHOUT)
    async with hooked_proxy(tmp_path, "direct", packing="gzip") as proxy:
        assert text_of(await proxy.events()) == "HELLO WORLD"
        assert (await proxy.message())["content"][0]["text"] == "HELLO WORLD"


async def test_an_answer_in_a_packing_that_cannot_be_undone_is_refused(tmp_path: Path) -> None:
    write_hook(tmp_path, "shout", SHOUT)
    async with hooked_proxy(tmp_path, "direct", packing="br") as proxy:
        with pytest.raises(AssertionError, match=r"compressed its response \(br\).*hooks: \[\]"):
            await proxy.raw(stream=True)


async def test_a_direct_request_that_no_hook_changes_keeps_its_bytes(tmp_path: Path) -> None:
    write_hook(tmp_path, "look", "def request_hook(p):\n return p\n")
    async with hooked_proxy(tmp_path, "direct") as proxy:
        await proxy.raw(stream=True, temperature=1.0)
        assert b'"temperature": 1.0' in proxy.upstream.bodies[-1]


async def test_counting_tokens_sees_the_request_that_would_be_sent(tmp_path: Path) -> None:
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
        assert MAX_FAILURES <= bad.failures <= 3 * MAX_FAILURES  # in a row, of one of its three functions
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
async def test_a_blocking_hook_holds_up_nothing(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path,
        "block",
        "import threading\nforever = threading.Event()\n"
        "def response_hook(p):\n forever.wait(20)\n return p\n"
        "def request_hook(p):\n p['user'] = 'x'\n return p\n",
    )
    async with hooked_proxy(tmp_path, mode, timeout_s=0.05) as proxy:
        for _ in range(MAX_FAILURES):
            assert text_of(await proxy.events()) == "Hello world"
        assert proxy.hooks.files[0].is_off
        assert "hook_timeout_s" in str(proxy.hooks.files[0].last_failure)


@BOTH
async def test_hooks_of_any_pace_keep_every_stream_whole_and_in_order(tmp_path: Path, mode: str) -> None:
    """Some are waited for where a piece is read, and some are not; which, changes from piece to piece."""
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
                    events = (await client.answer()).events()
                    assert judge(events) == "message_stop"
                    return text_of([data for _, data in events])

            assert await asyncio.gather(*(ask() for _ in range(8))) == ["".join(words)] * 8


async def test_an_async_hook_that_never_ends_is_cancelled(tmp_path: Path) -> None:
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
async def test_nothing_returned_means_unchanged(tmp_path: Path, mode: str) -> None:
    write_hook(
        tmp_path, "none", "def request_hook(p):\n p['messages'] = []\ndef response_hook(p):\n p.clear()\n"
    )
    async with hooked_proxy(tmp_path, mode) as proxy:
        assert text_of(await proxy.events()) == "Hello world"
        assert proxy.upstream.requests[-1]["messages"]
        assert proxy.hooks.files[0].failures == 0


@BOTH
async def test_an_entry_names_the_hooks_that_run_for_it(tmp_path: Path, mode: str) -> None:
    for name in ("a", "b"):
        write_hook(tmp_path, name, f"def request_hook(p):\n p['user'] = '{name}'\n return p\n")
    for names, expected in ((["a"], "a"), ([], None)):
        async with hooked_proxy(tmp_path, mode, entry={"hooks": names}) as proxy:
            await proxy.events()
            assert proxy.upstream.requests[-1].get("user") == expected


def test_an_entry_that_names_no_hook_there_is(tmp_path: Path) -> None:
    write_hook(tmp_path, "filter_tools", "def request_hook(p):\n return p\n")
    hooks = load_hooks(tmp_path)
    route = ModelRoute("m", "http://x", "m", hooks=("filter_tool",))
    with pytest.raises(ConfigError, match=r"there is no hook 'filter_tool'; .*filter_tools"):
        hooks.check_names([route])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def request_hook(p):\n return (\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError.*line 1"),
        ("x = 1\n", "defines none of"),
        ("def request_hook():\n pass\n", r"must take \(payload\) or \(payload, ctx\)"),
        ("request_hook = 3\n", "no function"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt.*line 1"),
        ("raise GeneratorExit\n", "GeneratorExit"),
        ("import asyncio\nraise asyncio.CancelledError\n", "CancelledError.*line 2"),
        ("class Own(BaseException): pass\nraise Own('x')\n", "Own: x.*line 2"),
        (
            "class Mute(Exception):\n def __str__(self):\n  raise KeyboardInterrupt\nraise Mute\n",
            "Mute: an exception without words",
        ),
        ("def __getattr__(name):\n raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        (
            "class Odd:\n def __call__(self, p):\n  pass\n @property\n def __signature__(self):\n"
            "  raise KeyboardInterrupt\nrequest_hook = Odd()\n",
            "KeyboardInterrupt",
        ),
    ],
)
def test_a_file_that_does_not_load_is_named_and_harms_no_other(tmp_path: Path, text: str, why: str) -> None:
    write_hook(tmp_path, "bad", text)
    write_hook(tmp_path, "good", "def request_hook(p):\n return p\n")
    hooks = load_hooks(tmp_path)
    assert [file.name for file in hooks.files] == ["good"]
    described = hooks.describe()[-1]
    assert described["name"] == "bad"
    assert re.search(why, described["error"]), described["error"]


@pytest.mark.statement("E11")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_everybody_may_write_is_not_run(tmp_path: Path, which: str) -> None:
    folder = tmp_path / "hooks"
    path = write_hook(folder, "h", "raise SystemExit('it ran')\n")
    target = folder if which == "folder" else path
    target.chmod(0o777)
    hooks = load_hooks(folder)
    assert hooks.files == ()
    assert f"everybody may write {target}; run 'chmod go-w {target}'" in hooks.faults["h"]


@pytest.mark.statement("E11")
@pytest.mark.parametrize("case", ["file", "folder", "folder_of_the_file", "no_file"])
def test_a_link_is_as_safe_as_what_it_leads_to(tmp_path: Path, case: str) -> None:
    """What everybody may write, or put another in the place of, is not run by way of a link either."""
    elsewhere = tmp_path / "elsewhere"
    target = write_hook(elsewhere, "h", "raise SystemExit('it ran')\n")
    folder = tmp_path / "hooks"
    if case == "folder":
        folder.symlink_to(elsewhere)
        elsewhere.chmod(0o777)
    else:
        folder.mkdir(mode=0o755)
        (folder / "h.py").symlink_to(target if case != "no_file" else elsewhere / "gone.py")
        (target if case == "file" else elsewhere).chmod(0o777)
    if case == "no_file":
        assert load_hooks(folder).files == ()
        return
    hooks = load_hooks(folder)
    assert hooks.files == ()
    assert re.search(r"everybody may write .*chmod go-w", hooks.faults["h"])


@pytest.mark.statement("E11")
def test_a_link_to_what_is_ones_own_runs(tmp_path: Path) -> None:
    target = write_hook(tmp_path / "dotfiles", "h", "def request_hook(p):\n return p\n")
    folder = tmp_path / "hooks"
    folder.mkdir(mode=0o755)
    (folder / "h.py").symlink_to(target)
    assert [file.name for file in load_hooks(folder).files] == ["h"]


@pytest.mark.statement("E11")
def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    """Not from below the folder, beside it, or the working directory; nor what is switched off."""
    folder = tmp_path / "hooks"
    ran = "raise SystemExit('it ran')\n"
    for place, name in (
        (tmp_path, "beside"),
        (folder, "_off"),
        (folder / "below", "below"),
        (tmp_path / "x", "x"),
    ):
        place.mkdir(mode=0o755, exist_ok=True)
        write_hook(place, name, ran)
    (folder / "notes.txt").write_text(ran)
    (folder / "a_folder.py").mkdir()
    hooks = load_hooks(folder)
    assert (hooks.files, hooks.faults) == ((), {})


def test_no_folder_is_no_hooks(tmp_path: Path) -> None:
    hooks = load_hooks(tmp_path / "hooks")
    assert hooks.for_call(ModelRoute("m", "http://x", "m"), "req_1", "direct") is None


async def test_a_reload_takes_new_calls_to_new_hooks(tmp_path: Path) -> None:
    path = write_hook(tmp_path, "h", "def request_hook(p):\n p['user'] = 'old'\n return p\n")
    async with hooked_proxy(tmp_path, "translated") as proxy:
        await proxy.events()
        path.write_text("def request_hook(p):\n p['user'] = 'new'\n return p\n")
        relay: Any = proxy.daemon._relay
        relay.swap(relay.settings, relay.table, load_hooks(tmp_path))
        await proxy.events()
        assert [request["user"] for request in proxy.upstream.requests] == ["old", "new"]


@pytest.mark.statement("A4")
async def test_streams_that_are_open_at_reloads_leave_no_thread_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go on with the hooks of before, which end soon after the last of them."""
    monkeypatch.setattr(hookworker, "_IDLE_S", 0.05)
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
                daemon._take_over(replace(config, hooks=load_hooks(tmp_path)))
            go_on.set()
            for client in clients:
                assert judge((await client.answer()).events()) == "message_stop"
        await until(lambda: not _hook_threads(), 5)
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
async def test_an_event_whose_type_is_no_plain_word_is_refused(tmp_path: Path, mode: str, text: str) -> None:
    write_hook(tmp_path, "odd", text)
    async with hooked_proxy(tmp_path, mode) as proxy:
        data = (await proxy.raw(stream=True)).decode()
        (file,) = proxy.hooks.files
        assert file.failures >= MAX_FAILURES
        assert "type is no plain word" in (file.last_failure or "")
    names = [line[7:] for line in data.splitlines() if line.startswith("event: ")]
    assert names.count("message_stop") == 1
    assert text_of([json.loads(line[6:]) for line in data.splitlines() if line.startswith("data: ")]) == (
        "Hello world"
    )


async def test_no_endpoint_fails_because_of_a_hook(tmp_path: Path) -> None:
    """Not one that does not load, nor one with a name that is no text."""
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


async def test_a_reload_goes_on_whatever_a_hook_raises(tmp_path: Path) -> None:
    """The configuration is read in a thread, whose exceptions come to the daemon's own."""
    write_hook(tmp_path / "hooks", "h", "raise KeyboardInterrupt\n")
    applied: list[HookSet] = []
    reloader = Reloader(lambda: load_hooks(tmp_path / "hooks"), applied.append, pytest.fail)
    reloader.request()
    await until(lambda: bool(applied))
    await reloader.close()
    assert "KeyboardInterrupt" in applied[0].faults["h"]
