"""``python -m tests.system.soak [SECONDS]``: many streams with all kinds of faults against the real process.

Each call has a plan, drawn from its number alone, that the upstream and the client both know: mode, streaming or not,
what breaks and where, whether the client leaves or reads slowly. Meanwhile the configuration is reloaded every two
seconds, and at the end the daemon is told to stop while streams are open. Checked:

- a response that nothing breaks is complete and equal to what was sent; any other ends in one legal error;
- memory, descriptors, tasks, connections and calls return to where they were;
- every line of the log is of a kind that the plans explain, and none is an error.

It stops by itself, prints its figures, and exits with 1 if anything was not so.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.daemon_process import Process, process, write_models
from tests.support.raw_sockets import Fault, Pause, RawClient, RawResponse, RawUpstream, Step, post
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge

CONCURRENT = 200
DEFAULT_S = 600.0
RELOAD_EVERY_S = 2.0
#: Growth that is no leak: the allocator's own ups and downs.
MAX_GROWTH_KIB = 20 * 1024
MAX_NEW_FILES = 8
MAX_NEW_TASKS = 2
#: What the plans explain in the log.
EXPLAINED = {
    "call.finished",
    "upstream.retry",
    "upstream.bad_reply",
    "circuit.changed",
    "config.reloaded",
    "state.daemon",
    "state.call",
    "state.circuit",
    "server.started",
    "server.stopping",
    "server.draining",
    "server.stopped",
    "loop.late",
    "hook.slow",
}
SETTINGS = {
    "idle_s": 8.0,
    "first_byte_s": 15.0,
    "ping_s": 0.4,
    "circuit_open_s": 0.5,
    "max_streams": 1000,
    "idle_connection_s": 15.0,
}
#: One answer, however busy the machine is.
ANSWER_BOUND_S = 90.0
#: Longer than connections to the upstream are kept after their last use.
POOL_S = 20.0
#: At the stop: so many streams are open; their upstream goes on once the daemon is stopping.
FIRST_OF_DRAIN, DRAINED = 1_000_000_000, 60
#: What keeps a stream that waits for the stop from being idle.
KEEP_OPEN = {"translated": b": ping\n\n", "direct": b'event: ping\ndata: {"type":"ping"}\n\n'}
BREAKS = ("none", "reset", "close", "stall", "garbage", "refuse_500", "refuse_429", "dead_before_head")


@dataclass(frozen=True)
class Plan:
    """The faults of one call."""

    number: int
    mode: str
    is_stream: bool
    breaks: str
    place: int
    repeat: int
    pause_s: float
    client: str
    is_hooked: bool = False
    request_bytes: int = 0

    @classmethod
    def of(cls, number: int) -> Plan:
        draw = random.Random(number)
        mode = draw.choice(("translated", "direct"))
        if number >= FIRST_OF_DRAIN:
            return cls(number, mode, True, "none", place=0, repeat=5, pause_s=0.0, client="reads")
        return cls(
            number,
            mode,
            is_stream=mode == "direct" or draw.random() < 0.8,
            breaks=draw.choices(BREAKS, (70, 6, 6, 3, 5, 4, 3, 3))[0],
            place=draw.randrange(len(TRANSLATED)),
            repeat=draw.choice((1, 1, 5, 50, 200)),
            pause_s=draw.choice((0.0, 0.01, 0.05, 0.2)),
            client=draw.choices(("reads", "leaves", "reads_slowly"), (85, 10, 5))[0],
            is_hooked=draw.random() < 0.25,
            request_bytes=draw.choice((0, 0, 0, 0, 0, 1000, 20_000, 140_000)),
        )

    @property
    def text(self) -> str:
        return f"Answer {self.number}. "

    def frames(self) -> list[bytes]:
        frames = list((TRANSLATED if self.mode == "translated" else DIRECT).values())
        frames[3] = frames[3].replace(b"I will ", self.text.encode())
        return [*frames[:4], *[frames[4]] * self.repeat, *frames[5:]]

    def steps(self) -> Iterable[Step]:
        if self.breaks == "dead_before_head":
            return [Fault.CLOSE]
        if self.breaks.startswith("refuse"):
            body = b'{"error":{"message":"not today"}}'
            status = self.breaks.partition("_")[2].encode()
            return [b"HTTP/1.1 %s No\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)]
        frames = self.frames()
        if self.breaks == "none":
            return [
                CHUNKED,
                as_chunks(*frames[:3]),
                Pause(self.pause_s),
                as_chunks(*frames[3:]),
                b"0\r\n\r\n",
            ]
        begun = as_chunks(*frames[: self.place])
        if self.breaks == "garbage":
            return [CHUNKED, begun, b"what?\r\n", Fault.CLOSE]
        return [
            CHUNKED,
            begun,
            Pause(self.pause_s),
            {"reset": Fault.RESET, "close": Fault.CLOSE, "stall": Fault.STALL}[self.breaks],
        ]

    def steps_after(self, stop: asyncio.Event) -> Iterable[Step]:
        """Return the steps of a stream that goes on after `stop`."""
        frames = self.frames()
        yield CHUNKED
        yield as_chunks(*frames[:3])
        while not stop.is_set():
            yield as_chunks(KEEP_OPEN[self.mode])
            yield Pause(0.5)
        yield as_chunks(*frames[3:])
        yield b"0\r\n\r\n"

    def request(self) -> bytes:
        messages = [
            {"role": "user", "content": f"plan={self.number}=" + "a word " * (self.request_bytes // 7)}
        ]
        model = f"{self.mode}-hooked" if self.is_hooked else self.mode
        return post({**HELLO, "model": model, "stream": self.is_stream, "messages": messages})


@dataclass
class Soak:
    """The clients of one run, and their findings."""

    upstream: RawUpstream
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    next_number: int = 0
    bytes_read: int = 0
    is_stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def play(self, number: int) -> Iterable[Step]:
        body, self.upstream.bodies[number], self.upstream.heads[number] = (
            self.upstream.bodies[number],
            b"",
            b"",
        )
        plan = Plan.of(int(body.partition(b"plan=")[2].partition(b"=")[0]))
        return plan.steps() if plan.number < FIRST_OF_DRAIN else plan.steps_after(self.is_stopping)

    async def client(self, base: str, until: float) -> None:
        """Run one client after the other until the time is over."""
        while time.monotonic() < until:
            self.next_number += 1
            await self.call(base, Plan.of(self.next_number))

    async def call(self, base: str, plan: Plan) -> None:
        try:
            async with RawClient.to(base) as client:
                await client.send(plan.request())
                if plan.client == "leaves":
                    await asyncio.wait_for(
                        client.reader.read(random.Random(plan.number).randrange(1, 3000)), ANSWER_BOUND_S
                    )
                    client.reset()
                    self.seen["left"] += 1
                    return
                if plan.client == "reads_slowly":
                    await asyncio.sleep(0.3)
                self.judge(plan, await client.response(ANSWER_BOUND_S))
        except Exception as exc:  # any exception is a finding
            self.faults.append(f"{plan}: {type(exc).__name__}: {exc}")

    def judge(self, plan: Plan, response: RawResponse) -> None:
        self.bytes_read += len(response.body)
        outcome = self.outcome(plan, response)
        self.seen[outcome] += 1
        if outcome == "wrong":
            self.faults.append(f"{plan}: {response.status} {response.body[-300:]!r}")

    @staticmethod
    def outcome(plan: Plan, response: RawResponse) -> str:
        if not response.is_whole:
            return "wrong"
        if response.status != 200:
            kind, message = (
                response.error()
                if plan.mode == "translated" or response.body[:8] == b'{"type":'
                else ("as it came", "x")
            )
            is_explained = plan.breaks != "none" or response.status == 529  # an open circuit
            return "refused" if kind and message and is_explained else "wrong"
        if not plan.is_stream:
            text = json.loads(response.body)["content"][1]["text"]
            return "complete" if text == plan.text + "write it." * plan.repeat else "wrong"
        events = response.events()
        end = judge(events)
        if end == "error":
            return "broken, one error event" if plan.breaks != "none" else "wrong"
        if plan.mode == "direct":
            whole = b"".join(plan.frames())
            return "complete" if response.body.replace(KEEP_OPEN["direct"], b"") == whole else "wrong"
        text = "".join(data["delta"].get("text", "") for _, data in events if "delta" in data)
        return "complete" if end and text == plan.text + "write it." * plan.repeat else "wrong"


def resident_kib(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True).stdout)


def open_files(pid: int) -> int:
    """Return 0 where the system does not report it."""
    folder = f"/proc/{pid}/fd"
    return len(os.listdir(folder)) if os.path.isdir(folder) else 0


async def in_flight(daemon: Process, wanted: int) -> dict[str, Any]:
    """Return the daemon's state as soon as it has that many calls in flight.

    Raises:
        AssertionError: it had not within `ANSWER_BOUND_S`.
    """
    deadline, state = time.monotonic() + ANSWER_BOUND_S, None
    while True:
        assert time.monotonic() < deadline, f"{wanted} calls were wanted in flight: {state}"
        times = len(daemon.log("state.daemon")) + 1
        daemon.send(signal.SIGUSR2)
        state = await daemon.says("state.daemon", times)
        if state["calls"] == wanted:
            return state
        await asyncio.sleep(0.2)


async def at_rest(daemon: Process) -> tuple[int, int, dict[str, Any]]:
    """Return memory, descriptors and the daemon's state once no call is in flight."""
    await in_flight(daemon, 0)
    await asyncio.sleep(POOL_S)
    state = await in_flight(daemon, 0)
    return resident_kib(daemon.handle.pid), open_files(daemon.handle.pid), state


