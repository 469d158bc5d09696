"""Claude Code as ``claude-proxy code`` starts it, in a real terminal (tmux) of 150 columns."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.system.e2e.claude_code import SHELL, SWITCHES
from tests.system.e2e.stage import ScenarioError, ScenarioSkipped, Stage

__all__ = ["Terminal", "home_of", "terminal_running_code", "variables_of"]

#: Start and answers take 2 to 6 s; a loaded machine may need this.
SCREEN_TIMEOUT_S = 60.0
POLL_S = 0.25


class Terminal:
    """One tmux server with one window.

    Args:
        models_yaml, base_url: of the daemon that serves Claude Code in it.
    """

    def __init__(self, name: str, models_yaml: Path, base_url: str) -> None:
        self._name = name
        self._models_yaml = models_yaml
        self._base_url = base_url

    async def tmux(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("tmux", "-L", self._name, "-f", os.devnull, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return out.decode(errors="replace")

    async def screen(self) -> str:
        """Return the visible lines that are not empty."""
        lines = (await self.tmux("capture-pane", "-p")).splitlines()
        return "\n".join(line.rstrip() for line in lines if line.strip())

    async def expect(self, *texts: str) -> str:
        """Wait until the screen has all `texts`; return it.

        Raises:
            ScenarioError: it has not within `SCREEN_TIMEOUT_S`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SCREEN_TIMEOUT_S
        while True:
            screen = await self.screen()
            missing = [text for text in texts if text not in screen]
            if not missing:
                return screen
            if loop.time() > deadline:
                raise ScenarioError(f"the terminal does not show {missing}:\n{screen}")
            await asyncio.sleep(POLL_S)

    async def expect_text(self, begin: str, *texts: str) -> str:
        """Wait until the text behind the last `begin` has all `texts`, line breaks aside; return it.

        Raises:
            ScenarioError: it has not within `SCREEN_TIMEOUT_S`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SCREEN_TIMEOUT_S
        while True:
            shown = " ".join((await self.screen()).split()).rpartition(begin)[2]
            if all(text in shown for text in texts):
                return shown
            if loop.time() > deadline:
                raise ScenarioError(f"the terminal does not show {texts} behind {begin!r}: {shown}")
            await asyncio.sleep(POLL_S)

    async def configure(self, models: Sequence[Mapping[str, Any]], *, until: str) -> None:
        """Write another models.yaml and wait until the daemon lists the model `until`.

        Raises:
            ScenarioError: it has not within `SCREEN_TIMEOUT_S`.
        """
        self._models_yaml.write_text(_as_yaml(models))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SCREEN_TIMEOUT_S
        async with aiohttp.ClientSession(self._base_url) as session:
            while loop.time() < deadline:
                async with session.get("/v1/models?limit=1000") as response:
                    if until in [model["id"] for model in (await response.json())["data"]]:
                        return
                await asyncio.sleep(POLL_S)
        raise ScenarioError(f"the daemon does not list {until} after models.yaml was rewritten")

    async def enter(self, line: str) -> None:
        """Type a line, wait until it is shown, and press Enter."""
        await self.tmux("send-keys", "-l", line)
        await self.expect(line)
        await asyncio.sleep(2 * POLL_S)  # the menu of commands takes Enter once it has found the line
        await self.tmux("send-keys", "Enter")

    async def press(self, key: str) -> None:
        await self.tmux("send-keys", key)


def home_of(stage: Stage) -> Path:
    """Return the HOME of what runs in a terminal."""
    return stage.project.parent / "terminal-home"


def variables_of(stage: Stage) -> dict[str, str]:
    """Return the variables of a command of claude-proxy beside what runs in a terminal."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home_of(stage)),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@asynccontextmanager
async def terminal_running_code(
    stage: Stage,
    models: Sequence[Mapping[str, Any]],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    switches: Mapping[str, str] = SWITCHES,
    by_env: bool = False,
) -> AsyncIterator[Terminal]:
    """Run ``claude-proxy code ARGUMENTS`` in `home_of`, in which Claude Code has been started before.

    Args:
        environment: further variables.
        by_env: run plain ``claude`` in its default permission mode instead, in a shell with the variables of
            ``claude-proxy env ARGUMENTS``.
        switches: those with which Claude Code sends nothing but its calls.

    Raises:
        ScenarioSkipped: tmux is not installed.
    """
    if shutil.which("tmux") is None:
        raise ScenarioSkipped("tmux is not installed")
    folder = stage.project.parent
    home, programs = home_of(stage), folder / "programs"
    models_yaml = home / ".config" / "claude-proxy" / "models.yaml"
    _prepare(home, models_yaml, stage.project, models)
    programs.mkdir(exist_ok=True)
    claude = programs / "claude"
    claude.unlink(missing_ok=True)
    claude.symlink_to(stage.claude_binary)
    port = free_port()
    variables = {
        **variables_of(stage),
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "SHELL": SHELL,
        "PORT": str(port),
        **switches,
        **(environment or {}),
    }
    prefix = [
        "env",
        "-i",
        *(f"{name}={value}" for name, value in variables.items()),
        sys.executable,
        "-m",
        "proxyd",
    ]
    terminal = Terminal(f"e2e-{os.getpid()}-{port}", models_yaml, f"http://127.0.0.1:{port}")
    command = shlex.join([*prefix, "code", *arguments])
    if by_env:
        proxy = shlex.join(prefix[-3:])
        set_variables = f'eval "$({proxy} env {shlex.join(arguments)})"'
        script = f"{proxy} start && {set_variables} && exec claude --permission-mode default"
        command = shlex.join([*prefix[:-3], SHELL, "-c", script])
    await terminal.tmux(
        *("new-session", "-d", "-x", "150", "-y", "50", "-c", str(stage.project), f"{command}; sleep 600")
    )
    try:
        yield terminal
    finally:
        await terminal.tmux("kill-server")
        stop = await asyncio.create_subprocess_exec(
            *prefix, "stop", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await stop.wait()


def _as_yaml(models: Sequence[Mapping[str, Any]]) -> str:
    return "".join(f"- {json.dumps(entry)}\n" for entry in models)


def _prepare(home: Path, models_yaml: Path, project: Path, models: Sequence[Mapping[str, Any]]) -> None:
    models_yaml.parent.mkdir(parents=True, exist_ok=True)
    models_yaml.write_text(_as_yaml(models))
    state = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "projects": {str(project): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    }
    (home / ".claude.json").write_text(json.dumps(state))
