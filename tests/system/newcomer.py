"""``make newcomer``: from a clone to a conversation of Claude Code with a vendor, in an empty HOME, with a clock.

The vendor is a scripted server on loopback that speaks Chat Completions and wants a key. Each step is a command of the
README. Installing Claude Code itself is not counted: it is somebody else's, and there already for most people.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.system.e2e.claude_code import SWITCHES
from tests.system.e2e.install import PINNED_VERSION, installed_claude
from tests.system.e2e.openai_upstream import OpenAIUpstream, say

__all__ = ["main"]

#: The goal for all steps together.
GOAL_S = 120.0
_LIMIT_S = 600.0
_KEY = "sk-newcomer-0123456789abcdef"
_WORDS = "Hello, newcomer."
#: Where `make run` finds a Python.
_PYTHON = Path(sys.executable).resolve().parent


class Clock:
    """Prints the seconds of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float]] = []
        self._since = time.monotonic()

    def step(self, name: str) -> None:
        now = time.monotonic()
        self.steps.append((name, now - self._since))
        print(f"{now - self._since:7.1f} s  {name}", flush=True)
        self._since = now

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.steps)


def main() -> None:
    """Do it once.

    Raises:
        SystemExit: a step failed, or all of them took longer than the goal.
    """
    claude, version = installed_claude(ROOT / ".e2e", os.environ.get("CLAUDE_VERSION", PINNED_VERSION))
    print(f"Claude Code {version}, Python {sys.version.split()[0]}, {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="claude-proxy-newcomer-") as folder:
        total = asyncio.run(_all_steps(Path(folder), claude))
    print(f"{total:7.1f} s  in all; the goal is {GOAL_S:g} s")
    if total > GOAL_S:
        raise SystemExit(1)


async def _all_steps(home: Path, claude: Path) -> float:
    programs = home / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(claude)
    # Settings of pip and of the network are the machine's; everything else is that of a new user.
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP", "SSL_"))}
    environ = {
        **kept,
        **SWITCHES,
        "PATH": f"{programs}:{_PYTHON}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PORT": str(free_port()),
    }
    clone = home / "claude-proxy"
    clock = Clock()
    await _run(["git", "clone", "--quiet", str(ROOT), str(clone)], home, environ)
    clock.step("git clone")
    log = home / "daemon.log"
    with log.open("wb") as out:
        daemon = await asyncio.create_subprocess_exec(
            "make", "run", cwd=clone, env=environ, stdout=out, stderr=out, start_new_session=True
        )
    try:
        if not await _is_ready(daemon, environ["PORT"]):
            raise SystemExit(f"make run does not respond:\n{_tail(log)}")
        clock.step("make run, until it responds (pip included)")
        program = str(clone / ".venv" / "bin" / "claude-proxy")
        said = await _run([program, "code", "demo", "-p", "Hello!"], home, environ)
        clock.step("claude-proxy code demo: a first conversation")
        if not said.strip():
            raise SystemExit("the demo said nothing")
        async with OpenAIUpstream(say(_WORDS), key=_KEY) as vendor:
            environ["VENDOR_KEY"] = _KEY
            added = [program, "add", "--api-base", vendor.api_base, "--key-env", "VENDOR_KEY"]
            await _run([*added, "--model", "vendor-large", "--id", "large"], home, environ)
            (home / ".config" / "claude-proxy" / "env").write_text(f"VENDOR_KEY={_KEY}\n")
            (home / ".config" / "claude-proxy" / "env").chmod(0o600)
            clock.step("claude-proxy add: a vendor's model, tried and written")
            vendor.violations.clear()  # `add` has looked for a list of models
            said = await _run([program, "code", "large", "-p", "Hello!"], home, environ)
            clock.step("claude-proxy code large: a conversation with the vendor")
            if _WORDS not in said:
                raise SystemExit(f"expected {_WORDS!r}, got {said[:500]!r}")
            if vendor.violations:
                raise SystemExit("\n".join(vendor.violations))
    finally:
        if daemon.returncode is None:
            os.killpg(daemon.pid, signal.SIGTERM)
            await asyncio.wait_for(daemon.wait(), 30)
    return clock.total


async def _run(command: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environ, capture_output=True, text=True, timeout=_LIMIT_S,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return str(done.stdout)


async def _is_ready(daemon: asyncio.subprocess.Process, port: str) -> bool:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline and daemon.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(port))
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return True
    return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


if __name__ == "__main__":
    if shutil.which("git") is None or shutil.which("make") is None:
        raise SystemExit("this needs git and make")
    main()
