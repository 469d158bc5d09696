"""``python -m tests.system.cluster``: three daemons behind a real HAProxy, with a real PostgreSQL.

300 clients have conversations through HAProxy, whose configuration is that of deploy/; the upstream sends slowly, and
every part of a response is marked with its call. Meanwhile one daemon is killed, another one drains, the database is
restarted, and frozen for 20 s. Promised, and checked (docs/teams.md):

- no stream breaks but those that the killed daemon had; a call is refused only while a daemon goes, and tried again;
- each call that was finished is in the ledger of the database once, and in the usage of its key;
- a budget ends at its limit or above, by no more than docs/teams.md says.

With ``--short`` there are 60 clients and 3 s, which is what CI runs. The last column of the table has the median of
the times to the first byte, and the longest. Exit code 0 when all promises were kept, or when HAProxy or PostgreSQL is
not installed here (1 with ``CLUSTER_REQUIRED=1``); else 1, with a sentence for each that was not.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.postgres import Postgres, running_postgres
from tests.support.raw_sockets import until
from tests.system.cluster.balancer import Balancer, haproxy, running_balancer
from tests.system.cluster.replicas import Budget, Replica, add_keys
from tests.system.cluster.traffic import Call, Traffic, cost_usd

NAMES = ("proxy1", "proxy2", "proxy3")
_BOUND_S = 60.0
_SAMPLE_S = 0.2
#: Keys: of most clients, of the two budgets, and of single calls.
CROWD, SHARED, OUTAGE, WITNESS = "crowd", "shared", "outage", "witness"


@dataclass(frozen=True)
class Size:
    """How large a run is.

    Attributes:
        chunks, pause_s: of each response.
        freeze_s: for how long the database does not respond.
        check_s: between two health checks.
        spenders: clients of each budget.
        budgets: by key.
    """

    streams: int
    chunks: int
    pause_s: float
    freeze_s: float
    check_s: float
    spenders: int
    budgets: dict[str, Budget]


FULL = Size(
    300, 10, 0.4, 20.0, 1.0, 18,
    {SHARED: Budget(40, "calls", 4), OUTAGE: Budget(20 * cost_usd(), "usd", 4)},
)  # fmt: skip
SHORT = Size(
    60, 8, 0.25, 3.0, 0.3, 9,
    {SHARED: Budget(9, "calls", 2), OUTAGE: Budget(6 * cost_usd(), "usd", 2)},
)  # fmt: skip


@dataclass
class Phase:
    """A part of the run, for the table."""

    title: str
    began_at: float
    ended_at: float = 0.0


@dataclass
class Cluster:
    """All of it, while it runs, and what was found.

    Attributes:
        going: from when to when a daemon went, by its name: calls may be refused meanwhile.
        killed_at: when the first daemon was killed.
        settled_at: everything that it had finished by then is in the database.
        lag_s: the longest time that a daemon did not count a call of the shared budget.
        faults: a sentence for each promise that was not kept.
    """

    size: Size
    postgres: Postgres
    store: str
    traffic: Traffic
    replicas: list[Replica]
    balancer: Balancer
    ids: dict[str, str]
    going: list[tuple[float, float]] = field(default_factory=list)
    killed_at: float = 0.0
    settled_at: float = 0.0
    lag_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, is_kept: bool, sentence: str) -> None:
        if not is_kept:
            self.faults.append(sentence)

    def calls(self, condition: Callable[[Call], bool]) -> list[Call]:
        return [call for call in self.traffic.calls if condition(call)]

    def whole(self, key: str) -> list[Call]:
        return self.calls(lambda call: call.key == key and call.outcome == "whole")

    @asynccontextmanager
    async def phase(self, title: str) -> AsyncIterator[None]:
        phase = Phase(title, time.monotonic())
        self.phases.append(phase)
        yield
        phase.ended_at = time.monotonic()
        print(f"{phase.ended_at - phase.began_at:6.1f} s  {title}", flush=True)

    async def busy(self) -> None:
        """Wait until nearly all clients have a stream open; none has one while it sends its next request."""
        await until(lambda: self.traffic.open >= 0.9 * self.size.streams, _BOUND_S)

    async def sql(self, statement: str) -> list[list[str]]:
        text = await asyncio.to_thread(self.postgres.sql, self.store, statement)
        return [line.split("|") for line in text.splitlines()]

    async def used(self, key: str, unit: str = "calls") -> float:
        """Return what the database says a key has used."""
        owner = f"key:{self.ids[key]}"
        ((value,),) = await self.sql(
            f"SELECT coalesce(sum({unit}), 0) FROM usage WHERE period = 'month' AND owner = '{owner}'"
        )
        return float(value)

    async def rows(self) -> Counter[str]:
        """Return how often the ledger has each request id."""
        return Counter(row[0] for row in await self.sql("SELECT request_id FROM calls"))


# -- what happens


async def reach_a_budget(cluster: Cluster) -> None:
    """Let clients of one key call through all daemons until all of them refuse it."""
    async with cluster.phase("all daemons are there; a budget is reached"):
        await cluster.busy()
        watching = asyncio.ensure_future(watch_lag(cluster))
        try:
            await spend(cluster, SHARED, until_s=None)
            await shown_alike(cluster, SHARED)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def watch_lag(cluster: Cluster) -> None:
    """Measure how long it takes until all daemons count a call."""
    while True:
        for replica in cluster.replicas:
            counted = int(await replica.used(SHARED))
            ends = sorted(call.ended_at for call in cluster.whole(SHARED))
            if counted < len(ends):
                cluster.lag_s = max(cluster.lag_s, time.monotonic() - ends[counted])
        await asyncio.sleep(_SAMPLE_S)


async def kill_one(cluster: Cluster) -> None:
    victim = cluster.replicas[0]
    async with cluster.phase("kill -9 of one daemon, which is started again"):
        await cluster.busy()
        cluster.settled_at = time.monotonic()
        witness = await cluster.traffic.once(victim.base, WITNESS)

        async def is_stored() -> bool:
            return await cluster.used(WITNESS) >= 1 and (await cluster.rows())[witness.request_id] == 1

        await eventually(is_stored, "the database has what a daemon finished")
        await asyncio.sleep(
            random.random()
        )  # else it would always be killed right after an exchange with the database
        cluster.killed_at = time.monotonic()
        await victim.kill()
        await cluster.balancer.sees(victim.name, "DOWN")
        cluster.going.append((cluster.killed_at, time.monotonic()))
        await victim.start()
        await cluster.balancer.sees(victim.name, "UP")


async def drain_one(cluster: Cluster) -> None:
    replica = cluster.replicas[1]
    async with cluster.phase("drain of another one, which is started again"):
        await cluster.busy()
        begun_at = time.monotonic()
        code = await replica.drain()
        await cluster.balancer.sees(replica.name, "DOWN")
        cluster.going.append((begun_at, time.monotonic()))
        cluster.check(code == 0, f"a daemon that drained ended with {code}, not 0.")
        cut = replica.log("server.calls_cut")
        cluster.check(not cut, f"a daemon that drained cut calls: {cut}.")
        await replica.start()
        await cluster.balancer.sees(replica.name, "UP")


async def restart_the_database(cluster: Cluster) -> None:
    async with cluster.phase("restart of the database"):
        await cluster.busy()
        before = {replica.name: len(replica.log("keys.store_failed")) for replica in cluster.replicas}
        await asyncio.to_thread(cluster.postgres.stop)
        for replica in cluster.replicas:
            await until(lambda at=replica: len(at.log("keys.store_failed")) > before[at.name], _BOUND_S)
        await asyncio.to_thread(cluster.postgres.start)
        for replica in cluster.replicas:
            await replica.uses_the_store()


async def freeze_the_database(cluster: Cluster) -> None:
    async with cluster.phase(f"freeze of the database, {cluster.size.freeze_s:g} s"):
        await cluster.busy()
        await asyncio.to_thread(cluster.postgres.freeze, is_on=True)
        try:
            await spend(cluster, OUTAGE, until_s=cluster.size.freeze_s)
        finally:
            await asyncio.to_thread(cluster.postgres.freeze, is_on=False)
        for replica in cluster.replicas:
            await replica.uses_the_store()
    async with cluster.phase("afterwards"):
        await spend(cluster, OUTAGE, until_s=None)
        await shown_alike(cluster, OUTAGE)


async def spend(cluster: Cluster, key: str, until_s: float | None) -> None:
    """Let clients use a key for some seconds; or until it has reached its limit and every daemon has refused it."""
    stop, first = asyncio.Event(), len(cluster.traffic.calls)
    clients = [
        asyncio.ensure_future(cluster.traffic.client(cluster.balancer.base, f"{key}{number}", key, stop))
        for number in range(cluster.size.spenders)
    ]

    def is_refused() -> bool:
        refusals = {
            call.replica
            for call in cluster.traffic.calls[first:]
            if call.key == key and call.status == 429 and "has reached its limit of" in call.why
        }
        return refusals == set(NAMES)

    try:
        if until_s is None:
            await until(is_refused, _BOUND_S)
        else:
            await asyncio.sleep(until_s)
    finally:
        stop.set()
        await asyncio.gather(*clients)


async def shown_alike(cluster: Cluster, key: str) -> None:
    """Wait until the database and all daemons say of a key what its clients have used."""
    unit = cluster.size.budgets[key].unit
    each = 1.0 if unit == "calls" else cost_usd()
    wanted = round(len(cluster.whole(key)) * each, 6)

    async def is_known() -> bool:
        shown = [await cluster.used(key, unit), *[await replica.used(key) for replica in cluster.replicas]]
        return {round(value, 6) for value in shown} == {wanted}

    await eventually(is_known, f"all daemons count {wanted:g} {unit} of the key {key!r}")


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition of the database.

    Raises:
        AssertionError: it was not so within a minute.
    """
    deadline = time.monotonic() + _BOUND_S
    while not await condition():
        assert time.monotonic() < deadline, f"not within {_BOUND_S:g} s: {what}"
        await asyncio.sleep(0.3)


