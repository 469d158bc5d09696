"""The scenarios: load on a running contender, and the figures measured.

The text of every response is checked. CPU time is that of the contender's process tree. The cost of a chunk is the cost
of a stream minus that of a short one, or the CPU time of a period in which streams are open and nothing else happens.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import monotonic, monotonic_ns

from bench.contenders import Contender
from bench.load import Client, Response, raw_request
from bench.processes import Process
from bench.traffic import PACED, RESPONSES, STAMP, Content, bodies
from tests.support.paths import ROOT
from tests.support.ports import free_port

__all__ = [
    "SCENARIOS",
    "Figures",
    "Running",
    "WrongResponse",
    "per_chunk",
    "started",
    "started_upstream",
    "until_ready",
]

#: name of a figure, with its unit -> value
Figures = dict[str, float]

#: Streams opened concurrently.
_OPENING = 16
#: Calls, and seconds of rest after them, before anything is measured: work that a process does once, such as creating a
#: file or running code for the first time, is no part of the cost of a call.
_WARM_UP_CALLS, _SETTLE_S = 100, 1.5
#: The median of this many batches counts.
_BATCHES = 3
#: Timeout of any wait of a scenario.
_LIMIT_S = 240.0


class WrongResponse(Exception):
    """A client received something else than the upstream had sent."""


@dataclass
class Running:
    """A contender that is ready.

    Attributes:
        window_s: how long paced streams are measured.
        share: fraction of the full number of calls; `open_share` is that of open streams.
        headers: that all requests have besides those of Claude Code.
    """

    process: Process
    port: int
    upstream_port: int
    window_s: float
    share: float = 1.0
    open_share: float = 1.0
    headers: Mapping[str, str] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)

    async def calls(
        self, name: str, count: int, connections: int, size: str = "small", *, stream: bool = True
    ) -> float:
        """Make calls, one at a time per connection; return CPU seconds per call."""
        count = max(connections, round(count * self.share))
        raws = cycle(self.raw_requests(name, size, stream=stream))
        expected = RESPONSES[name].expected()
        clients = await asyncio.gather(*(Client.connect(self.port) for _ in range(connections)))
        # One call each, so that the connections to the upstream exist too.
        await asyncio.gather(*(client.request(next(raws)) for client in clients))
        remaining = iter(range(count))
        responses: list[Response] = []

        async def work(client: Client) -> None:
            while next(remaining, None) is not None:
                responses.append(await client.request(next(raws)))

        before = self.process.cpu_s()
        await asyncio.wait_for(asyncio.gather(*map(work, clients)), _LIMIT_S)
        cpu_s = self.process.cpu_s() - before
        for client in clients:
            client.close()
        for response in responses:
            _check(name, response, expected, is_stream=stream)
        return cpu_s / len(responses)

    def raw_requests(self, name: str, size: str = "small", *, stream: bool = True) -> list[bytes]:
        """Build the requests of a client, in order."""
        return [
            raw_request(self.port, body, more=self.headers)
            for body in bodies(f"bench-{name}", size, stream=stream)
        ]

    async def cost(
        self, name: str, count: int, connections: int, size: str = "small", *, stream: bool = True
    ) -> float:
        """Return CPU seconds per call like `calls`, as the median of several batches: other load on the machine may
        last longer than one batch.
        """
        return statistics.median(
            [await self.calls(name, count, connections, size, stream=stream) for _ in range(_BATCHES)]
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
    """Run `contender` in its own process with its own folder below `folder`; yield when it is ready.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    own_folder, port = Path(tempfile.mkdtemp(dir=folder)), free_port()
    launch = contender.start(own_folder, port, upstream_port)
    process = Process(launch.command, own_folder, launch.environment, own_folder / "log")
    try:
        await until_ready(process, port, contender.start_s, contender.headers)
        yield Running(process, port, upstream_port, window_s, share, open_share, contender.headers)
    finally:
        process.stop()


@asynccontextmanager
async def started_upstream(folder: Path) -> AsyncIterator[int]:
    """Run the scripted upstream in its own process; yield its port when it is ready."""
    port = free_port()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "bench.upstream", str(port))
    upstream = Process(command, folder, environment, folder / "upstream.log")
    try:
        await until_ready(upstream, port, 20)
        yield port
    finally:
        upstream.stop()


