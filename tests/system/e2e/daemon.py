"""The proxy as a process: ``python -m proxyd --port N --models FILE``."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.paths import ROOT
from tests.support.ports import free_port

__all__ = ["Daemon", "DaemonError"]

START_TIMEOUT_S = 20.0
#: Shorter than the drain's 30 s: no stream is open when a scenario stops its daemon.
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
LOG_TAIL_LINES = 40


class DaemonError(Exception):
    """The daemon did not start or stop correctly."""


class Daemon:
    """One proxy; `start` it, use `base_url`, `stop` it."""

    def __init__(
        self, models: Sequence[Mapping[str, Any]], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._log = folder / "daemon.log"
        self._models = folder / "models.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self._models.write_text("\n".join(f"- {json.dumps(entry)}" for entry in models) + "\n")
        self.base_url = ""
        self.state_folder = folder / "home" / ".local" / "state" / "claude-proxy"

    async def start(self) -> None:
        """Start the daemon and wait until it is ready.

        Raises:
            DaemonError: it ended, or was not ready in time.
        """
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LOG_LEVEL": "debug",
            **self._environment,
        }
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "proxyd", "--port", str(port), "--models", str(self._models)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=variables,
            )
        await self._until_ready()

    async def _until_ready(self) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while loop.time() < deadline:
                if self._process.returncode is not None:
                    raise DaemonError(f"the daemon ended with {self._process.returncode} instead of starting")
                try:
                    async with session.get(f"{self.base_url}/readyz") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, asyncio.TimeoutError):
                    pass
                await asyncio.sleep(POLL_S)
        raise DaemonError(f"GET /readyz did not return 200 within {START_TIMEOUT_S:g} s")

    async def stop(self) -> list[str]:
        """Stop the daemon with SIGTERM; return complaints: its exit code, a traceback in its log."""
        process = self._process
        if process is None:
            return []
        complaints = []
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except asyncio.TimeoutError:
                complaints.append(f"the daemon still ran {STOP_TIMEOUT_S:g} s after SIGTERM")
                process.kill()
                await process.wait()
        if process.returncode != 0 and not complaints:
            complaints.append(f"the daemon ended with {process.returncode}, expected 0")
        if "Traceback (most recent call last)" in self.log():
            complaints.append("the daemon's log holds a traceback")
        return complaints

    def log(self) -> str:
        """Return all output."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def report(self) -> str:
        """Return the end of the log, for a failed scenario."""
        lines = self.log().splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(["the daemon's log ends with", *(f"  {line[:400]}" for line in lines)])
