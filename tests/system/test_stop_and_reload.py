"""Stops and reloads of the real process while many streams are open (docs/spec/operations.md#a2 to #a4, #h2)."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.daemon import server
from proxyd.daemon.server import Daemon
from proxyd.proxy.client_response import ResponseWriter
from tests.support.daemon_process import Process, process, write_models
from tests.support.faults import MODES
from tests.support.harness import load_entries
from tests.support.raw_sockets import (
    Fault,
    Pause,
    RawClient,
    RawResponse,
    RawUpstream,
    Step,
    no_leaks,
    post,
    until,
)
from tests.support.streams import CHUNKED, HELLO, as_chunks, judge

#: Streams at a stop, in ten phases of both modes.
STREAMS = 20
#: docs/spec/operations.md#h2.
RELOADS, RELOADED_STREAMS = 100, 50


def entries(upstream: RawUpstream) -> list[dict[str, Any]]:
    return [
        {"model_id": mode, "api_base": f"{upstream.base}/v1", "direct": mode == "direct"} for mode in MODES
    ]


def request(mode: str, mark: str = "", **more: Any) -> bytes:
    messages = [{"role": "user", "content": f"mark={mark}="}]
    return post({**HELLO, "model": mode, "messages": messages, **more})


def mark_of(body: bytes) -> str:
    return body.partition(b"mark=")[2].partition(b"=")[0].decode()


def text_of(response: RawResponse) -> str:
    deltas = [data["delta"] for _, data in response.events() if "index" in data and "delta" in data]
    return "".join(delta.get("text", "") for delta in deltas)


def without_ids(body: bytes) -> bytes:
    """Remove our own ids, which differ in each response."""
    return re.sub(rb'"id":"(msg|toolu)_[A-Za-z0-9]+"', rb'"id":"\1"', body)


@pytest.mark.statement("A2")
@pytest.mark.statement("A3")
async def test_a_stop_cuts_none_of_twenty_streams_whatever_their_phase(tmp_path: Path) -> None:
    """Each has the same bytes as without a stop."""
    waiting = asyncio.Event()

    def steps(number: int) -> Iterable[Step]:
        mode, _, phase = mark_of(upstream.bodies[number]).partition("-")
        events = list(MODES[mode].values())
        before, after = events[: int(phase)], events[int(phase) :]
        yield from [CHUNKED, as_chunks(*before)] if before else []  # phase 0: not even the head
        yield waiting
        yield from [] if before else [CHUNKED]
        for event in after:
            half = len(event) // 2
            yield as_chunks(event[:half])
            yield Pause(0.01)
            yield as_chunks(event[half:])
        yield b"0\r\n\r\n"

    upstream = RawUpstream(steps)
    plans = [(mode, phase) for mode in MODES for phase in range(STREAMS // 2)]
    async with upstream.running(), AsyncExitStack() as stack:
        async with process(tmp_path, upstream, *entries(upstream)) as daemon:
            waiting.set()
            undisturbed = {plan: await _begin(stack, daemon, *plan) for plan in plans}
            expected = {plan: await client.response() for plan, client in undisturbed.items()}
            waiting.clear()
            clients = {plan: await _begin(stack, daemon, *plan) for plan in plans}
            await until(lambda: len(upstream.heads) == 2 * STREAMS, 20)
            # A response whose head was sent before the stop does not carry Connection: close.
            last = clients.pop(("direct", 9))
            head = await last.head()
            assert "connection" not in head[1]
            loop = asyncio.get_running_loop()
            begun = loop.time()
            daemon.send(signal.SIGTERM)
            assert (await daemon.says("server.draining"))["calls"] == STREAMS
            # On the open connection a request after the stream is refused, and readiness says why.
            await last.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            waiting.set()
            responses = {plan: await client.response() for plan, client in clients.items()}
            assert responses["direct", 0].headers["connection"] == "close"
            responses["direct", 9] = await last.rest(*head)
            readiness = await last.response()
            assert await daemon.ended(35) == 0
            assert loop.time() - begun < 35
    for plan, response in responses.items():
        assert response.is_whole, plan
        assert judge(response.events()) == "message_stop", plan
        assert without_counts(response.body) == without_counts(expected[plan].body), plan
        if plan[0] == "direct":
            assert response.body == b"".join(MODES["direct"].values())
    assert (readiness.status, readiness.headers["connection"]) == (503, "close")
    assert b"draining" in readiness.body


def without_counts(body: bytes) -> bytes:
    """Remove ids and the estimate in `message_start`, which is better for later calls."""
    return re.sub(rb'"input_tokens":\d+', b"", without_ids(body))


async def _begin(stack: AsyncExitStack, daemon: Process, mode: str, phase: int) -> RawClient:
    client = await stack.enter_async_context(RawClient.to(daemon.base))
    await client.send(request(mode, f"{mode}-{phase}"))
    return client


@pytest.mark.statement("A2")
async def test_a_stop_logs_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PROGRESS_S", 0.05)
    upstream = RawUpstream(lambda _: [Fault.STALL])
    with capture_logs() as lines:
        async with no_leaks(), upstream.running():
            daemon = Daemon(load_entries(entries(upstream), drain_timeout_s=0.4))
            await daemon.start()
            async with RawClient.to(f"http://127.0.0.1:{daemon.addresses[0][1]}") as client:
                await client.send(request("direct"))
                await until(lambda: len(upstream.heads) == 1)
                await daemon.drain()
                assert (await client.response()).status == 529
            await daemon.close()
    progress = [line["seconds_left"] for line in lines if line["event"] == "server.draining"]
    assert len(progress) >= 3, "one line each period"


@pytest.mark.statement("A2")
@pytest.mark.parametrize("mode", MODES)
async def test_a_stop_while_a_client_reads_the_last_bytes_adds_no_error(mode: str) -> None:
    """The end of the stream is written and waits for the client; the stop must not write another."""
    events = list(MODES[mode].values())
    upstream = RawUpstream(lambda _: [CHUNKED, as_chunks(*events), b"0\r\n\r\n"])
    async with no_leaks(), upstream.running():
        daemon = Daemon(load_entries(entries(upstream), drain_timeout_s=0.05))
        await daemon.start()
        reached, finish = asyncio.Event(), asyncio.Event()
        sound = ResponseWriter.finish

        async def finished_late(self: ResponseWriter, data: bytes = b"") -> None:
            await sound(self, data)
            if not reached.is_set():
                reached.set()
                await finish.wait()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ResponseWriter, "finish", finished_late)
            async with RawClient.to(f"http://127.0.0.1:{daemon.addresses[0][1]}") as client:
                await client.send(request(mode))
                await asyncio.wait_for(reached.wait(), 30)
                await daemon.drain()
                response = await client.response()
                finish.set()
        await daemon.close()
    assert response.is_whole
    assert judge(response.events()) == "message_stop"


# -- reloads


@pytest.mark.statement("A4")
async def test_a_hundred_reloads_lose_no_byte_of_fifty_streams(tmp_path: Path) -> None:
    is_over = False

    def text(number: int, piece: int) -> bytes:
        return f"stream {number}, piece {piece}. ".encode()

    def steps(number: int) -> Iterable[Step]:
        mode = mark_of(upstream.bodies[number])
        events = list(MODES[mode].values())
        yield CHUNKED
        yield as_chunks(*events[:4])
        piece = 0
        while not is_over:
            yield as_chunks(events[4].replace(b"write it.", text(number, piece)))
            yield Pause(0.05)
            piece += 1
        sent[number] = piece
        yield as_chunks(*events[5:])
        yield b"0\r\n\r\n"

    upstream = RawUpstream(steps)
    sent: dict[int, int] = {}
    async with upstream.running(), AsyncExitStack() as stack:
        async with process(tmp_path, upstream, *entries(upstream)) as daemon:
            responses = []
            for number in range(RELOADED_STREAMS):
                client = await stack.enter_async_context(RawClient.to(daemon.base))
                mode = ("translated", "direct")[number % 2]
                await client.send(request(mode, mode))
                await until(lambda number=number: len(upstream.heads) == number + 1, 20)
                responses.append(asyncio.ensure_future(client.response(60)))
            for number in range(1, RELOADS + 1):
                write_models(
                    tmp_path,
                    upstream,
                    *entries(upstream),
                    {"model_id": f"new{number}", "api_base": upstream.base},
                )
                daemon.send(signal.SIGHUP)
                await daemon.says("config.reloaded", number, within_s=30)
            is_over = True
            found: list[RawResponse] = await asyncio.wait_for(asyncio.gather(*responses), 60)
            await daemon.says("call.finished", RELOADED_STREAMS)
            assert not daemon.log("config.rejected")
            assert [line["outcome"] for line in daemon.log("call.finished")] == ["ok"] * RELOADED_STREAMS
    for number, response in enumerate(found):
        assert response.is_whole
        assert judge(response.events()) == "message_stop"
        assert text_of(response) == "I will " + "".join(
            text(number, piece).decode() for piece in range(sent[number])
        )
        assert sent[number] > 10, "the stream ran while the reloads did"


@pytest.mark.statement("A4")
async def test_a_reload_reads_hooks_and_keys_again_and_open_streams_keep_the_old_ones(
    tmp_path: Path,
) -> None:
    hooks, key = tmp_path / "hooks", tmp_path / "a.key"
    hooks.mkdir(mode=0o755)
    go_on = asyncio.Event()

    def put(version: str) -> None:
        key.write_text(f"key-of-version-{version}\n")
        key.chmod(0o600)
        text = "def response_hook(p):\n    d = p.get('delta', {})\n    if 'text' in d:\n"
        (hooks / "mark.py").write_text(f"{text}        d['text'] += '[{version}]'\n    return p\n")
        (hooks / "mark.py").chmod(0o644)

    events = list(MODES["translated"].values())
    upstream = RawUpstream(
        lambda _: [CHUNKED, as_chunks(*events[:4]), go_on, as_chunks(*events[4:]), b"0\r\n\r\n"]
    )
    put("old")
    entry = {"model_id": "k", "api_base": f"{upstream.base}/v1", "api_key": "${file:a.key}"}
    async with upstream.running(), AsyncExitStack() as stack:
        entry["api_base"] = f"{upstream.base}/v1"
        async with process(tmp_path, upstream, entry) as daemon:
            clients = []
            for version in ("old", "new"):
                if version == "new":
                    put("new")
                    daemon.send(signal.SIGHUP)
                    await daemon.says("config.reloaded")
                clients.append(await stack.enter_async_context(RawClient.to(daemon.base)))
                await clients[-1].send(request("k"))
                await until(lambda: len(upstream.heads) == len(clients), 20)
            go_on.set()
            responses = [await client.response() for client in clients]
            (tmp_path / "models.yaml").write_text("- model_id: m\n")
            daemon.send(signal.SIGHUP)
            await daemon.says("config.rejected")
            metrics = await _metrics(daemon)
            put("newer")
            write_models(tmp_path, upstream, entry)
            reloads = len(daemon.log("config.reloaded"))  # saved hooks cause reloads as well
            daemon.send(signal.SIGHUP)
            await daemon.says("config.reloaded", reloads + 1)
            metrics_after = await _metrics(daemon)
    for version, head, response in zip(("old", "new"), upstream.heads, responses, strict=True):
        assert f"bearer key-of-version-{version}".encode() in head.lower()
        said = "".join(
            data["delta"].get("text", "")
            for _, data in response.events()
            if "index" in data and "delta" in data
        )
        assert said == f"I will [{version}]write it.[{version}]"
    assert b"\nproxyd_config_reload_success 0.0\n" in metrics
    assert b"\nproxyd_config_reload_success 1.0\n" in metrics_after


@pytest.mark.statement("A4")
@pytest.mark.statement("E11")
async def test_a_reload_does_not_run_a_hook_that_others_may_write(tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir(mode=0o755)
    path = hooks / "mark.py"
    path.write_text("def response_hook(p):\n    return p\n")
    path.chmod(0o644)
    upstream = RawUpstream(lambda _: [CHUNKED, as_chunks(*MODES["translated"].values()), b"0\r\n\r\n"])
    async with upstream.running(), process(tmp_path, upstream) as daemon:
        path.write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\ndef response_hook(p):\n    return p\n")
        path.chmod(0o666)
        daemon.send(signal.SIGHUP)
        fault = await daemon.says("hook.not_loaded")
        assert fault["hook"] == "mark"
        assert f"everybody may write {path}; run 'chmod go-w {path}'" in fault["why"]
        async with RawClient.to(daemon.base) as client:
            await client.send(request("m"))
            assert judge((await client.response()).events()) == "message_stop"
    assert not (tmp_path / "it-ran").exists()


async def _metrics(daemon: Process) -> bytes:
    async with RawClient.to(daemon.base) as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return (await client.response()).body