async def until_ready(
    process: Process, port: int, limit_s: float, headers: Mapping[str, str] | None = None
) -> None:
    """Repeat a small call until it succeeds."""
    raw = raw_request(port, bodies("bench-short")[0], more=headers)
    deadline = monotonic() + limit_s
    while monotonic() < deadline:
        if process.has_ended:
            break
        try:
            client = await Client.connect(port)
            response = await asyncio.wait_for(client.request(raw), 10)
            client.close()
            if response.status == 200:
                return
        except (OSError, asyncio.TimeoutError):
            pass
        await asyncio.sleep(0.05)
    raise RuntimeError(f"it was not ready within {limit_s:g} s: {process.log_tail()}")


def _check(name: str, response: Response, expected: Content, *, is_stream: bool) -> None:
    body = response.body()
    if response.status != 200:
        raise WrongResponse(f"{name}: status {response.status}: {body[:300]!r}")
    received = Content.of_stream(body) if is_stream else Content.of_message(body)
    if received != expected:
        raise WrongResponse(
            f"{name}: {len(received.text)} characters, {len(received.thinking)} of thinking, "
            f"{len(received.arguments)} of arguments, not {len(expected.text)}, {len(expected.thinking)}, "
            f"{len(expected.arguments)}; the message {'ended' if received.is_complete else 'was truncated'}"
        )


async def requests(run: Running) -> Figures:
    """Short responses to 137 KB requests and to small ones, streamed and not."""
    for size in ("large", "small"):
        await run.calls("short", _WARM_UP_CALLS, 4, size)
    await asyncio.sleep(_SETTLE_S)
    large_s = await run.cost("short", 200, 4, "large")
    run.figures["small_s"] = small_s = await run.cost("short", 400, 4)
    unstreamed_s = await run.cost("short", 150, 4, "large", stream=False)
    thinking_s = await run.cost("short", 150, 4, "thinking")
    reordered_s = await run.cost("short", 150, 4, "reordered")
    return {
        "request, ms": large_s * 1e3,
        "request with thinking, ms": thinking_s * 1e3,
        "request in another order, ms": reordered_s * 1e3,
        "small request, ms": small_s * 1e3,
        "request, not streamed, ms": unstreamed_s * 1e3,
    }


async def bursts(run: Running) -> Figures:
    """300 chunks without pauses."""
    figures: Figures = {}
    for connections in (1, 16, 64):
        call_s = await run.cost("burst", 100 if connections < 64 else 128, connections)
        figures[f"burst of {connections}, µs a chunk"] = per_chunk(run, call_s, "burst")
    return figures


async def kinds(run: Running) -> Figures:
    """Reasoning before text, and a tool call of 20 KB in 5000 fragments."""
    reasoning_s = await run.calls("reasoning", 80, 4)
    tool_s = await run.calls("tool", 12, 2)
    return {
        "reasoning, µs a chunk": per_chunk(run, reasoning_s, "reasoning"),
        "tool call, ms": (tool_s - run.figures["small_s"]) * 1e3,
    }


async def growth(run: Running) -> Figures:
    """Cost of long streams relative to short ones; 1 means linear growth."""

    async def ratio(long: str, short: str, short_calls: int) -> float:
        """Median of the ratios of consecutive pairs, which are measured at the same speed of the machine."""
        ratios = []
        for _ in range(_BATCHES):
            short_us = per_chunk(run, await run.calls(short, short_calls, 1), short)
            ratios.append(per_chunk(run, await run.calls(long, 1, 1), long) / short_us)
        return statistics.median(ratios)

    return {
        "100 000 chunks : 100 × 1000": await ratio("chunks-100k", "chunks-1k", 30),
        "400 000 fragments : 10 × 40 000": await ratio("fragments-400k", "fragments-40k", 4),
    }


def per_chunk(run: Running, call_s: float, name: str) -> float:
    """Return the cost of a chunk of the response `name` in µs, given the cost of a call."""
    return (call_s - run.figures["small_s"]) / RESPONSES[name].chunk_count * 1e6


async def paced(run: Running) -> Figures:
    """16 streams of 50 chunks a second."""
    measured = await _measure_paced(run, streams=16, rate=50, size="small")
    return {
        "paced, µs a chunk": measured.chunk_us,
        "added latency p50, ms": measured.p50_ms,
        "added latency p99, ms": measured.p99_ms,
    }


async def open_500(run: Running) -> Figures:
    """500 open streams of 4 chunks a second, each started by a 137 KB request."""
    return await _open(run, 500)


async def open_1000(run: Running) -> Figures:
    """As `open_500`, with 1000 streams."""
    return await _open(run, 1000)


