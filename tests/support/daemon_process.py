"""The daemon as a child process of a test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.raw_sockets import RawUpstream, until

__all__ = ["Process", "process", "write_models"]


@dataclass
class Process:
    """The daemon as a child.

    Attributes:
        lines: its log so far, parsed.
    """

    handle: asyncio.subprocess.Process
    base: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)

    def log(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    async def says(self, event: str, times: int = 1, within_s: float = 8.0) -> dict[str, Any]:
        """Wait until `event` has been logged `times` times."""
        await until(lambda: len(self.log(event)) >= times, within_s)
        return self.log(event)[times - 1]

    def send(self, number: signal.Signals) -> None:
        self.handle.send_signal(number)

    async def ended(self, within_s: float) -> int:
        return await asyncio.wait_for(self.handle.wait(), within_s)


@asynccontextmanager
async def process(
    folder: Path,
    upstream: RawUpstream,
    *entries: dict[str, Any],
    is_quiet: bool = False,
    module: str = "proxyd",
    environ: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[Process]:
    """A daemon with the entry ``m`` for `upstream`, ready to serve.

    Args:
        is_quiet: its log level keeps its first line, and with it the port that it has found, from us.
        module: what is run: one that runs the daemon.
    """
    write_models(folder, upstream, *entries, **settings)
    port = _free_port() if is_quiet else 0
    handle = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "--port", str(port), "--models", str(folder / "models.yaml")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.defpath,
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "LOG_FORMAT": "json",
            **(environ or {}),
        },
        limit=1 << 24,
    )
    found = Process(handle)

    async def read() -> None:
        assert handle.stderr is not None
        async for line in handle.stderr:
            found.lines.append(
                json.loads(line) if line.startswith(b"{") else {"event": line.decode().strip()}
            )

    reading = asyncio.ensure_future(read())
    try:
        if is_quiet:
            found.base = f"http://127.0.0.1:{port}"
            await _listens(port)
        else:
            found.base = (await found.says("server.started", within_s=20))["address"]
        yield found
    finally:
        if handle.returncode is None:
            handle.kill()
        await handle.wait()
        await reading


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


async def _listens(port: int) -> None:
    for _ in range(400):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise AssertionError("it does not listen")


def write_models(folder: Path, upstream: RawUpstream, *entries: dict[str, Any], **settings: Any) -> None:
    models = [{"model_id": "m", "api_base": f"{upstream.base}/v1"}, *entries]
    draft = folder / "models.yaml.new"
    draft.write_text(json.dumps({"settings": settings, "models": models}))
    draft.replace(folder / "models.yaml")  # at once, since the daemon watches the file
