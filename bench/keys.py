"""``python -m bench.keys``: what virtual keys with budgets cost a small request, with SQLite and with PostgreSQL.

Contenders run at the same time, and batches of calls alternate between them; the ratios of neighbouring batches count.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path

from bench.contenders import Contender, Launch, with_keys
from bench.scenarios import Running, started, started_upstream
from proxyd.config.database_url import parse_database_url
from proxyd.config.paths import make_private_folder
from proxyd.store.interface import KeyStore
from proxyd.store.postgres import PostgresKeyStore
from proxyd.store.sqlite import FILE, SqliteKeyStore
from proxyd.store.virtual_keys import Limit, VirtualKey, digest_of, new_secret
from tests.support.postgres import running_postgres

_ROUNDS, _CALLS, _CONNECTIONS, _WARM_UP_CALLS = 24, 200, 4, 400
_LIMITS = (Limit(1000.0, "usd", "day"), Limit(1e9, "tokens", "month"), Limit(1e6, "calls", "minute"))


def _add_key(store: KeyStore, secret: str) -> None:
    store.put_key(VirtualKey("id-1", "alice", digest_of(secret), time.time(), limits=_LIMITS, streams=64))
    store.close()


def _with_sqlite(contender: Contender, secret: str) -> Contender:
    """Return the contender with a key in its state folder."""

    def start(folder: Path, port: int, upstream_port: int) -> Launch:
        launch = contender.start(folder, port, upstream_port)
        state = Path(launch.environment["XDG_STATE_HOME"]) / "claude-proxy"
        make_private_folder(state)
        _add_key(SqliteKeyStore(state / FILE), secret)
        return launch

    return replace(contender, start=start)


async def _run(folder: Path, database: str) -> int:
    secret = new_secret()
    contenders = [
        with_keys("off", secret, {}),
        _with_sqlite(with_keys("SQLite", secret, {"auth": "keys"}), secret),
        with_keys("PostgreSQL", secret, {"auth": "keys", "store": database}),
    ]
    _add_key(PostgresKeyStore(parse_database_url(database)), secret)
    async with started_upstream(folder) as port, AsyncExitStack() as stack:
        runs: dict[str, Running] = {
            each.name: await stack.enter_async_context(started(each, folder, port)) for each in contenders
        }
        for run in runs.values():
            await run.calls("short", _WARM_UP_CALLS, _CONNECTIONS)
        rounds = [
            {name: await run.calls("short", _CALLS, _CONNECTIONS) for name, run in runs.items()}
            for _ in range(_ROUNDS)
        ]
    off = statistics.median(each["off"] for each in rounds)
    print(f"small request, translated: {off * 1e3:.3f} ms of CPU without keys")
    for name in ("SQLite", "PostgreSQL"):
        low, ratio, high = statistics.quantiles((each[name] / each["off"] for each in rounds), n=4)
        print(f"{name}: on : off {ratio:.2f} ({low:.2f} to {high:.2f} for half of {len(rounds)} pairs)")
    return 0


if __name__ == "__main__":
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-keys-"))
        server = stack.enter_context(running_postgres())
        sys.exit(asyncio.run(_run(Path(name), server.new_database())))
