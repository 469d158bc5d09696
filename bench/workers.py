"""``python -m bench.workers``: how much more two workers can do than one process (docs/performance.md).

Sixty-four conversations at once, of small calls and of bursts of 300 chunks. On a machine that has other work to do, or
whose cores client and upstream need as well, calls a second say little; so the factor is that of CPU time: what one
process needs for a call, by what the busiest worker needs for a call of all. That is the factor of throughput where
each worker has a core of its own. Rounds alternate; the medians count.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from time import monotonic

from bench.contenders import Contender, with_workers
from bench.load import Client, raw_request
from bench.scenarios import Running, started, started_upstream
from bench.traffic import HEADERS, bodies

_ROUNDS, _CONNECTIONS, _WARM_UP_CALLS = 5, 64, 4
_CALLS = {"short": 6400, "burst": 640}
_SESSION = "x-claude-code-session-id"


def _requests(port: int, name: str) -> list[bytes]:
    """Return a request of each conversation."""
    raw = raw_request(port, bodies(f"bench-{name}", "small")[0])
    own = HEADERS[_SESSION].encode()
    return [raw.replace(own, f"conversation-{number}".encode()) for number in range(_CONNECTIONS)]


async def _measure(run: Running, name: str, count: int) -> tuple[float, float]:
    """Return the CPU seconds of the busiest process for each call of all, and calls a second."""
    clients = [await Client.connect(run.port) for _ in range(_CONNECTIONS)]
    try:

        async def converse(client: Client, raw: bytes, calls: int) -> None:
            for _ in range(calls):
                response = await client.request(raw)
                assert response.status == 200, response.body()[:300]

        async def all_converse(calls: int) -> None:
            await asyncio.gather(*map(converse, clients, _requests(run.port, name), [calls] * _CONNECTIONS))

        await all_converse(_WARM_UP_CALLS)
        before, began_at = run.process.cpu_s_by_process(), monotonic()
        await all_converse(count // _CONNECTIONS)
        took_s, after = monotonic() - began_at, run.process.cpu_s_by_process()
    finally:
        for client in clients:
            client.close()
    calls = count // _CONNECTIONS * _CONNECTIONS
    return max(after[pid] - before[pid] for pid in after) / calls, calls / took_s


async def _round(contender: Contender, folder: Path, upstream_port: int) -> dict[str, tuple[float, float]]:
    async with started(contender, folder, upstream_port) as run:
        await asyncio.sleep(
            1.5
        )  # what processes do once, and workers that were not asked yet, have been done
        return {name: await _measure(run, name, count) for name, count in _CALLS.items()}


async def _run(folder: Path) -> int:
    contenders = [with_workers(1), with_workers(2)]
    async with started_upstream(folder) as port:
        rounds = [
            {each.name: await _round(each, folder, port) for each in contenders} for _ in range(_ROUNDS)
        ]
    one, two = (each.name for each in contenders)
    for name in _CALLS:
        factors = [each[one][name][0] / each[two][name][0] for each in rounds]
        cpu = {each: statistics.median(found[each][name][0] for found in rounds) for each in (one, two)}
        rate = {each: statistics.median(found[each][name][1] for found in rounds) for each in (one, two)}
        print(
            f"{name:6} busiest process: {cpu[one] * 1e3:.3f} -> {cpu[two] * 1e3:.3f} ms of CPU a call, factor "
            f"{statistics.median(factors):.2f} ({min(factors):.2f} to {max(factors):.2f}); "
            f"{rate[one]:.0f} -> {rate[two]:.0f} calls a second on this machine"
        )
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as name:
        sys.exit(asyncio.run(_run(Path(name))))