async def reload_now_and_then(daemon: Process, folder: Path, soak: Soak, until: float) -> None:
    while time.monotonic() < until:
        await asyncio.sleep(RELOAD_EVERY_S)
        write(folder, soak.upstream, extra=soak.next_number)
        daemon.send(signal.SIGHUP)
        soak.seen["reloads"] += 1


def entries(upstream: RawUpstream, extra: int = 0) -> list[dict[str, Any]]:
    base = f"{upstream.base}/v1"
    return [
        {"model_id": "translated", "api_base": base, "hooks": []},
        {"model_id": "direct", "api_base": base, "direct": True, "hooks": []},
        {"model_id": "translated-hooked", "api_base": base},
        {"model_id": "direct-hooked", "api_base": base, "direct": True},
        {"model_id": f"extra-{extra}", "api_base": base},
    ]


def write_hook(folder: Path) -> None:
    """Write a hook that sees everything and changes nothing, so that output must equal input."""
    (folder / "hooks").mkdir(mode=0o755)
    path = folder / "hooks" / "look.py"
    path.write_text(
        "def request_hook(p):\n    return p\ndef stream_event_hook(event, ctx):\n    return event\n"
    )
    path.chmod(0o644)


def write(folder: Path, upstream: RawUpstream, extra: int) -> None:
    write_models(folder, upstream, *entries(upstream, extra), **SETTINGS)