# -- what was promised


def check_streams(cluster: Cluster) -> None:
    victim = cluster.replicas[0].name
    broken = cluster.calls(lambda call: call.outcome == "broken")
    lost = [
        call
        for call in broken
        if call.replica == victim and call.began_at < cluster.killed_at < call.ended_at
    ]
    for call in [call for call in broken if call not in lost][:10]:
        cluster.faults.append(f"a stream of {call.replica or 'no daemon'} broke: {call.why} ({call}).")
    cluster.notes.append(
        f"streams: {cluster.traffic.most_open} at once; {len(lost)} broke, of the daemon that was killed"
    )
    not_taken = cluster.calls(lambda call: call.outcome in ("refused", "closed") and call.status != 429)
    causes = Counter(str(call.status or "closed without a byte") for call in not_taken)
    cluster.notes.append(
        f"not taken while a daemon went, and tried again: {len(not_taken)}"
        f" ({', '.join(f'{cause}: {times}' for cause, times in causes.items()) or 'none'})"
    )
    for call in not_taken:
        is_going = any(begin <= call.ended_at and call.began_at <= end for begin, end in cluster.going)
        cluster.check(is_going, f"a call was not taken although all daemons were there: {call}.")
    for call in cluster.traffic.given_up:
        cluster.faults.append(f"a call was tried again and again in vain, at last {call}.")
    cluster.check(
        cluster.traffic.most_open >= 0.9 * cluster.size.streams,
        f"there were only {cluster.traffic.most_open} streams at once.",
    )


