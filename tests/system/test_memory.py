"""Memory of the daemon: for clients that do not read, and after many streams.

See docs/spec/operations.md#c6, #c7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import process
from tests.support.faults import MODES
from tests.support.raw_sockets import Pause, RawClient, RawUpstream, Step, deaf_client, post
from tests.support.streams import CHUNKED, HELLO, as_chunks
from tests.system.memory import MAX_GROWTH_KIB, growth_kib, resident_kib

#: docs/spec/operations.md#c6, and the bytes that each upstream sends.
MAX_KIB, SENDS_BYTES = 512, 50_000_000
GROUPS, CLIENTS = 3, 8

HOOK = """
def stream_event_hook(event, ctx):
    return event
"""


@pytest.mark.statement("C6")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["plain", "hooks", "committed_by_silence", "whole_writes"])
async def test_clients_that_do_not_read_cost_little_memory(case: str, mode: str, tmp_path: Path) -> None:
    """Each upstream has 50 MB to send; the proxy holds less than 512 KiB of them for each client.

    Also for a stream whose beginning silence has called for, where the upstream writes in large pieces instead of as
    the socket takes them, and with hooks over the stream, for which the streams wait in turn.
    """
    if case == "committed_by_silence" and mode == "direct":
        pytest.skip("a direct stream is begun by its upstream alone")
    events = list(MODES[mode].values())
    flood = as_chunks(*events[:5]) + as_chunks(events[4]) * (4000 if case == "whole_writes" else 500)
    taken: list[int] = []

    def steps(number: int) -> Iterable[Step]:
        yield CHUNKED
        if case == "committed_by_silence":
            yield Pause(0.5)  # ten times commit_s
        taken.append(0)
        place = len(taken) - 1
        while taken[place] < SENDS_BYTES:
            yield flood
            taken[place] += len(flood)

    upstream = RawUpstream(steps)
    if case == "hooks":
        (tmp_path / "hooks").mkdir(mode=0o755)
        (tmp_path / "hooks" / "look.py").write_text(HOOK)
        (tmp_path / "hooks" / "look.py").chmod(0o644)
    settings: dict[str, Any] = {"commit_s": 0.05} if case == "committed_by_silence" else {}
    async with upstream.running(), AsyncExitStack() as stack:
        entry = {"model_id": "d", "api_base": upstream.base, "direct": mode == "direct"}
        async with process(tmp_path, upstream, entry, write_stall_s=600, **settings) as daemon:
            resident = []
            # Memory that is needed for a moment is reused by the others; memory that is held adds up.
            for _ in range(GROUPS):
                for _ in range(CLIENTS):
                    await stack.enter_async_context(deaf_client(daemon.base, {**HELLO, "model": "d"}))
                wanted = (len(resident) + 1) * CLIENTS
                seen: tuple[int, ...] = ()
                while len(taken) < wanted or seen != tuple(taken):  # until nothing changes any more
                    seen = tuple(taken)
                    await asyncio.sleep(0.3)
                resident.append(resident_kib(daemon.handle.pid))
            assert max(taken) < SENDS_BYTES, "no upstream could get rid of all it had"
    grown_kib = (resident[-1] - resident[0]) / (CLIENTS * (GROUPS - 1))
    print(f"{mode}, {case}: {grown_kib:.0f} KiB for each client that does not read")
    assert 0 < grown_kib < MAX_KIB


@pytest.mark.statement("C7")
@pytest.mark.parametrize("mode", MODES)
async def test_many_long_streams_leak_nothing(mode: str, tmp_path: Path) -> None:
    """The short form of `tests.system.memory`: a leak of 4 % of the forwarded bytes would fail it."""
    before, after = await growth_kib(tmp_path, mode, streams=40, megabytes=4)
    assert after - before < MAX_GROWTH_KIB / 4, f"{before} KiB after 4 streams, {after} KiB after 40"


async def test_calls_of_an_entry_with_quirks_leak_nothing(tmp_path: Path) -> None:
    """The cache of translated tools is keyed by dialect, which must be the same object for each call."""
    tools = [
        {"name": f"Tool{number}", "description": "word " * 200, "input_schema": {"type": "object"}}
        for number in range(40)
    ]
    response = [CHUNKED, as_chunks(*MODES["translated"].values()), b"0\r\n\r\n"]
    upstream = RawUpstream(lambda _: response)
    async with upstream.running():
        entry = {"model_id": "q", "api_base": f"{upstream.base}/v1", "quirks": {"system_role": "developer"}}
        async with process(tmp_path, upstream, entry) as daemon, RawClient.to(daemon.base) as client:
            resident = []
            for number in range(1, 601):
                await client.send(post({**HELLO, "model": "q", "tools": tools}))
                await client.reader.readuntil(b"\r\n0\r\n\r\n")
                upstream.heads.clear()
                upstream.bodies.clear()
                if number in (300, 600):
                    resident.append(resident_kib(daemon.handle.pid))
    # Kept once per call, the translated list would take 30 MB.
    assert resident[1] - resident[0] < 5 * 1024, f"{resident[0]} KiB after 300 calls, {resident[1]} after 600"
