"""Several workers as real processes: one address, one status, one `/metrics`, one feed; crashes, reloads, stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from proxyd.store.sqlite import FILE, SqliteKeyStore
from proxyd.store.virtual_keys import Limit, VirtualKey, digest_of, new_secret
from tests.support.certificates import make_certificate
from tests.support.daemon_process import Process, process, write_models
from tests.support.ports import free_port
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, Step, post, until
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks, judge

WORKERS = 2
#: Everything that one of these processes does, however busy the machine is.
BOUND_S = 60.0
FRAMES = list(TRANSLATED.values())


class Upstream:
    """Sends half of each response, and the rest once `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.raw = RawUpstream(self.play)

    def play(self, number: int) -> Iterable[Step]:
        yield CHUNKED + as_chunks(*FRAMES[:4])
        yield self.gate
        yield as_chunks(*FRAMES[4:]) + b"0\r\n\r\n"


def request(session: str, *more: str) -> bytes:
    return post(HELLO, f"x-claude-code-session-id: {session}", *more)


async def answer_to(base: str, data: bytes) -> RawResponse:
    """Send a request on a connection of its own, which goes to the worker whose turn it is."""
    async with RawClient.to(base) as client:
        await client.send(data)
        return await client.response(BOUND_S)


async def get(base: str, path: str) -> bytes:
    response = await answer_to(base, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert response.status == 200, response.body
    return response.body


async def about(base: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await get(base, "/readyz?verbose"))
    return found


async def finished_calls(base: str) -> float:
    families = text_string_to_metric_families((await get(base, "/metrics")).decode())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "proxyd_requests_total"
    )


async def becomes(ask_for: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Ask until the answer is the expected one: on a busy machine a worker may leave another one out."""
    deadline = asyncio.get_running_loop().time() + BOUND_S
    while (found := await ask_for()) != expected:
        assert asyncio.get_running_loop().time() < deadline, f"{found} is not {expected}"
        await asyncio.sleep(0.1)


async def calls_shown(base: str) -> list[Any]:
    """Return the process of the status, and the calls in flight: of all, of each worker, and in the feed."""
    status = await about(base)
    async with RawClient.to(base) as listener:
        await listener.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        hello = await asyncio.wait_for(listener.reader.readuntil(b"\n\n"), BOUND_S)
    feed = json.loads(hello.partition(b"data: ")[2])
    return [
        status["pid"],
        status["calls"],
        [each["calls"] for each in status["workers"]],
        len(feed["active"]),
    ]


async def pids(base: str) -> list[int]:
    """Return the processes of all workers, once all are there."""
    found: list[int] = []

    async def ask_for() -> int:
        found[:] = [each["pid"] for each in (await about(base))["workers"]]
        return len(found)

    await becomes(ask_for, WORKERS)
    return found


def started(daemon: Process) -> int:
    return len(daemon.log("server.started"))


@asynccontextmanager
async def several(
    folder: Path, upstream: RawUpstream, *entries: dict[str, Any], **more: Any
) -> AsyncIterator[Process]:
    """A daemon whose workers are all ready."""
    async with process(folder, upstream, *entries, workers=WORKERS, **more) as daemon:
        await daemon.says("workers.started", within_s=BOUND_S)
        yield daemon


async def open_streams(stack: AsyncExitStack, base: str, sessions: Iterable[str]) -> list[RawClient]:
    """Begin a call in each session, and wait until its response begins."""
    clients = []
    for session in sessions:
        client = await stack.enter_async_context(RawClient.to(base))
        await client.send(request(session))
        clients.append(client)
    for client in clients:
        assert (await client.head(BOUND_S))[0] == 200
    return clients


async def rest(client: RawClient) -> RawResponse:
    return await client.rest(200, {"transfer-encoding": "chunked"}, BOUND_S)


def is_complete(response: RawResponse) -> bool:
    return response.is_whole and judge(response.events()) == "message_stop"


async def test_workers_are_one_daemon_through_crash_reload_and_stop(tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "manager"))
    manager.setblocking(False)
    upstream = Upstream()
    async with AsyncExitStack() as stack:
        stack.callback(manager.close)
        await stack.enter_async_context(upstream.raw.running())
        environ = {"NOTIFY_SOCKET": str(tmp_path / "manager")}
        daemon = await stack.enter_async_context(several(tmp_path, upstream.raw, environ=environ))

        # One status, and one feed, whichever worker is asked.
        streams = await open_streams(stack, daemon.base, "abcdef")
        for _ in range(WORKERS):
            await becomes(lambda: calls_shown(daemon.base), [daemon.handle.pid, 6, [3, 3], 6])
        upstream.gate.set()
        assert all([is_complete(await rest(each)) for each in streams])
        await until(lambda: len(daemon.log("call.finished")) == 6, BOUND_S)
        assert Counter(line["worker"] for line in daemon.log("call.finished")) == {1: 3, 2: 3}
        for _ in range(WORKERS):
            await becomes(lambda: finished_calls(daemon.base), 6)

        # A crash costs the streams of one worker, and no counts; it is started again.
        upstream.gate.clear()
        streams = await open_streams(stack, daemon.base, "ab")
        victim, other = await pids(daemon.base)
        os.kill(victim, signal.SIGKILL)
        ended = await daemon.says("workers.ended", within_s=BOUND_S)
        assert (ended["exit_code"], ended["again_in_s"]) == (-9, 0.5)
        await becomes(lambda: finished_calls(daemon.base), 6)
        upstream.gate.set()
        assert sorted([is_complete(await rest(each)) for each in streams]) == [False, True]
        await until(lambda: started(daemon) == WORKERS + 1, BOUND_S)
        await becomes(lambda: finished_calls(daemon.base), 7)

        # A reload reaches all.
        write_models(tmp_path, upstream.raw, {"model_id": "new", "api_base": "builtin:demo"}, workers=WORKERS)
        daemon.send(signal.SIGHUP)
        await until(lambda: {each["worker"] for each in daemon.log("config.reloaded")} == {1, 2}, BOUND_S)
        assert (await about(daemon.base))["models"] == ["m", "new"]
        assert {*await pids(daemon.base)} & {victim, other} == {other}

        # A stop waits for the streams of all.
        upstream.gate.clear()
        streams = await open_streams(stack, daemon.base, "abcd")
        daemon.send(signal.SIGTERM)
        await until(lambda: {line["worker"] for line in daemon.log("server.draining")} == {1, 2}, BOUND_S)
        upstream.gate.set()
        assert all([is_complete(await rest(each)) for each in streams])
        assert await daemon.ended(BOUND_S) == 0
        said = []
        while True:
            try:
                said += manager.recv(4096).decode().splitlines()
            except BlockingIOError:
                break
        kinds = [line for line in said if line in ("READY=1", "RELOADING=1", "STOPPING=1")]
        assert kinds == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


async def test_workers_share_limits_serve_tls_and_end_with_their_parent(tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    secrets = {name: new_secret() for name in ("alice", "bob")}
    keys = {name: VirtualKey(name, name, digest_of(secret), 0.0) for name, secret in secrets.items()}
    keys["alice"] = replace(keys["alice"], limits=(Limit(3, "calls", "month"),))
    store = SqliteKeyStore(tmp_path / ".local" / "state" / "claude-proxy" / FILE)
    for each in keys.values():
        store.put_key(each)
    upstream = Upstream()
    upstream.gate.set()
    tls = {"host": "127.0.0.1", "port": free_port(), "cert": str(certificate), "key": str(key)}
    async with upstream.raw.running(), several(tmp_path, upstream.raw, auth="keys", tls=tls) as daemon:

        async def status_of(name: str, session: str) -> int:
            head = f"Authorization: Bearer {secrets[name]}"
            return (await answer_to(daemon.base, request(session, head))).status

        def counted() -> int:
            return sum(
                spent.calls for (owner, period, _), spent in store.all_usage().items()
                if (owner, period) == (keys["alice"].owner, "month")
            )  # fmt: skip

        # One of them uses a limit up, and the other one refuses the next call: it has read the store since.
        assert [await status_of("alice", "a"), await status_of("bob", "b")] == [200, 200]
        assert [await status_of("alice", "a") for _ in range(3)] == [200, 200, 429]
        await until(lambda: counted() == 3, BOUND_S)
        store.put_key(replace(keys["bob"], revoked_at=1.0))
        deadline = asyncio.get_running_loop().time() + BOUND_S
        while await status_of("bob", "b") != 401:
            assert asyncio.get_running_loop().time() < deadline
        assert await status_of("alice", "b") == 429
        store.close()
        served = {
            (line["caller"], line["worker"]) for line in daemon.log("call.finished") if line["status"] == 200
        }
        assert len({worker for _, worker in served}) == len(served) == WORKERS

        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.get(f"https://127.0.0.1:{tls['port']}/healthz") as response,
        ):
            assert response.status == 200
        daemon.send(signal.SIGKILL)
        await until(lambda: len(daemon.log("server.stopped")) == WORKERS, BOUND_S)