async def check_ledger(cluster: Cluster) -> None:
    victim = cluster.replicas[0].name
    finished = cluster.calls(lambda call: call.outcome == "whole")
    late = {
        call.request_id
        for call in finished
        if call.replica in (victim, "") and cluster.settled_at <= call.ended_at <= cluster.killed_at
    }
    missing: set[str] = set()
    rows: Counter[str] = Counter()
    deadline = time.monotonic() + _BOUND_S
    while True:
        rows = await cluster.rows()
        missing = {call.request_id for call in finished if call.request_id not in rows}
        if missing <= late or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    twice = [each for each, times in rows.items() if times > 1]
    cluster.check(
        missing <= late, f"{len(missing - late)} of {len(finished)} finished calls are not in the ledger."
    )
    cluster.check(not twice, f"{len(twice)} calls are in the ledger more than once.")
    used = {key: await cluster.used(key) for key in (CROWD, SHARED, OUTAGE)}
    done = {key: len(cluster.whole(key)) for key in used}
    for key, calls in used.items():
        lost = done[key] - calls
        may_lose = sum(call.request_id in late for call in cluster.whole(key))
        cluster.check(
            0 <= lost <= may_lose,
            f"the key {key!r} has finished {done[key]} calls, and the database counts {calls:g}; "
            f"{may_lose} could be lost by the kill.",
        )
    cluster.notes.append(
        f"ledger: {len(finished)} calls finished, {len(finished) - len(missing)} there, {len(twice)} twice; "
        f"{len(missing)} lost, of {len(late)} that the killed daemon finished in its last "
        f"{cluster.killed_at - cluster.settled_at:.1f} s"
    )
    cluster.notes.append(f"usage: {sum(done.values())} calls finished, {sum(used.values()):g} counted")


def check_budgets(cluster: Cluster) -> None:
    for key, budget in cluster.size.budgets.items():
        each = 1.0 if budget.unit == "calls" else cost_usd()
        used = len(cluster.whole(key)) * each
        if key == SHARED:  # what the others have in flight, and what they finished and we do not know yet
            unknown = 1 + math.ceil(
                (cluster.lag_s + _SAMPLE_S) / (cluster.size.chunks * cluster.size.pause_s)
            )
            most = budget.amount + (len(NAMES) - 1) * unknown * budget.streams * each
        else:  # each daemon by itself, and one call more
            most = len(NAMES) * (budget.amount + each)
        cluster.check(
            used >= budget.amount - 1e-6, f"the key {key!r} was refused at {used:g} of {budget.amount:g}."
        )
        cluster.check(
            used <= most + 1e-6,
            f"the key {key!r} has used {used:g} {budget.unit}, which is more than {most:g}.",
        )
        cluster.notes.append(
            f"budget {key!r}: {budget.amount:g} {budget.unit} a month, used {used:g}, at most {most:g} are promised"
        )
    cluster.notes.append(f"usage was counted by all daemons within {cluster.lag_s:.1f} s")


