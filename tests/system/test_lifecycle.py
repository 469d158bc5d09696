"""The real process: start, drain, second signal, reload, crash of one call, log file, state.

See docs/spec/operations.md#a.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.proxy.pump import StreamPump
from tests.support.daemon_process import process, write_models
from tests.support.harness import running_proxy
from tests.support.paths import ROOT
from tests.support.raw_sockets import (
    Fault,
    RawClient,
    RawResponse,
    RawUpstream,
    Step,
    deaf_client,
    no_leaks,
    post,
    until,
)
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge

FRAMES = list(TRANSLATED.values())
HALF: Sequence[Step] = (CHUNKED, as_chunks(*FRAMES[:4]))
GOOD: Sequence[Step] = (CHUNKED, as_chunks(*FRAMES), b"0\r\n\r\n")


async def begin(stack: AsyncExitStack, base: str, payload: dict[str, Any] | None = None) -> RawClient:
    """Start a call, and wait for the first bytes of its response."""
    client = await stack.enter_async_context(RawClient.to(base))
    await client.send(post(payload or HELLO))
    return client


async def listed(base: str) -> bytes:
    """Return the ids of the models."""
    async with RawClient.to(base) as client:
        await client.send(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return (await client.response()).body


class Gate:
    """An upstream that sends half a response, and the rest when the test allows it."""

    def __init__(self) -> None:
        self.upstream = RawUpstream(
            lambda number: (
                *HALF,
                self._opened if number else self._first_opened,
                as_chunks(*FRAMES[4:]),
                b"0\r\n\r\n",
            )
        )
        self._first_opened, self._opened = asyncio.Event(), asyncio.Event()

    def open_first(self) -> None:
        self._first_opened.set()

    def open(self) -> None:
        self._first_opened.set()
        self._opened.set()


@pytest.mark.statement("A2")
@pytest.mark.statement("A3")
async def test_a_drain_lets_streams_finish_and_takes_no_new_work(tmp_path: Path) -> None:
    gate = Gate()
    async with gate.upstream.running(), AsyncExitStack() as stack:
        async with process(tmp_path, gate.upstream) as daemon:
            idle = await stack.enter_async_context(RawClient.to(daemon.base))
            await idle.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await idle.response()).status == 200
            streams = [await begin(stack, daemon.base) for _ in range(20)]
            await until(lambda: len(gate.upstream.heads) == 20, 20)
            busy = streams[0]
            daemon.send(signal.SIGTERM)
            progress = await daemon.says("server.draining")
            assert progress["calls"] == 20
            assert await idle.is_closed(), "idle connections are closed"
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await begin(stack, daemon.base)
            await busy.send(post(HELLO))  # a second request on a connection that is still open
            gate.open_first()
            responses = [await busy.response()]
            refused = await busy.response()  # while others are open: after the last one the daemon ends
            gate.open()
            responses += [await each.response() for each in streams[1:]]
            assert await daemon.ended(30) == 0
    assert {judge(response.events()) for response in responses} == {"message_stop"}
    assert len({response.body.partition(b"content_block_start")[2] for response in responses}) == 1
    assert all(response.is_whole for response in responses)
    assert (refused.status, refused.error()[0]) == (529, "overloaded_error")
    assert "shutting down" in refused.error()[1]
    assert refused.headers["connection"] == "close"


@pytest.mark.statement("A2")
@pytest.mark.statement("A3")
@pytest.mark.parametrize("how", ["timeout", "second_signal"])
async def test_calls_open_after_the_drain_end_with_one_error_event(tmp_path: Path, how: str) -> None:
    upstream = RawUpstream(
        lambda number: ((*HALF, Fault.STALL), (Fault.STALL,), (CHUNKED, Fault.STALL))[number % 3]
    )
    timeout_s = 0.3 if how == "timeout" else 60
    async with upstream.running(), AsyncExitStack() as stack:
        async with process(tmp_path, upstream, drain_timeout_s=timeout_s, write_stall_s=600) as daemon:
            clients = []
            for number in range(6):
                clients.append(await begin(stack, daemon.base))
                await until(lambda number=number: len(upstream.heads) == number + 1, 20)
            await stack.enter_async_context(
                deaf_client(daemon.base, HELLO)
            )  # never reads; must not delay the end
            await until(lambda: len(upstream.heads) == 7, 20)
            daemon.send(signal.SIGTERM)
            await daemon.says("server.draining")
            if how == "second_signal":
                daemon.send(signal.SIGINT)
            responses = [await each.response() for each in clients]
            assert await daemon.ended(30) == 0
            await until(lambda: upstream.open_connections == 0)
    begun = [response for response in responses if response.status == 200]
    assert len(begun) == 2
    for response in begun:
        assert response.is_whole
        assert judge(response.events()) == "error"
        assert response.events()[-1][1]["error"]["type"] == "overloaded_error"
    for response in responses:
        assert response in begun or (response.status, response.error()[0]) == (529, "overloaded_error")
    assert daemon.lines[-1]["event"] == "server.stopped"


@pytest.mark.statement("A1")
async def test_both_loopback_addresses_are_listened_on(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no ::1")
    upstream = RawUpstream(lambda _: GOOD)
    async with upstream.running(), process(tmp_path, upstream) as daemon:
        async with RawClient.to(f"http://[::1]:{daemon.base.rpartition(':')[2]}") as client:
            await client.send(post(HELLO, host="[::1]"))
            assert (await client.response()).status == 200


@pytest.mark.statement("A4")
async def test_a_reload_affects_new_calls_and_an_invalid_file_none(tmp_path: Path) -> None:
    gate = Gate()
    spare = RawUpstream(lambda _: GOOD)
    async with gate.upstream.running(), spare.running(), AsyncExitStack() as stack:
        async with process(tmp_path, gate.upstream) as daemon:
            streams = [await begin(stack, daemon.base) for _ in range(10)]
            await until(lambda: len(gate.upstream.heads) == 10, 20)
            for number in range(1, 11):
                write_models(tmp_path, spare, {"model_id": f"new{number}", "api_base": spare.base})
                daemon.send(signal.SIGHUP)
                while f"new{number}".encode() not in await listed(daemon.base):
                    await asyncio.sleep(0.02)
            (tmp_path / "models.yaml").write_text("models: [{model_id: x, api_bas: 1}]")
            daemon.send(signal.SIGHUP)
            rejected = await daemon.says("config.rejected")
            assert any("models.yaml:1:" in fault for fault in rejected["faults"])
            async with RawClient.to(daemon.base) as client:
                await client.send(post(HELLO))
                assert judge((await client.response()).events()) == "message_stop"
            assert (len(gate.upstream.heads), len(spare.heads)) == (10, 1)
            gate.open()
            for each in streams:
                assert judge((await each.response()).events()) == "message_stop"
            write_models(tmp_path, spare, max_connections=7)
            daemon.send(signal.SIGHUP)
            await until(
                lambda: any(
                    "max_connections" in line["ignored_until_restart"]
                    for line in daemon.log("config.reloaded")
                ),
                20,
            )
            assert daemon.handle.returncode is None


@pytest.mark.statement("A5")
async def test_sigusr2_logs_the_state(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda _: (*HALF, Fault.STALL))
    async with upstream.running(), AsyncExitStack() as stack:
        sick = {"model_id": "sick", "api_base": "http://127.0.0.1:9/v1"}
        async with process(tmp_path, upstream, sick, circuit_failures=1, max_retries=0) as daemon:
            client = await begin(stack, daemon.base)
            await client.head()
            async with RawClient.to(daemon.base) as other:
                await other.send(post({**HELLO, "model": "sick"}))
                assert (await other.response()).status == 502
            daemon.send(signal.SIGUSR2)
            circuit = await daemon.says("state.circuit")
            (call,) = daemon.log("state.call")
            (state,) = daemon.log("state.daemon")
    assert (state["calls"], state["circuits"]) == (1, 1)
    assert (call["model"], call["mode"], call["has_begun"]) == ("m", "translated", True)
    assert (circuit["origin"], circuit["state"]) == ("http://127.0.0.1:9", "open")


@pytest.mark.statement("A5")
async def test_a_moved_log_file_is_reopened(tmp_path: Path) -> None:
    upstream = RawUpstream(lambda _: GOOD)
    log, old = tmp_path / "daemon.log", tmp_path / "daemon.log.1"
    async with upstream.running():
        write_models(tmp_path, upstream)
        with log.open("wb") as stream:
            handle = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "proxyd", "--port", "0", "--models", str(tmp_path / "models.yaml")),
                stdout=stream,
                stderr=stream,
                env={"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            )
        try:
            await until(lambda: "server.started" in log.read_text(), 20)
            log.rename(old)
            handle.send_signal(signal.SIGUSR1)
            await until(lambda: log.exists() and "logs.reopened" in log.read_text(), 20)
            handle.terminate()
            await asyncio.wait_for(handle.wait(), 30)
            assert "server.stopped" in log.read_text()
            assert "server.stopped" not in old.read_text()
        finally:
            if handle.returncode is None:
                handle.kill()
            await handle.wait()


# -- a bug of ours


@pytest.mark.statement("A6")
@pytest.mark.parametrize("mode", ["translated", "direct"])
@pytest.mark.parametrize("phase", ["first", "later", "flowing"])
async def test_a_crash_ends_one_call_legally_and_no_other(
    mode: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = StreamPump._decode

    def broken(self: Any) -> bytes:
        # A chunk is decoded by the call's task, or while the socket is read.
        is_due = self._record.first_byte is not None if phase == "later" else self._reader._is_handling
        if self._record.session_id == "crashing" and (phase == "first" or is_due):
            raise KeyError("sk-secret-in-a-traceback-0123456789")
        return sound(self)

    monkeypatch.setattr(StreamPump, "_decode", broken)
    frames = list((DIRECT if mode == "direct" else TRANSLATED).values())
    upstream = RawUpstream(lambda _: [CHUNKED, *(as_chunks(frame) for frame in frames), b"0\r\n\r\n"])
    with capture_logs() as lines:
        async with no_leaks(), upstream.running():
            entries = [{"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}]
            async with running_proxy(entries) as base:
                responses: list[RawResponse] = []
                for header in ("X-Claude-Code-Session-Id: crashing", "X-Claude-Code-Session-Id: fine"):
                    async with RawClient.to(base) as client:
                        await client.send(post(HELLO, header))
                        responses.append(await client.response())
                async with RawClient.to(base) as client:
                    await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    counters = (await client.response()).body
    assert b'proxyd_upstream_errors_total{route="m",type="api_error"} 1.0' in counters
    crashed, fine = responses
    assert judge(fine.events()) == "message_stop"
    if phase == "first":
        assert (crashed.status, crashed.error()[0]) == (500, "api_error")
    else:
        assert (crashed.status, crashed.is_whole, judge(crashed.events())) == (200, True, "error")
    assert b"sk-secret" not in crashed.body
    assert [line["outcome"] for line in lines if line["event"] == "call.finished"] == [
        "refused" if phase == "first" else "failed",
        "ok",
    ]
    (crash,) = [line for line in lines if line["event"] == "request.crashed"]
    assert isinstance(crash["exc_info"], KeyError)


@pytest.mark.statement("A9")
async def test_two_daemons_can_share_a_folder(tmp_path: Path) -> None:
    """No file names the running one."""
    upstream = RawUpstream(lambda _: GOOD)
    async with upstream.running(), process(tmp_path, upstream) as one, process(tmp_path, upstream) as other:
        one.send(signal.SIGTERM)
        assert await one.ended(30) == 0
        async with RawClient.to(other.base) as client:
            await client.send(post(HELLO))
            assert judge((await client.response()).events()) == "message_stop"
        assert not [name for _, _, names in os.walk(tmp_path) for name in names if "pid" in name]