async def run(seconds: float, folder: Path) -> int:
    write_hook(folder)
    upstream = RawUpstream(lambda number: soak.play(number))
    soak = Soak(upstream)
    async with upstream.running(), process(folder, upstream, *entries(upstream), **SETTINGS) as daemon:

        async def phase(length_s: float) -> None:
            until = time.monotonic() + length_s
            reloads = asyncio.ensure_future(reload_now_and_then(daemon, folder, soak, until))
            await asyncio.gather(*(soak.client(daemon.base, until) for _ in range(CONCURRENT)))
            await reloads

        begun = time.monotonic()
        await phase(seconds / 3)
        warm_kib, warm_files, warm = await at_rest(daemon)
        await phase(seconds * 2 / 3)
        end_kib, end_files, state = await at_rest(daemon)
        took_s = time.monotonic() - begun
        calls = soak.next_number

        before = soak.seen["complete"]
        drained = [
            asyncio.ensure_future(soak.call(daemon.base, Plan.of(FIRST_OF_DRAIN + n))) for n in range(DRAINED)
        ]
        await in_flight(daemon, DRAINED)
        daemon.send(signal.SIGTERM)
        soak.is_stopping.set()
        late = [
            asyncio.ensure_future(soak.call(daemon.base, Plan.of(FIRST_OF_DRAIN + DRAINED + n)))
            for n in range(9)
        ]
        await asyncio.gather(*drained, *late)
        code = await daemon.ended(40)
    finished = soak.seen["complete"] - before
    # Clients that were too late got no connection, or one that was not served: not a finding.
    too_late = [
        fault
        for fault in soak.faults
        if any(sign in fault for sign in ("ConnectionRefused", "ConnectionReset", "0 bytes read"))
        and int(fault.partition("number=")[2].partition(",")[0]) >= FIRST_OF_DRAIN + DRAINED
    ]
    faults = [fault for fault in soak.faults if fault not in too_late]
    unexplained = Counter(
        line["event"] for line in daemon.lines if line["event"] not in EXPLAINED or line["level"] == "error"
    )
    print(
        f"{calls} calls in {took_s:.0f} s, {CONCURRENT} at once, {soak.bytes_read >> 20} MiB read; {dict(soak.seen)}"
    )
    print(
        f"memory {warm_kib} -> {end_kib} KiB, descriptors {warm_files} -> {end_files}, "
        f"tasks {warm['tasks']} -> {state['tasks']}"
    )
    print(f"connections {state['connections']}, calls {state['calls']}")
    print(f"drain: {DRAINED} streams open, {finished} finished; {len(late)} came too late; exit code {code}")
    print(f"log: {dict(Counter(line['event'] for line in daemon.lines))}")
    problems = [
        *faults[:20],
        *(f"{len(faults) - 20} more" for _ in range(len(faults) > 20)),
        *(
            f"log line not explained by any plan: {event} ({count} times)"
            for event, count in unexplained.items()
        ),
        *(["memory has grown"] if end_kib - warm_kib > MAX_GROWTH_KIB else []),
        *(["descriptors have leaked"] if end_files - warm_files > MAX_NEW_FILES else []),
        *(["tasks have leaked"] if state["tasks"] > warm["tasks"] + MAX_NEW_TASKS else []),
        *(["connections or calls are left"] if state["calls"] or state["connections"] else []),
        *([f"exit code {code}"] if code else []),
        *([f"{DRAINED - finished} open streams did not finish at the stop"] if finished < DRAINED else []),
        *(["too few complete answers"] if soak.seen["complete"] < calls / 4 else []),
    ]
    for line in [line for line in daemon.lines if line["event"] in unexplained][:5]:
        print(f"LINE {json.dumps(line)[:2000]}")
    for problem in problems:
        print(f"PROBLEM {problem}")
    print("FAIL" if problems else "PASS")
    return 1 if problems else 0


def main(arguments: list[str]) -> int:
    seconds = float(arguments[0]) if arguments else DEFAULT_S
    with tempfile.TemporaryDirectory(prefix="proxyd-soak-") as folder:
        return asyncio.run(run(seconds, Path(folder).resolve()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
