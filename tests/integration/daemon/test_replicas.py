"""Two daemons on one PostgreSQL that run different configurations: status, page, metrics and command say so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from proxyd.cli.commands.lifecycle import status_command
from proxyd.config.database_url import parse_database_url
from proxyd.daemon.configuration import LoadedConfig
from proxyd.daemon.server import Daemon
from tests.support.harness import load_entries
from tests.support.postgres import PASSWORD, Postgres
from tests.support.raw_sockets import ask

ONE = [{"model_id": "one", "api_base": "builtin:demo"}]
OTHER = [{"model_id": "other", "api_base": "builtin:demo"}]


async def get(daemon: Daemon, path: str) -> str:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    return (await ask("http://{}:{}".format(*daemon.addresses[0]), request)).body.decode()


async def differing(daemon: Daemon, others: int) -> Any:
    """What the status says, once it has been able to ask the database, and knows so many others."""
    for _ in range(60):
        assert daemon.shared.sync is not None
        await daemon.shared.sync.exchange()
        found = json.loads(await get(daemon, "/readyz?verbose"))["replicas"]
        if daemon.shared.sync.trouble is None and found["others"] == others:
            return found["differing"]
        await asyncio.sleep(0.5)
    raise AssertionError(found)


async def test_replicas_that_run_another_file_are_shown(postgres: Postgres, tmp_path: Path) -> None:
    url = parse_database_url(postgres.new_database())

    def loaded(entries: list[dict[str, str]]) -> LoadedConfig:
        return load_entries(entries, store=url)

    first = Daemon(loaded(ONE), state_folder=tmp_path / "a")
    second = Daemon(loaded(OTHER), state_folder=tmp_path / "b")
    one, other = loaded(ONE).config.hash, loaded(OTHER).config.hash
    assert one != other
    try:
        await first.start()
        assert await differing(first, 0) == {}
        await second.start()
        await differing(second, 1)
        ((name, found),) = (await differing(first, 1)).items()
        assert (name.rpartition(":")[2], found) == (str(second.addresses[0][1]), other)
        page = json.loads(await get(first, "/test-connection"))["config"]
        assert (page["hash"], page["replicas"]["differing"]) == (one, {name: other})
        metrics = await get(first, "/metrics")
        assert f'proxyd_config_info{{hash="{one}"}} 1.0' in metrics
        assert "proxyd_store_up 1.0" in metrics
        port = ["--port", str(first.addresses[0][1])]
        shown = await asyncio.to_thread(CliRunner().invoke, status_command, port)
        assert f"(hash {one})" in shown.output
        assert (
            f"differs    {name} on the same database runs another models.yaml (hash {other})" in shown.output
        )
        assert PASSWORD not in metrics + shown.output + json.dumps(page)

        second._apply(loaded(ONE))
        assert await differing(second, 1) == {}
        assert await differing(first, 1) == {}
        await second.close()
        assert await differing(first, 0) == {}, "a daemon that ends is forgotten at once"
    finally:
        for each in (first, second):
            await each.close()
