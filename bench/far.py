"""``python -m bench.far``: time to the first byte of calls after pauses, to a far upstream that speaks TLS.

A relay (`bench.far_relay`) adds 100 ms each way, and one round trip for each new connection. The upstream closes
connections that were idle for 60 s. Every contender makes calls of 140 KB, each after a pause; several of each run at
the same time, each with a process and an upstream's connections of its own, since most of the time is pauses.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from time import monotonic

import aiohttp
import httpx2

from bench.certificates import Certificate, make_certificate
from bench.contenders import TLS, Contender, with_tls
from bench.load import Client, raw_request
from bench.processes import Process
from bench.scenarios import started
from bench.traffic import HEADERS, bodies
from tests.support.ports import free_port

_ROOT = Path(__file__).resolve().parents[1]
_DELAY_S = 0.1
_IDLE_S = 60.0
#: The pauses before the calls, and how many calls are made after each.
_PAUSES: dict[float, int] = {0: 6, 1: 6, 20: 4, 70: 3, 200: 2}
_SHORT_PAUSES: dict[float, int] = {0: 4, 1: 3, 20: 2}
#: Contenders of each kind that run at the same time.
_SESSIONS = 3
#: A contender that is a process has been called before, when it was checked that it is ready.
_FIRST = "first"
_PATH = "/v1/messages?beta=true"

#: Makes one call; returns the seconds until the first byte of the response's body.
Call = Callable[[bytes], Awaitable[float]]
#: pause, or `_FIRST` -> seconds until the first byte
Times = dict[str, list[float]]


@asynccontextmanager
async def _with_aiohttp(base: str, certificate: Certificate) -> AsyncIterator[Call]:
    connector = aiohttp.TCPConnector(ssl=certificate.client_context())
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(body: bytes) -> float:
            begun = monotonic()
            async with session.post(base + _PATH, data=body, headers=HEADERS) as response:
                await response.content.readany()
                first = monotonic() - begun
                await response.read()
            return first

        yield call


@asynccontextmanager
async def _with_httpx(base: str, certificate: Certificate) -> AsyncIterator[Call]:
    async with httpx2.AsyncClient(verify=certificate.client_context(), timeout=60) as client:

        async def call(body: bytes) -> float:
            begun = monotonic()
            first = 0.0
            async with client.stream("POST", base + _PATH, content=body, headers=HEADERS) as response:
                async for _ in response.aiter_raw():
                    first = first or monotonic() - begun
            return first

        yield call


@asynccontextmanager
async def _through(contender: Contender, folder: Path, relay_port: int) -> AsyncIterator[Call]:
    async with started(contender, folder, relay_port) as run:

        async def call(body: bytes) -> float:
            client = await Client.connect(run.port)  # the one before is closed after a long pause
            begun = monotonic()
            response = client.send(raw_request(run.port, body))
            await response.started
            first = monotonic() - begun
            await response.done
            if response.status != 200:
                raise ConnectionError(f"status {response.status}: {response.body()[:200]!r}")
            client.close()
            return first

        yield call


async def _session(call: Call, pauses: dict[float, int], times: Times) -> None:
    """Make the calls of one session; the seconds until their first bytes are added to `times`."""
    requests = cycle(bodies("bench-short", "large"))
    times.setdefault(_FIRST, []).append(await call(next(requests)))
    # In turns, so that no pause has only the warmest connections.
    left = dict(pauses)
    while any(left.values()):
        for pause in left:
            if left[pause]:
                left[pause] -= 1
                await asyncio.sleep(pause)
                times.setdefault(f"{pause:g} s", []).append(await call(next(requests)))


async def _measure(folder: Path, pauses: dict[float, int], sessions: int, results: dict[str, Times]) -> None:
    certificate = make_certificate(folder)
    if certificate is None:
        sys.exit("openssl is not installed, so there is no certificate for the upstream")
    plain_port, upstream_port, relay_port = free_port(), free_port(), free_port()
    environment = {"PYTHONPATH": str(_ROOT), "PATH": os.environ.get("PATH", "/usr/bin:/bin")}

    def process(name: str, *arguments: object) -> Process:
        command = (sys.executable, "-m", name, *map(str, arguments))
        return Process(command, folder, environment, folder / f"{name}.log")

    upstream = process(
        "bench.upstream",
        plain_port,
        *("--tls", upstream_port, certificate.path, certificate.key, "--idle-s", _IDLE_S),
    )
    relay = process("bench.far_relay", relay_port, upstream_port, _DELAY_S)
    base = f"https://localhost:{relay_port}"
    ours, peers = with_tls(TLS(relay_port, certificate.path))
    try:
        await _until_listening(relay, relay_port)
        await _until_listening(upstream, upstream_port)
        async with AsyncExitStack() as stack:
            running: list[tuple[str, Call]] = []

            async def add(name: str, calling: AbstractAsyncContextManager[Call]) -> None:
                try:
                    call = await stack.enter_async_context(calling)
                except RuntimeError as exc:
                    print(f"  {name} is skipped: {exc}", file=sys.stderr)
                    return
                running.append((name, call))

            for number in range(sessions):
                await add("no proxy: aiohttp", _with_aiohttp(base, certificate))
                await add("no proxy: httpx", _with_httpx(base, certificate))
                for each in (*ours, *peers):
                    why = each.missing()
                    if why is None:
                        await add(each.name.removesuffix(" TLS"), _through(each, folder, relay_port))
                    elif not number:
                        print(f"  {each.name} is skipped: {why}", file=sys.stderr)
            tasks = []
            for name, call in running:
                tasks.append(asyncio.ensure_future(_session(call, pauses, results.setdefault(name, {}))))
                await asyncio.sleep(0.37)  # so that their calls do not meet
            for (name, _), outcome in zip(
                running, await asyncio.gather(*tasks, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, BaseException):
                    print(f"  {name}: {type(outcome).__name__}: {outcome}", file=sys.stderr)
    finally:
        relay.stop()
        upstream.stop()


async def _until_listening(process: Process, port: int) -> None:
    deadline = monotonic() + 20
    while monotonic() < deadline and not process.has_ended:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError(f"it was not ready within 20 s: {process.log_tail()}")


def _table(results: dict[str, Times]) -> str:
    names = [name for name, times in results.items() if times]
    rows = list(dict.fromkeys(row for name in names for row in results[name]))
    lines = ["| pause |" + "".join(f" {name} |" for name in names), "|---|" + "---:|" * len(names)]
    for row in rows:
        cells = []
        for name in names:
            values = results[name].get(row, [])
            cells.append(
                f"{statistics.median(values):.3f} / {max(values):.3f} ({len(values)})" if values else "–"
            )
        lines.append(f"| {row} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines)


def _verdicts(results: dict[str, Times]) -> str:
    lines = ["| target | | measured | |", "|---|---:|---:|---|"]

    def verdict(label: str, limit: float, values: list[float], others: list[float]) -> None:
        if values and others:
            ratio = statistics.median(values) / statistics.median(others)
            lines.append(
                f"| {label} | ≤ {limit:g} | {ratio:.2f} | {'met' if ratio <= limit else '**missed**'} |"
            )

    straight = results.get("no proxy: aiohttp", {})
    for name in ("translated", "direct"):
        ours = results.get(name, {})
        for row in ours:
            if row == _FIRST:
                continue
            if row != "0 s":
                verdict(f"{name}, after {row} : after 0 s", 1.1, ours[row], ours.get("0 s", []))
            # The proxy's own work, one or two milliseconds, is within the tolerance.
            verdict(f"{name} : no proxy, after {row}", 1.02, ours[row], straight.get(row, []))
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.far", description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="pauses of up to 20 s only: about a minute")
    parser.add_argument("--sessions", type=int, default=_SESSIONS, help=f"of each contender ({_SESSIONS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times to FILE")
    args = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("the benchmark reads CPU and memory from /proc, which only Linux has")
    results: dict[str, Times] = {}
    begun = monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        try:
            asyncio.run(
                _measure(Path(name), _SHORT_PAUSES if args.short else _PAUSES, args.sessions, results)
            )
        except KeyboardInterrupt:
            print("interrupted; these are the results so far", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{datetime.date.today().isoformat()}; seconds to the first byte, median / worst (calls)\n")
    print(_table(results), end="\n\n")
    print(_verdicts(results))
    print(f"\n{monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
