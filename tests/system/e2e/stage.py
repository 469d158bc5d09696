"""`Stage`, the fixture of a scenario, and the registry of scenarios."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.system.e2e.anthropic_upstream import AnthropicUpstream
from tests.system.e2e.claude_code import ClaudeRun, run_claude
from tests.system.e2e.daemon import Daemon
from tests.system.e2e.gemini_upstream import GeminiUpstream
from tests.system.e2e.openai_upstream import OpenAIUpstream
from tests.system.e2e.responses_upstream import ResponsesUpstream
from tests.system.e2e.scripted import Script, ScriptedUpstream
from tests.system.e2e.vendor_upstream import VendorUpstream

__all__ = [
    "FAKE_KEY",
    "Scenario",
    "ScenarioError",
    "ScenarioSkipped",
    "Stage",
    "all_scenarios",
    "check",
    "check_equal",
    "scenario",
]

#: Long enough to look like a key to the client, and no Anthropic key; it opens nothing.
FAKE_KEY = "key-e2e-0123456789abcdef0123456789abcdef"

Scenario = Callable[["Stage"], Awaitable[None]]
_scenarios: dict[str, Scenario] = {}


class ScenarioError(Exception):
    """A check of a scenario failed."""


class ScenarioSkipped(Exception):
    """This machine lacks a program that the scenario needs."""


def scenario(function: Scenario) -> Scenario:
    """Register a function under its name; the first line of its docstring is its title."""
    if not inspect.getdoc(function):
        raise TypeError(f"scenario {function.__name__} needs a docstring with its title")
    if function.__name__ in _scenarios:
        raise TypeError(f"there are two scenarios called {function.__name__}")
    _scenarios[function.__name__] = function
    return function


def all_scenarios() -> dict[str, Scenario]:
    """Return all scenarios by name, in the order of their modules and functions."""
    package = importlib.import_module("tests.system.e2e.scenarios")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _scenarios


def check(holds: object, otherwise: str) -> None:
    """Fail with the message `otherwise` unless `holds`."""
    if not holds:
        raise ScenarioError(otherwise)


def check_equal(seen: object, expected: object, what: str) -> None:
    """Fail unless both are equal, and show them."""
    if seen != expected:
        raise ScenarioError(f"{what} is {seen!r}, expected {expected!r}")


class Stage:
    """Upstreams, a daemon and runs of Claude Code that belong to one scenario, in one temporary folder.

    Attributes:
        notes: measurements, printed below the result of the scenario.
        project: the folder in which Claude Code works.
        home: the HOME of `run`.
        claude_binary: the real Claude Code.
    """

    def __init__(self, folder: Path, claude_binary: Path) -> None:
        self._folder = folder
        self.claude_binary = claude_binary
        self._upstreams: list[ScriptedUpstream] = []
        self._daemons: list[Daemon] = []
        self._runs: list[ClaudeRun] = []
        self.home = folder / "home"
        self.notes: list[str] = []
        self.project = folder / "project"
        self.home.mkdir(parents=True)
        self.project.mkdir()

    def note(self, text: str) -> None:
        """Add a measurement to what is printed."""
        self.notes.append(text)

    async def openai(self, script: Script, **options: Any) -> OpenAIUpstream:
        """Start an `OpenAIUpstream`."""
        upstream = OpenAIUpstream(script, **options)
        await self._start(upstream)
        return upstream

    async def responses(self, script: Script, **options: Any) -> ResponsesUpstream:
        """Start a `ResponsesUpstream`."""
        upstream = ResponsesUpstream(script, **options)
        await self._start(upstream)
        return upstream

    async def gemini(self, script: Script, **options: Any) -> GeminiUpstream:
        """Start a `GeminiUpstream`."""
        upstream = GeminiUpstream(script, **options)
        await self._start(upstream)
        return upstream

    async def vendor(self, name: str, script: Script) -> VendorUpstream:
        """Start a `VendorUpstream`."""
        upstream = VendorUpstream(name, script)
        await self._start(upstream)
        return upstream

    async def anthropic(self, script: Script, **options: Any) -> AnthropicUpstream:
        """Start an `AnthropicUpstream`."""
        upstream = AnthropicUpstream(script, **options)
        await self._start(upstream)
        return upstream

    async def _start(self, upstream: ScriptedUpstream) -> None:
        await upstream.start()
        self._upstreams.append(upstream)

    async def daemon(
        self, models: Sequence[Mapping[str, Any]], environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start a daemon with these entries in its models.yaml; return it when it is ready."""
        daemon = Daemon(models, self._folder / f"daemon-{len(self._daemons)}", environment)
        self._daemons.append(daemon)
        await daemon.start()
        return daemon

    async def run(self, daemon: Daemon, prompt: str, **options: Any) -> ClaudeRun:
        """Run Claude Code, whatever its result; options as for `run_claude`."""
        options.setdefault("credentials", {"ANTHROPIC_AUTH_TOKEN": FAKE_KEY})
        run = await run_claude(
            self.claude_binary,
            prompt,
            base_url=daemon.base_url,
            home=self.home,
            directory=self.project,
            **options,
        )
        self._runs.append(run)
        return run

    async def succeed(self, daemon: Daemon, prompt: str, **options: Any) -> ClaudeRun:
        """Run Claude Code; fail unless it reports success."""
        run = await self.run(daemon, prompt, **options)
        check(run.is_success, f"Claude Code failed: {run.text or run.stderr[-500:] or 'no output'}")
        return run

    async def converse(
        self, script: Script, prompt: str, *, entry: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[OpenAIUpstream, ClaudeRun]:
        """Run the usual case: one OpenAI upstream, one route to it, one successful run.

        Args:
            entry: further keys of the entry in models.yaml.
        """
        upstream = await self.openai(script, key=FAKE_KEY)
        daemon = await self.daemon([{"model_id": "scripted", "api_base": upstream.api_base, **(entry or {})}])
        return upstream, await self.succeed(daemon, prompt, model="scripted", **options)

    async def close(self) -> list[str]:
        """Stop everything; return the complaints of daemons and upstreams."""
        complaints = [complaint for daemon in self._daemons for complaint in await daemon.stop()]
        for upstream in self._upstreams:
            await upstream.close()
            complaints += upstream.complaints()
        return complaints

    def report(self) -> str:
        """Return reports of all parts, for a failed scenario."""
        upstreams = [upstream.report() for upstream in self._upstreams]
        daemons = [daemon.report() for daemon in self._daemons]
        return "\n".join([*upstreams, *daemons, *(run.report() for run in self._runs)])
