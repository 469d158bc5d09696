"""Contenders whose ratio is near its limit, side by side.

A shared machine runs at one speed in this minute and at another in the next. Between contenders that are measured one
after the other that makes ratios uncertain by a tenth and more: enough where one costs a hundredth of the other, too
much where a tenth decides. So these stand side by side, and small batches of calls go to one after the other within a
second. All are started anew several times, since the same code is not as fast in each process that runs it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from bench.contenders import BASELINES, OURS, PEERS, SWITCHED
from bench.scenarios import SCENARIOS, Figures, Running, flowing, per_chunk, started
from bench.switched import SWITCH, TAKE_TURNS, TURNS

__all__ = ["side_by_side"]

#: Calls ahead of all that is measured.
_WARMING = 200
#: How often the daemon is started whose observers are switched, and how long it may take over its list of turns.
_STARTS, _SETTLE_S = 3, 0.5
#: How long paced streams take one way before they take the other: long enough for 200 chunks.
_PACED_TURN_S = 0.25
#: Of the calls, those that a peer is asked: each takes long enough to be measured few.
_PEERS_SHARE = 0.3

_Measure = Callable[[Running], Awaitable[Figures]]


async def side_by_side(
    folder: Path, upstream_port: int, groups: list[dict[str, list[Figures]]], *, with_peers: bool
) -> None:
    """Measure; `groups` is filled on the way: of each group the rounds, by contender."""
    for group in _GROUPS:
        everyone = [each for each in (*BASELINES, *OURS, *PEERS) if each.name in group.names]
        if any(each in PEERS for each in everyone) and not with_peers:
            continue
        why = next((f"{each.name}: {each.missing()}" for each in everyone if each.missing()), None)
        if why is not None:
            print(f"  {' and '.join(group.names)} do not stand side by side: {why}", file=sys.stderr)
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
                await _measured(group, runs, rounds)
    groups.append(await _switched(folder, upstream_port))


async def _switched(folder: Path, upstream_port: int) -> dict[str, list[Figures]]:
    """What a daemon costs with its observers on, and with them off, by turns."""
    rounds: dict[str, list[Figures]] = {"translated": [], "observers off": []}
    for _ in range(_STARTS):
        async with started(SWITCHED, folder, upstream_port) as run:
            for size in ("large", "small"):
                await run.calls("short", _WARMING, 4, size)
            await asyncio.sleep(1.0)  # what these calls have caused is done
            small_s = [
                statistics.median(each) for each in zip(*await _turns(run, "short", 4, 12), strict=True)
            ]
            for pair in await _turns(run, "short", 4, 60, "large"):
                for each, call_s in zip(rounds.values(), pair, strict=True):
                    each.append({"request, ms": call_s * 1e3})
            for pair in await _turns(run, "burst", 16, 16):
                for each, call_s, short_s in zip(rounds.values(), pair, small_s, strict=True):
                    run.figures["small_s"] = short_s
                    each.append({"burst of 16, µs a chunk": per_chunk(run, call_s, "burst")})
            for pair in await _paced_turns(run, 60):
                for each, chunk_us in zip(rounds.values(), pair, strict=True):
                    each.append({"paced, µs a chunk": chunk_us})
    return rounds


async def _turns(
    run: Running, answer: str, connections: int, seconds: float, size: str = "small"
) -> list[tuple[float, float]]:
    """CPU seconds of a call with observers on and with them off, of turns that follow each other."""
    run.process.signal(TAKE_TURNS)
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        await run.calls(answer, 400, connections, size)
    run.process.signal(TAKE_TURNS)
    await asyncio.sleep(_SETTLE_S)
    batches = json.loads((run.process.folder / TURNS).read_text())
    on_calls = sum(calls for is_on, _, calls, _, _ in batches if is_on)
    written_s = sum(written_ns for *_, written_ns in batches) / on_calls / 1e9
    turns = [
        (is_on, cpu_ns / calls / 1e9 + (written_s if is_on else 0.0))
        for is_on, is_second, calls, cpu_ns, _ in batches
        if is_second
    ]
    return [
        (one[1], other[1]) if one[0] else (other[1], one[1])
        for one, other in zip(turns[::2], turns[1::2], strict=False)
    ]


async def _paced_turns(run: Running, seconds: float) -> list[tuple[float, float]]:
    """CPU µs of a paced chunk with observers on and with them off, of turns that follow each other."""
    turns: list[float] = []
    async with flowing(run, streams=16, rate=50, size="small") as delays_ns:
        for _ in range(2 * round(seconds / _PACED_TURN_S / 2)):  # it ends as it began: with observers on
            before_s, chunks = run.process.cpu_s(), len(delays_ns)
            await asyncio.sleep(_PACED_TURN_S)
            turns.append((run.process.cpu_s() - before_s) / (len(delays_ns) - chunks) * 1e6)
            run.process.signal(SWITCH)
    return list(zip(turns[::2], turns[1::2], strict=True))


async def _measured(group: _Group, runs: dict[str, Running], rounds: dict[str, list[Figures]]) -> None:
    for run in runs.values():
        for size in ("large", "small"):
            await run.calls("short", _WARMING, 4, size)
    for number in range(group.rounds):
        names = list(runs) if number % 2 == 0 else list(reversed(runs))
        figures: dict[str, Figures] = {name: {} for name in names}
        for measure in group.measures:
            for name in names:
                figures[name].update(await measure(runs[name]))
        if number < group.paced_rounds:
            paced = [SCENARIOS["paced"](runs[name]) for name in names]
            found = [await each for each in paced] if group.takes_turns else await asyncio.gather(*paced)
            for name, each in zip(names, found, strict=True):
                figures[name].update(each)
        for name in names:
            rounds[name].append(figures[name])


async def _request(run: Running) -> Figures:
    return {"request, ms": await run.calls("short", 80, 4, "large") * 1e3}


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
    """Those that stand side by side.

    Attributes:
        names: of the contenders.
        starts: of every contender: two of the same code differ by some per cent, in bursts by a fifth, for as long as
            they live.
        rounds: of a start. In each, every contender is measured once; the next goes through them the other way round.
        takes_turns: their paced streams do not flow at the same time.
    """

    names: tuple[str, ...]
    measures: tuple[_Measure, ...]
    starts: int
    rounds: int
    paced_rounds: int
    takes_turns: bool = False


_GROUPS = (
    _Group(
        ("pass-through", "direct", "translated"),
        (_request, _whole, _small, _burst(1, 24), _burst(16, 48), _burst(64, 64), _reasoning, _tool_call),
        starts=8,
        rounds=4,
        paced_rounds=2,
    ),
    # For the latency they add, which streams of others beside them would hide.
    _Group(("nginx", "direct", "translated"), (), starts=3, rounds=2, paced_rounds=2, takes_turns=True),
    # LiteLLM keeps half a core busy with the streams that cost us a twentieth of one.
    _Group(
        ("translated", "LiteLLM translated"),
        (_request, _small),
        starts=2,
        rounds=6,
        paced_rounds=4,
        takes_turns=True,
    ),
)
