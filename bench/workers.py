"""``python -m bench.workers``: how much more two workers can do than one process (docs/performance.md).

Sixty-four conversations at once, of small calls and of bursts of 300 chunks. On a machine that has other work to do, or
whose cores client and upstream need as well, calls a second say little; so the factor is that of CPU time: what one
process needs for a call, by what the busiest worker needs for a call of all. That is the factor of throughput where
each worker has a core of its own. Both run at once, and batches of a second alternate between them, since the speed of
a shared machine changes within seconds; the median of the pairs counts.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from bench.contenders import with_workers
from bench.load import Client, raw_request
from bench.scenarios import Running, started, started_upstream
from bench.traffic import HEADERS, bodies

_PAIRS, _CONNECTIONS, _WARM_UP_CALLS = 24, 64, 4
_CALLS = {"short": 1280, "burst": 320}
_SESSION = "x-claude-code-session-id"


@dataclass
class _Load:
    """The conversations with one contender."""

    run: Running
    clients: list[Client]
    requests: list[bytes]

    @classmethod
    async def connect(cls, run: Running, name: str) -> _Load:
        raw = raw_request(run.port, bodies(f"bench-{name}", "small")[0])
        own = HEADERS[_SESSION].encode()
        requests = [raw.replace(own, f"conversation-{number}".encode()) for number in range(_CONNECTIONS)]
        return cls(run, [await Client.connect(run.port) for _ in requests], requests)

    async def converse(self, calls: int) -> None:
        """Make so many calls in each conversation, all conversations at once."""

        async def one(client: Client, raw: bytes) -> None:
            for _ in range(calls):
                response = await client.request(raw)
                assert response.status == 200, response.body()[:300]

        await asyncio.gather(*map(one, self.clients, self.requests))

    async def measure(self, count: int) -> tuple[float, float]:
        """Return the CPU seconds of the busiest process for each call of all, and calls a second."""
        before, began_at = self.run.process.cpu_s_by_process(), monotonic()
        await self.converse(count // _CONNECTIONS)
        took_s, after = monotonic() - began_at, self.run.process.cpu_s_by_process()
        return max(after[pid] - before[pid] for pid in after) / count, count / took_s

    def close(self) -> None:
        for client in self.clients:
            client.close()


async def _compare(name: str, runs: list[Running]) -> None:
    """Print the factor of one kind of call."""
    loads = [await _Load.connect(run, name) for run in runs]
    try:
        for each in loads:
            await each.converse(_WARM_UP_CALLS)
        pairs = [[await each.measure(_CALLS[name]) for each in loads] for _ in range(_PAIRS)]
    finally:
        for each in loads:
            each.close()
    low, factor, high = statistics.quantiles((one[0] / two[0] for one, two in pairs), n=4)
    cpu_ms = [statistics.median(pair[at][0] for pair in pairs) * 1e3 for at in range(2)]
    rate = [statistics.median(pair[at][1] for pair in pairs) for at in range(2)]
    print(
        f"{name:6} busiest process: {cpu_ms[0]:.3f} -> {cpu_ms[1]:.3f} ms of CPU a call, factor {factor:.2f} "
        f"(half of the pairs: {low:.2f} to {high:.2f}); "
        f"{rate[0]:.0f} -> {rate[1]:.0f} calls a second on this machine"
    )


async def _run(folder: Path) -> int:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(started_upstream(folder))
        runs = [
            await stack.enter_async_context(started(with_workers(count), folder, port)) for count in (1, 2)
        ]
        await asyncio.sleep(1.5)  # what processes do once has been done
        for name in _CALLS:
            await _compare(name, runs)
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as name:
        sys.exit(asyncio.run(_run(Path(name))))