async def _open(run: Running, streams: int) -> Figures:
    streams = max(50, round(streams * run.open_share))
    before = run.process.rss_bytes()
    measured = await _measure_paced(run, streams=streams, rate=4, size="large")
    return {
        f"{streams} open, µs a chunk": measured.chunk_us,
        f"{streams} open, p50, ms": measured.p50_ms,
        f"{streams} open, p99, ms": measured.p99_ms,
        f"{streams} open, RSS, MB": measured.rss_bytes / 1e6,
        f"{streams} open, KB a stream": (measured.rss_bytes - before) / streams / 1e3,
    }


@dataclass
class _PacedFigures:
    chunk_us: float
    p50_ms: float
    p99_ms: float
    rss_bytes: int


async def _measure_paced(run: Running, *, streams: int, rate: int, size: str) -> _PacedFigures:
    """Measure paced streams for `run.window_s`."""
    async with open_streams(run, streams=streams, rate=rate, size=size) as delays_ns:
        before_s, started_at = run.process.cpu_s(), monotonic()
        await asyncio.sleep(run.window_s)
        cpu_s, seconds = run.process.cpu_s() - before_s, monotonic() - started_at
        delays = sorted(delays_ns)
        rss = run.process.rss_bytes()
    if len(delays) < streams * rate * seconds / 4:
        raise WrongResponse(f"{PACED}: {len(delays)} chunks in {seconds:.1f} s")
    return _PacedFigures(
        chunk_us=cpu_s / len(delays) * 1e6,
        p50_ms=statistics.median(delays) / 1e6,
        p99_ms=delays[int(len(delays) * 0.99)] / 1e6,
        rss_bytes=rss,
    )


@asynccontextmanager
async def open_streams(run: Running, *, streams: int, rate: int, size: str) -> AsyncIterator[list[int]]:
    """Open paced streams of `rate` chunks a second each; yield a growing list of the chunks' latencies in ns. At the
    end the streams finish, and each is checked.
    """
    raws = cycle(run.raw_requests(f"{PACED}-{rate}", size))
    delays_ns: list[int] = []

    def on_data(data: bytes, now_ns: int) -> None:
        delays_ns.extend(now_ns - int(match[2]) for match in STAMP.finditer(data))

    clients: list[Client] = []
    responses: list[Response] = []
    remaining = iter(range(streams))
    # Spread evenly over the time between two chunks, like streams of different upstreams. Streams that start together
    # stay together, and chunks that arrive together cost half as much.
    started_at, interval_s = monotonic(), 1 / rate / streams

    async def open_some() -> None:
        for number in remaining:
            await asyncio.sleep(max(0.0, started_at + number * interval_s - monotonic()))
            client = await Client.connect(run.port)
            clients.append(client)
            response = client.send(next(raws), on_data)
            responses.append(response)
            await response.started

    await asyncio.wait_for(asyncio.gather(*(open_some() for _ in range(_OPENING))), _LIMIT_S)
    await asyncio.sleep(0.5)  # let the work of opening them finish
    delays_ns.clear()
    yield delays_ns
    control = await Client.connect(run.upstream_port)
    await control.request(raw_request(run.upstream_port, b"{}", "/finish"))
    control.close()
    await asyncio.wait_for(asyncio.gather(*(response.done for response in responses)), _LIMIT_S)
    for client in clients:
        client.close()
    for response in responses:
        _check_paced(response)


def _check_paced(response: Response) -> None:
    body = response.body()
    if response.status != 200:
        raise WrongResponse(f"{PACED}: status {response.status}: {body[:300]!r}")
    received = Content.of_stream(body)
    text = received.text.encode()
    numbers = [int(number) for number, _ in STAMP.findall(text)]
    if not received.is_complete or numbers != list(range(len(numbers))) or STAMP.sub(b"", text):
        raise WrongResponse(f"{PACED}: a chunk or the end is missing, doubled or altered")


async def huge(run: Running) -> Figures:
    """2 MB requests: their CPU time, and how long they block other connections (median of the longest waits)."""
    cpu_s = await run.calls("short", 6, 1, "huge")
    (raw,) = run.raw_requests("short", "huge")
    probe_raw = raw_request(run.port, b"", "/healthz", "GET")
    client, probe = await Client.connect(run.port), await Client.connect(run.port)
    longest: list[float] = []
    for _ in range(7):
        response = client.send(raw)
        worst = 0.0
        while not response.done.done():
            sent_at = monotonic_ns()
            await probe.request(probe_raw)
            worst = max(worst, (monotonic_ns() - sent_at) / 1e6)
            await asyncio.sleep(0.0005)
        _check("short", response, RESPONSES["short"].expected(), is_stream=True)
        longest.append(worst)
    client.close()
    probe.close()
    return {"2 MB request, ms": cpu_s * 1e3, "2 MB request, blocked for, ms": statistics.median(longest)}


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