def check_logs(cluster: Cluster) -> None:
    for replica in cluster.replicas:
        for line in replica.errors():
            cluster.check(
                line["event"] in ("keys.store_failed", "ledger.forward_failed"),
                f"{replica.name} has logged an error: {line}.",
            )


def print_figures(cluster: Cluster) -> None:
    print(f"\n{'':52}{'s':>6}{'calls':>8}{'whole':>8}{'broken':>8}{'again':>8}{'first byte, ms':>18}")
    for phase in cluster.phases:
        calls = cluster.calls(lambda call, at=phase: at.began_at <= call.ended_at < at.ended_at)  # type: ignore[misc]
        kinds = Counter(call.outcome for call in calls if call.status != 429)
        first_ms = sorted((call.first_byte_s or 0.0) * 1000 for call in calls if call.status == 200) or [0.0]
        print(
            f"{phase.title:52}{phase.ended_at - phase.began_at:6.1f}{len(calls):8}{kinds['whole']:8}"
            f"{kinds['broken']:8}{kinds['refused'] + kinds['closed']:8}"
            f"{first_ms[len(first_ms) // 2]:9.0f} .. {first_ms[-1]:5.0f}"
        )
    print(*cluster.notes, sep="\n")


# -- the run


async def run(size: Size, folder: Path, postgres: Postgres) -> int:
    store = postgres.new_database()
    budgets: dict[str, Budget | None] = {CROWD: None, **size.budgets, WITNESS: None}
    secrets, ids = await asyncio.to_thread(add_keys, store, budgets)
    traffic = Traffic(size.chunks, size.pause_s, secrets)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(traffic.upstream.running())
        replicas = [Replica(name, folder / name, traffic.upstream, store) for name in NAMES]
        for replica in replicas:
            stack.push_async_callback(replica.stop)
        await asyncio.gather(*(replica.start() for replica in replicas))
        ports = {replica.name: replica.port for replica in replicas}
        balancer = await stack.enter_async_context(running_balancer(folder, ports, check_s=size.check_s))
        for name in NAMES:
            await balancer.sees(name, "UP")
        cluster = Cluster(size, postgres, store, traffic, replicas, balancer, ids)
        stop = asyncio.Event()
        clients = [
            asyncio.ensure_future(traffic.client(balancer.base, f"client{number}", CROWD, stop))
            for number in range(size.streams)
        ]
        try:
            for step in (reach_a_budget, kill_one, drain_one, restart_the_database, freeze_the_database):
                await step(cluster)
        except (AssertionError, asyncio.TimeoutError) as exc:
            cluster.faults.append(f"{step.__name__} did not come to its end: {exc or type(exc).__name__}.")
        finally:
            stop.set()
            await asyncio.gather(*clients)
        check_streams(cluster)
        await check_ledger(cluster)
        check_budgets(cluster)
        codes = await asyncio.gather(*(replica.drain() for replica in replicas))
        cluster.check(set(codes) == {0}, f"the daemons ended with {codes}, not all with 0.")
        check_logs(cluster)
    print_figures(cluster)
    for fault in cluster.faults[:30]:
        print(f"NOT KEPT: {fault}")
    print("FAIL" if cluster.faults else "PASS")
    return 1 if cluster.faults else 0


def main(arguments: list[str]) -> int:
    if unknown := [each for each in arguments if each != "--short"]:
        print(f"expected --short or nothing, got {' '.join(unknown)}", file=sys.stderr)
        return 2
    size = SHORT if arguments else FULL
    try:
        program = haproxy()
        if program is None:
            pytest.skip("HAProxy is not installed: apt-get install haproxy")
        version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout.split()[
            2
        ]
        with running_postgres() as postgres, tempfile.TemporaryDirectory(prefix="proxyd-cluster-") as name:
            print(
                f"{len(NAMES)} daemons, HAProxy {version}, {postgres.call('postgres', '--version').strip()}, "
                f"{size.streams} clients, responses of {size.chunks * size.pause_s:g} s",
                flush=True,
            )
            return asyncio.run(run(size, Path(name).resolve(), postgres))
    except pytest.skip.Exception as exc:
        print(f"cluster check skipped: {exc}")
        return int(os.environ.get("CLUSTER_REQUIRED") == "1")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
