"""The scenarios: what is done to a running contender, and the figures that come out of it.

Every answer's text is checked. CPU is that of the contender's process tree; what a chunk costs is the cost of a stream
less that of a short one, or the cost of a stretch of time in which streams only flow.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import monotonic, monotonic_ns

from bench.contenders import Contender
from bench.load import Client, Reply, raw_request
from bench.processes import Process
from bench.startup import free_port
from bench.traffic import ANSWERS, PACED, STAMP, Seen, bodies

__all__ = ["SCENARIOS", "Figures", "Running", "WrongAnswer", "per_chunk", "started", "until_ready"]

#: Name of a figure, with its unit -> its value.
Figures = dict[str, float]

#: Streams that are being opened at a time when many are to be open.
_OPENING = 16
#: Calls, and rest behind them, ahead of all that is measured: what a process does once, such as making a file or
#: running code for the first time, is not what a call costs.
_WARMING, _SETTLING_S = 100, 1.5
#: Batches of calls of which the median counts.
_BATCHES = 3
#: Bound on any wait of a scenario.
_LIMIT_S = 240.0


class WrongAnswer(Exception):
    """A client was given something else than the upstream had sent."""


@dataclass
class Running:
    """A contender that answers.

    Attributes:
        window_s: how long paced streams are watched.
        share: 1 for the full number of calls, less for a quick look; `open_share` is that of streams that are open.
    """

    process: Process
    port: int
    upstream_port: int
    window_s: float
    share: float = 1.0
    open_share: float = 1.0
    figures: Figures = field(default_factory=dict)

    async def calls(
        self, answer: str, count: int, connections: int, size: str = "small", *, stream: bool = True
    ) -> float:
        """Make calls, each connection one after the other; returns CPU seconds a call."""
        count = max(connections, round(count * self.share))
        raws = cycle(self.raw_requests(answer, size, stream=stream))
        expected = ANSWERS[answer].expected()
        clients = await asyncio.gather(*(Client.connect(self.port) for _ in range(connections)))
        # Once each, so that connections to the upstream are there, too.
        await asyncio.gather(*(client.ask(next(raws)) for client in clients))
        left = iter(range(count))
        replies: list[Reply] = []

        async def work(client: Client) -> None:
            while next(left, None) is not None:
                reply = await client.ask(next(raws))
                replies.append(reply)

        before = self.process.cpu_s()
        await asyncio.wait_for(asyncio.gather(*map(work, clients)), _LIMIT_S)
        cpu_s = self.process.cpu_s() - before
        for client in clients:
            client.close()
        for reply in replies:
            _check(answer, reply, expected, is_stream=stream)
        return cpu_s / len(replies)

    def raw_requests(self, answer: str, size: str = "small", *, stream: bool = True) -> list[bytes]:
        """What a client sends, in its order."""
        return [raw_request(self.port, body) for body in bodies(f"bench-{answer}", size, stream=stream)]

    async def cost(
        self, answer: str, count: int, connections: int, size: str = "small", *, stream: bool = True
    ) -> float:
        """CPU seconds of a call, as `calls`: the median of several batches, since a machine is busy now and then with
        something else for longer than one of them takes.
        """
        return statistics.median(
            [await self.calls(answer, count, connections, size, stream=stream) for _ in range(_BATCHES)]
        )


@asynccontextmanager
async def started(
    contender: Contender,
    folder: Path,
    upstream_port: int,
    *,
    window_s: float = 3.0,
    share: float = 1.0,
    open_share: float = 1.0,
) -> AsyncIterator[Running]:
    """`contender`, in a process of its own with files of its own below `folder`, as soon as it answers.

    Raises:
        RuntimeError: it does not.
    """
    place, port = Path(tempfile.mkdtemp(dir=folder)), free_port()
    launch = contender.start(place, port, upstream_port)
    process = Process(launch.command, place, launch.environment, place / "log")
    try:
        await until_ready(process, port, contender.start_s)
        yield Running(process, port, upstream_port, window_s, share, open_share)
    finally:
        process.stop()


async def until_ready(process: Process, port: int, limit_s: float) -> None:
    """Ask until an answer comes."""
    raw = raw_request(port, bodies("bench-short")[0])
    deadline = monotonic() + limit_s
    while monotonic() < deadline:
        if process.has_ended:
            break
        try:
            client = await Client.connect(port)
            reply = await asyncio.wait_for(client.ask(raw), 10)
            client.close()
            if reply.status == 200:
                return
        except (OSError, asyncio.TimeoutError):
            pass
        await asyncio.sleep(0.05)
    raise RuntimeError(f"it did not answer within {limit_s:g} s: {process.log_tail()}")


def _check(answer: str, reply: Reply, expected: Seen, *, is_stream: bool) -> None:
    body = reply.body()
    if reply.status != 200:
        raise WrongAnswer(f"{answer}: status {reply.status}: {body[:300]!r}")
    seen = Seen.of_stream(body) if is_stream else Seen.of_message(body)
    if seen != expected:
        raise WrongAnswer(
            f"{answer}: {len(seen.text)} characters, {len(seen.thinking)} of thinking, {len(seen.arguments)} of "
            f"arguments, not {len(expected.text)}, {len(expected.thinking)}, {len(expected.arguments)}; "
            f"the message {'ended' if seen.is_whole else 'was cut'}"
        )


async def requests(run: Running) -> Figures:
    """Short answers: to 137 KB requests, to small ones, and not streamed."""
    for size in ("large", "small"):
        await run.calls("short", _WARMING, 4, size)
    await asyncio.sleep(_SETTLING_S)
    large_s = await run.cost("short", 200, 4, "large")
    run.figures["small_s"] = small_s = await run.cost("short", 400, 4)
    whole_s = await run.cost("short", 150, 4, "large", stream=False)
    return {
        "request, ms": large_s * 1e3,
        "small request, ms": small_s * 1e3,
        "request, not streamed, ms": whole_s * 1e3,
    }


async def bursts(run: Running) -> Figures:
    """300 chunks as fast as they go."""
    figures: Figures = {}
    for connections in (1, 16, 64):
        call_s = await run.cost("burst", 100 if connections < 64 else 128, connections)
        figures[f"burst of {connections}, µs a chunk"] = per_chunk(run, call_s, "burst")
    return figures


async def kinds(run: Running) -> Figures:
    """Reasoning ahead of text, and a tool call of 20 KB in 5000 fragments."""
    reasoning_s = await run.calls("reasoning", 80, 4)
    tool_s = await run.calls("tool", 12, 2)
    return {
        "reasoning, µs a chunk": per_chunk(run, reasoning_s, "reasoning"),
        "tool call, ms": (tool_s - run.figures["small_s"]) * 1e3,
    }


async def growth(run: Running) -> Figures:
    """Whether ten or a hundred times as much costs ten or a hundred times as much: 1 is linear."""

    async def ratio(long: str, short: str, short_calls: int) -> float:
        """Median of pairs that follow each other, which find the machine at one speed."""
        ratios = []
        for _ in range(_BATCHES):
            short_us = per_chunk(run, await run.calls(short, short_calls, 1), short)
            ratios.append(per_chunk(run, await run.calls(long, 1, 1), long) / short_us)
        return statistics.median(ratios)

    return {
        "100 000 chunks : 100 × 1000": await ratio("chunks-100k", "chunks-1k", 30),
        "400 000 fragments : 10 × 40 000": await ratio("fragments-400k", "fragments-40k", 4),
    }


def per_chunk(run: Running, call_s: float, answer: str) -> float:
    """What a chunk of `answer` costs, in µs, where a call costs `call_s`."""
    return (call_s - run.figures["small_s"]) / ANSWERS[answer].chunks * 1e6


async def paced(run: Running) -> Figures:
    """16 streams of 50 chunks a second."""
    watched = await _watch(run, streams=16, rate=50, size="small")
    return {
        "paced, µs a chunk": watched.chunk_us,
        "added latency p50, ms": watched.p50_ms,
        "added latency p99, ms": watched.p99_ms,
    }


async def open_500(run: Running) -> Figures:
    """500 open streams of 4 chunks a second, begun with 137 KB requests."""
    return await _open(run, 500)


async def open_1000(run: Running) -> Figures:
    """The same with 1000."""
    return await _open(run, 1000)


async def _open(run: Running, streams: int) -> Figures:
    streams = max(50, round(streams * run.open_share))
    before = run.process.rss_bytes()
    watched = await _watch(run, streams=streams, rate=4, size="large")
    return {
        f"{streams} open, µs a chunk": watched.chunk_us,
        f"{streams} open, p50, ms": watched.p50_ms,
        f"{streams} open, p99, ms": watched.p99_ms,
        f"{streams} open, RSS, MB": watched.rss_bytes / 1e6,
        f"{streams} open, KB a stream": (watched.rss_bytes - before) / streams / 1e3,
    }


@dataclass
class _Watched:
    chunk_us: float
    p50_ms: float
    p99_ms: float
    rss_bytes: int


async def _watch(run: Running, *, streams: int, rate: int, size: str) -> _Watched:
    """Watch paced streams for a while."""
    async with flowing(run, streams=streams, rate=rate, size=size) as delays_ns:
        before_s, begun = run.process.cpu_s(), monotonic()
        await asyncio.sleep(run.window_s)
        cpu_s, seconds = run.process.cpu_s() - before_s, monotonic() - begun
        delays = sorted(delays_ns)
        rss = run.process.rss_bytes()
    if len(delays) < streams * rate * seconds / 4:
        raise WrongAnswer(f"{PACED}: {len(delays)} chunks in {seconds:.1f} s")
    return _Watched(
        chunk_us=cpu_s / len(delays) * 1e6,
        p50_ms=statistics.median(delays) / 1e6,
        p99_ms=delays[int(len(delays) * 0.99)] / 1e6,
        rss_bytes=rss,
    )


@asynccontextmanager
async def flowing(run: Running, *, streams: int, rate: int, size: str) -> AsyncIterator[list[int]]:
    """Paced streams, `rate` chunks a second each; gives how long each chunk that has come was on its way, in ns. At the
    end they finish, and every one is checked.
    """
    raws = cycle(run.raw_requests(f"{PACED}-{rate}", size))
    delays_ns: list[int] = []

    def on_data(data: bytes, now_ns: int) -> None:
        delays_ns.extend(now_ns - int(match[2]) for match in STAMP.finditer(data))

    clients: list[Client] = []
    replies: list[Reply] = []
    left = iter(range(streams))
    # Evenly over the time between two chunks, as streams of different upstreams are. Those that begin together go on
    # together, and what comes together costs half as much: how many do would be luck.
    opening, apart_s = monotonic(), 1 / rate / streams

    async def open_some() -> None:
        for number in left:
            await asyncio.sleep(max(0.0, opening + number * apart_s - monotonic()))
            client = await Client.connect(run.port)
            clients.append(client)
            reply = client.send(next(raws), on_data)
            replies.append(reply)
            await reply.begun

    await asyncio.wait_for(asyncio.gather(*(open_some() for _ in range(_OPENING))), _LIMIT_S)
    await asyncio.sleep(0.5)  # what the opening has left behind
    delays_ns.clear()
    yield delays_ns
    control = await Client.connect(run.upstream_port)
    await control.ask(raw_request(run.upstream_port, b"{}", "/finish"))
    control.close()
    await asyncio.wait_for(asyncio.gather(*(reply.done for reply in replies)), _LIMIT_S)
    for client in clients:
        client.close()
    for reply in replies:
        _check_paced(reply)


def _check_paced(reply: Reply) -> None:
    body = reply.body()
    if reply.status != 200:
        raise WrongAnswer(f"{PACED}: status {reply.status}: {body[:300]!r}")
    seen = Seen.of_stream(body)
    numbers = [int(number) for number, _ in STAMP.findall(seen.text.encode())]
    if not seen.is_whole or numbers != list(range(len(numbers))) or STAMP.sub(b"", seen.text.encode()):
        raise WrongAnswer(f"{PACED}: a chunk is missing, doubled or altered, or the end is")


async def huge(run: Running) -> Figures:
    """2 MB requests: their CPU, and how long the contender is deaf to others meanwhile (median of the longest)."""
    cpu_s = await run.calls("short", 6, 1, "huge")
    (raw,) = run.raw_requests("short", "huge")
    probe_raw = raw_request(run.port, b"", "/healthz", "GET")
    client, probe = await Client.connect(run.port), await Client.connect(run.port)
    longest: list[float] = []
    for _ in range(7):
        reply = client.send(raw)
        worst = 0.0
        while not reply.done.done():
            asked = monotonic_ns()
            await probe.ask(probe_raw)
            worst = max(worst, (monotonic_ns() - asked) / 1e6)
            await asyncio.sleep(0.0005)
        _check("short", reply, ANSWERS["short"].expected(), is_stream=True)
        longest.append(worst)
    client.close()
    probe.close()
    return {"2 MB request, ms": cpu_s * 1e3, "2 MB request, deaf for, ms": statistics.median(longest)}


SCENARIOS: dict[str, Callable[[Running], Awaitable[Figures]]] = {
    "requests": requests,
    "bursts": bursts,
    "kinds": kinds,
    "paced": paced,
    "open-500": open_500,
    "open-1000": open_1000,
    "huge": huge,
    "growth": growth,
}
