"""Paired measurements of contenders whose ratio is near its limit.

The speed of a shared machine changes from minute to minute, which makes ratios between contenders measured one after
the other uncertain by a tenth and more. Here the contenders of a group run at the same time, and small batches of calls
alternate between them within a second. Each is started several times, since the speed of the same code differs between
processes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import BASELINES, FORMATS, OURS, PEERS, TLS, with_tls
from bench.scenarios import SCENARIOS, Figures, Running, per_chunk, started

__all__ = ["measure_pairs"]

_WARM_UP_CALLS = 200
#: Share of the calls that are made to a peer: each takes so long that few are enough.
_PEERS_SHARE = 0.3

_Measure = Callable[[Running], Awaitable[Figures]]


async def measure_pairs(
    folder: Path,
    upstream_port: int,
    groups: list[dict[str, list[Figures]]],
    *,
    tls: TLS | None,
    with_peers: bool,
) -> None:
    """Measure all groups.

    Args:
        tls: where the upstream speaks TLS; None where there is no certificate.
        groups: gets the rounds of each group, by contender, as soon as there are any.
    """
    known = [*BASELINES, *OURS, *FORMATS, *PEERS, *(() if tls is None else with_tls(tls)[0])]
    for group in _GROUPS:
        everyone = [each for each in known if each.name in group.names]
        if len(everyone) < len(group.names):
            print(
                f"  {' and '.join(group.names)} are not compared in pairs: openssl is missing",
                file=sys.stderr,
            )
            continue
        if any(each in PEERS for each in everyone) and not with_peers:
            continue
        why = next((f"{each.name}: {each.missing()}" for each in everyone if each.missing()), None)
        if why is not None:
            print(f"  {' and '.join(group.names)} are not compared in pairs: {why}", file=sys.stderr)
            continue
        rounds: dict[str, list[Figures]] = {each.name: [] for each in everyone}
        groups.append(rounds)
        for _ in range(group.starts):
            async with AsyncExitStack() as stack:
                runs: dict[str, Running] = {}
                for each in everyone:
                    share = _PEERS_SHARE if each in PEERS else 1.0
                    contender = started(each, folder, upstream_port, share=share)
                    runs[each.name] = await stack.enter_async_context(contender)
                await _measure_group(group, runs, rounds)


async def _measure_group(group: _Group, runs: dict[str, Running], rounds: dict[str, list[Figures]]) -> None:
    for run in runs.values():
        for size in ("large", "small"):
            await run.calls("short", _WARM_UP_CALLS, 4, size)
    for number in range(group.rounds):
        names = list(runs) if number % 2 == 0 else list(reversed(runs))
        figures: dict[str, Figures] = {name: {} for name in names}
        for measure in group.measures:
            for name in names:
                figures[name].update(await measure(runs[name]))
        if number < group.paced_rounds:
            paced = [SCENARIOS["paced"](runs[name]) for name in names]
            found = [await each for each in paced] if group.is_sequential else await asyncio.gather(*paced)
            for name, each in zip(names, found, strict=True):
                figures[name].update(each)
        for name in names:
            rounds[name].append(figures[name])


async def _request(run: Running) -> Figures:
    return {"request, ms": await run.calls("short", 80, 4, "large") * 1e3}


async def _thinking(run: Running) -> Figures:
    return {"request with thinking, ms": await run.calls("short", 40, 4, "thinking") * 1e3}


async def _reordered(run: Running) -> Figures:
    return {"request in another order, ms": await run.calls("short", 40, 4, "reordered") * 1e3}


async def _whole(run: Running) -> Figures:
    return {"request, not streamed, ms": await run.calls("short", 40, 4, "large", stream=False) * 1e3}


async def _small(run: Running) -> Figures:
    run.figures["small_s"] = small_s = await run.calls("short", 100, 4)
    return {"small request, ms": small_s * 1e3}


def _burst(connections: int, count: int) -> _Measure:
    async def measure(run: Running) -> Figures:
        burst_s = await run.calls("burst", count, connections)
        return {f"burst of {connections}, µs a chunk": per_chunk(run, burst_s, "burst")}

    return measure


async def _reasoning(run: Running) -> Figures:
    return {"reasoning, µs a chunk": per_chunk(run, await run.calls("reasoning", 16, 4), "reasoning")}


async def _tool_call(run: Running) -> Figures:
    return {"tool call, ms": (await run.calls("tool", 4, 2) - run.figures["small_s"]) * 1e3}


@dataclass(frozen=True)
class _Group:
    """Contenders that run at the same time.

    Attributes:
        names: names of the contenders.
        starts: number of starts of each contender: processes that run the same code differ by some per cent, in bursts
            by a fifth.
        rounds: rounds per start. Each measures every contender once, in the reverse order of the round before.
        is_sequential: paced streams run through one contender after the other.
    """

    names: tuple[str, ...]
    measures: tuple[_Measure, ...]
    starts: int
    rounds: int
    paced_rounds: int
    is_sequential: bool = False


_GROUPS = (
    _Group(
        ("pass-through", "direct", "translated"),
        (
            _request,
            _thinking,
            _reordered,
            _whole,
            _small,
            _burst(1, 24),
            _burst(16, 48),
            _burst(64, 64),
            _reasoning,
            _tool_call,
        ),
        starts=8,
        rounds=4,
        paced_rounds=2,
    ),
    # The protocols of upstreams.
    _Group(
        ("translated", "responses", "gemini"),
        (_request, _small, _burst(1, 24), _burst(16, 48), _reasoning),
        starts=4,
        rounds=4,
        paced_rounds=2,
    ),
    # Added latency, which the streams of other contenders would hide.
    _Group(("nginx", "direct", "translated"), (), starts=3, rounds=2, paced_rounds=2, is_sequential=True),
    # What TLS towards the upstream costs.
    _Group(
        ("direct", "direct TLS", "translated", "translated TLS"),
        (_request, _small),
        starts=3,
        rounds=3,
        paced_rounds=3,
        is_sequential=True,
    ),
    # The paced streams keep half a core busy in LiteLLM.
    _Group(
        ("translated", "LiteLLM translated"),
        (_request, _small),
        starts=2,
        rounds=6,
        paced_rounds=4,
        is_sequential=True,
    ),
)
