"""Contenders that cost nearly the same, side by side.

A shared machine runs at one speed in this minute and at another in the next. Between contenders that are measured one
after the other that makes ratios uncertain by a tenth and more: enough where one costs a twentieth of the other, too
much where it costs a twentieth less. So these stand side by side, and small batches of calls go to one after the other
within a second; their paced streams flow at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from bench.contenders import BASELINES, OURS, VARIANTS
from bench.scenarios import SCENARIOS, Figures, Running, per_chunk, started

__all__ = ["side_by_side"]

_NAMES = ("pass-through", "direct", "translated", "translated bare")
#: In each, every contender is measured once; the next goes through them the other way round.
_ROUNDS, _PACED_ROUNDS = 24, 8
#: Calls ahead of all that is measured.
_WARMING = 200


async def side_by_side(folder: Path, upstream_port: int, rounds: dict[str, list[Figures]]) -> None:
    """Measure; `rounds` is filled on the way, by contender."""
    runs: dict[str, Running] = {}
    async with AsyncExitStack() as stack:
        for each in (*BASELINES, *OURS, *VARIANTS):
            if each.name in _NAMES:
                runs[each.name] = await stack.enter_async_context(started(each, folder, upstream_port))
        for run in runs.values():
            for size in ("large", "small"):
                await run.calls("short", _WARMING, 4, size)
        rounds.update({name: [{} for _ in range(_ROUNDS)] for name in runs})
        for number in range(_ROUNDS):
            names = list(runs) if number % 2 == 0 else list(reversed(runs))
            for measure in _MEASURES:
                for name in names:
                    rounds[name][number].update(await measure(runs[name]))
            if number < _PACED_ROUNDS:
                found = await asyncio.gather(*(SCENARIOS["paced"](runs[name]) for name in names))
                for name, figures in zip(names, found, strict=True):
                    rounds[name][number].update(figures)


async def _request(run: Running) -> Figures:
    return {"request, ms": await run.calls("short", 40, 4, "large") * 1e3}


async def _whole(run: Running) -> Figures:
    return {"request, not streamed, ms": await run.calls("short", 40, 4, "large", stream=False) * 1e3}


async def _small(run: Running) -> Figures:
    run.figures["small_s"] = small_s = await run.calls("short", 100, 4)
    return {"small request, ms": small_s * 1e3}


async def _burst(run: Running) -> Figures:
    return {"burst of 16, µs a chunk": per_chunk(run, await run.calls("burst", 48, 16), "burst")}


_MEASURES: tuple[Callable[[Running], Awaitable[Figures]], ...] = (_request, _whole, _small, _burst)
