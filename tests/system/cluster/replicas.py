"""The daemons of the cluster: each with a folder and a port of its own, all with one database."""

from __future__ import annotations

import signal
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from proxyd.config.database_url import parse_database_url
from proxyd.store.postgres import PostgresKeyStore
from proxyd.store.virtual_keys import VirtualKey, digest_of, new_secret, parse_limit
from tests.support.daemon_process import Process, process
from tests.support.ports import free_port
from tests.support.raw_sockets import RawUpstream, until
from tests.system.cluster.traffic import MODES, PRICING

__all__ = ["Budget", "Replica", "add_keys"]

_BOUND_S = 60.0


@dataclass(frozen=True)
class Budget:
    """The limit of a key.

    Attributes:
        unit: ``usd`` or ``calls``.
        streams: calls in flight at each daemon.
    """

    amount: float
    unit: str
    streams: int


def add_keys(store: str, budgets: dict[str, Budget | None]) -> tuple[dict[str, str], dict[str, str]]:
    """Make virtual keys; return their secrets and their ids by name."""
    secrets = {name: new_secret() for name in budgets}
    ids = {name: uuid.uuid4().hex for name in budgets}
    opened = PostgresKeyStore(parse_database_url(store), timeout_s=_BOUND_S)
    try:
        for name, budget in budgets.items():
            limits = (
                () if budget is None else (parse_limit(f"{budget.amount:g}/month", budget.unit),)
            )  # of a month, since a run may be at midnight
            streams = None if budget is None else budget.streams
            opened.put_key(
                VirtualKey(
                    ids[name], name, digest_of(secrets[name]), time.time(), limits=limits, streams=streams
                )
            )
    finally:
        opened.close()
    return secrets, ids


@dataclass
class Replica:
    """One daemon, which may be stopped and started again.

    Attributes:
        lines: the log of all its processes so far.
    """

    name: str
    folder: Path
    upstream: RawUpstream
    store: str
    port: int = field(default_factory=free_port)
    lines: list[dict[str, Any]] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _process: Process | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        assert self._process is not None, "it was started"
        return self._process

    async def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        base = f"{self.upstream.base}/v1"
        entries = [
            {"model_id": mode, "api_base": base, "direct": mode == "direct", "pricing": PRICING}
            for mode in MODES
        ]
        self._process = await self._stack.enter_async_context(
            process(
                self.folder,
                self.upstream,
                *entries,
                port=self.port,
                environ={"STORE_URL": self.store},
                auth="keys",
                store="${STORE_URL}",
            )
        )

    async def kill(self) -> None:
        """End it as a crash of the machine would."""
        self.process.send(signal.SIGKILL)
        await self.process.ended(_BOUND_S)
        await self._close()

    async def drain(self) -> int:
        """Ask it to stop; return the exit code once it has."""
        self.process.send(signal.SIGTERM)
        code = await self.process.ended(_BOUND_S)
        await self._close()
        return code

    async def stop(self) -> None:
        """End it, however it is."""
        if self._process is not None:
            await self._close()

    async def _close(self) -> None:
        await self._stack.aclose()  # which reads the log to its end
        self.lines += self.process.lines
        self._process = None

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = [*self.lines, *(() if self._process is None else self._process.lines)]
        return [line for line in lines if line["event"] == event]

    def errors(self) -> list[dict[str, Any]]:
        """Return the log lines of level error."""
        lines = [*self.lines, *(() if self._process is None else self._process.lines)]
        return [line for line in lines if line.get("level") == "error" or "level" not in line]

    async def uses_the_store(self) -> None:
        """Wait until each outage that it has reported is over."""
        for failed, recovered in (
            ("keys.store_failed", "keys.store_recovered"),
            ("ledger.forward_failed", "ledger.forward_recovered"),
        ):
            await until(lambda a=failed, b=recovered: len(self.log(a)) <= len(self.log(b)), _BOUND_S)

    async def used(self, name: str) -> float:
        """Return what it says is used of the limit of a key."""
        async with aiohttp.ClientSession() as client, client.get(f"{self.base}/readyz?verbose") as response:
            described = (await response.json())["virtual_keys"]
        (limit,) = next(each for each in described if each["name"] == name)["limits"]
        return float(limit["used"])
