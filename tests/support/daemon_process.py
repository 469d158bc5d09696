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


#: Runs a module with a socket that listens already, as systemd does (sd_listen_fds(3)).
_LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""


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

    async def says(self, event: str, times: int = 1, within_s: float = 30.0) -> dict[str, Any]:
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
    port: int = 0,
    **settings: Any,
) -> AsyncIterator[Process]:
    """A daemon with the entry ``m`` for `upstream`, ready to serve.

    Args:
        is_quiet: its log level keeps its first line, and with it the port that it has found, from us.
        module: what is run: one that runs the daemon.
        port: on which it listens; 0 for a free one.
    """
    write_models(folder, upstream, *entries, **settings)
    listening = socket.create_server(("127.0.0.1", 0)) if is_quiet else None
    program = ("-m", module) if listening is None else ("-c", _LAUNCHER, str(listening.fileno()), module)
    handle = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, "--port", str(port), "--models", str(folder / "models.yaml")),
        pass_fds=() if listening is None else (listening.fileno(),),
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
        if listening is not None:
            found.base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            listening.close()  # it is the child's now, which is connected to before it is ready
        else:
            found.base = (await found.says("server.started", within_s=60))["address"]
        yield found
    finally:
        if handle.returncode is None:
            handle.kill()
        await handle.wait()
        await reading


def write_models(folder: Path, upstream: RawUpstream, *entries: dict[str, Any], **settings: Any) -> None:
    models = [{"model_id": "m", "api_base": f"{upstream.base}/v1"}, *entries]
    draft = folder / "models.yaml.new"
    draft.write_text(json.dumps({"settings": settings, "models": models}))
    draft.replace(folder / "models.yaml")  # at once, since the daemon watches the file
