"""Runs of ``claude -p`` in an environment that is isolated from this machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NO_SECOND_CHANCE", "ClaudeRun", "run_claude"]

#: Timeout of a run, which takes 2 to 5 s.
RUN_TIMEOUT_S = 120.0

#: The shell of the Bash tool.
SHELL = shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") or "/bin/sh"
# fmt: off
SWITCHES = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1", "IS_SANDBOX": "1", "CLAUDE_CODE_MAX_RETRIES": "2",
}
# fmt: on

#: Switches off Claude Code's own retries, which can hide a failure of the proxy.
NO_SECOND_CHANCE = {"CLAUDE_CODE_MAX_RETRIES": "0", "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1"}


@dataclass(frozen=True)
class ClaudeRun:
    """Output of a run."""

    prompt: str
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """The object of ``--output-format json``; empty if there is none."""
        try:
            value = json.loads(self.stdout)
        except ValueError:
            return {}
        if isinstance(value, list):  # with --verbose: all messages, the result last
            value = value[-1] if value else {}
        return value if isinstance(value, dict) else {}

    @property
    def text(self) -> str:
        """The final text."""
        return str(self.result.get("result", ""))

    @property
    def session_id(self) -> str:
        """For ``--resume``."""
        return str(self.result.get("session_id", ""))

    @property
    def is_success(self) -> bool:
        return self.returncode == 0 and self.result.get("is_error") is False

    def report(self) -> str:
        """Return the output, for a failed scenario."""
        return (
            f"claude ended with {self.returncode} after {self.seconds:.1f} s\n"
            f"  stdout: {self.stdout[-3000:].strip() or '(nothing)'}\n"
            f"  stderr: {self.stderr[-1500:].strip() or '(nothing)'}"
        )


async def run_claude(
    binary: Path,
    prompt: str,
    *,
    base_url: str,
    model: str,
    credentials: Mapping[str, str],
    home: Path,
    directory: Path,
    tools: Sequence[str] = (),
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout_s: float = RUN_TIMEOUT_S,
) -> ClaudeRun:
    """Run one prompt.

    Args:
        credentials: ``ANTHROPIC_API_KEY`` and the like, with made-up values.
        home: shared by runs that resume one another.
        tools: names of the tools that need no permission.
        options: further arguments.
        environment: further variables.
    """
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "SHELL": SHELL,
        "ANTHROPIC_BASE_URL": base_url,
        **SWITCHES,
        **credentials,
        **(environment or {}),
    }
    arguments = ["-p", prompt, "--model", model, "--output-format", "json", *options]
    if tools:
        arguments += ["--allowedTools", ",".join(tools)]
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        binary,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=directory,
        env=variables,
        start_new_session=True,
    )
    waiting = asyncio.ensure_future(process.communicate())
    done, _ = await asyncio.wait([waiting], timeout=timeout_s)
    note = ""
    if not done:
        note = f"\n(ended by the harness after {timeout_s:g} s)"
        os.killpg(process.pid, signal.SIGKILL)  # its session, with its children
    out, err = await waiting
    return ClaudeRun(
        prompt,
        process.returncode or 0,
        out.decode(errors="replace"),
        err.decode(errors="replace") + note,
        time.monotonic() - started,
    )
