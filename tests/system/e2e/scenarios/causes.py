"""What is wrong with an entry, a key or an upstream is reported within seconds, in words that Claude Code shows.

The rows of docs/troubleshooting.md, in ``-p`` mode and in a terminal. Claude Code keeps its own ten retries here: a
cause that it repeats takes minutes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from tests.support.harness import running_upstream, text_stream
from tests.system.e2e.causes import CAUSES, MODEL, running_servers
from tests.system.e2e.claude_code import ClaudeRun
from tests.system.e2e.daemon import Daemon
from tests.system.e2e.stage import Scenario, Stage, check, scenario
from tests.system.e2e.terminal import terminal_running_code

#: From the prompt to the message, without the start of the process.
MAX_S = 5.0
OWN_RETRIES = {"CLAUDE_CODE_MAX_RETRIES": "10"}


def _check(text: str, parts: list[str], seconds: float) -> None:
    """Check a message and the time after which it was shown."""
    for part in parts:
        check(part in text, f"{part!r} is missing in {text!r}")
    check("/login" not in text, f"it asks for a login: {text!r}")
    check("issue with the selected model" not in text, f"the message is hidden: {text!r}")
    check(seconds <= MAX_S, f"it took {seconds:.1f} s")


async def _run(stage: Stage, daemon: Daemon, parts: list[str], **options: Any) -> ClaudeRun:
    """Run a prompt that fails, and check what is shown."""
    run = await stage.run(daemon, "Hello.", model=MODEL, environment=OWN_RETRIES, **options)
    check(not run.is_success, "Claude Code took the failure for a success")
    _check(run.text, parts, float(run.result.get("duration_ms", 1e9)) / 1000)
    return run


def _scenario_of(name: str) -> Scenario:
    async def run(stage: Stage) -> None:
        async with running_servers() as servers:
            daemon = await stage.daemon(servers.entries_of(name))
            shown = await _run(stage, daemon, servers.shown_by(name))
            stage.note(f"-p: {float(shown.result['duration_ms']) / 1000:.1f} s")
            if name == "server_does_not_run":  # its circuit is open now
                await _run(stage, daemon, servers.shown_by(name))

    run.__name__, run.__doc__ = f"cause_{name}", f"Cause: {CAUSES[name].title}"
    return run


for _name in CAUSES:
    scenario(_scenario_of(_name))


@scenario
async def causes_in_a_terminal(stage: Stage) -> None:
    """All causes one after the other in one session of Claude Code; models.yaml is rewritten between them"""
    loop = asyncio.get_running_loop()
    async with running_servers() as servers:
        names = list(CAUSES)
        first = servers.entries_of("wrong_key")
        async with terminal_running_code(stage, first, MODEL, environment=OWN_RETRIES) as terminal:
            await terminal.expect("? for shortcuts")
            for name in names:
                await terminal.configure(servers.entries_of(name), until=f"demo-{name}")
                await terminal.enter(f"Hello to {name}")
                asked_at = loop.time()
                parts = servers.shown_by(name)
                shown = await terminal.expect_text(f"Hello to {name}", *parts)
                seconds = loop.time() - asked_at
                _check(shown, parts, seconds)
                stage.note(f"{seconds:4.1f} s  {CAUSES[name].title}")


@scenario
async def anthropic_key_for_another_vendor(stage: Stage) -> None:
    """A key of Anthropic's is not sent to another vendor, and the message says what to set"""
    daemon = await stage.daemon([{"model_id": MODEL, "api_base": "https://upstream.invalid/v1"}])
    key = {"ANTHROPIC_API_KEY": "sk-ant-api03-" + "0123456789" * 8}
    await _run(
        stage,
        daemon,
        ["set ANTHROPIC_AUTH_TOKEN for Claude Code to a key of upstream.invalid"],
        credentials=key,
    )


@scenario
async def doubled_v1(stage: Stage) -> None:
    """ANTHROPIC_BASE_URL with a /v1 at its end works"""
    daemon = await stage.daemon([{"model_id": "demo", "api_base": "builtin:demo"}])
    daemon.base_url += "/v1"
    await stage.succeed(daemon, "Hello.", model="demo")


@scenario
async def wrong_path_of_the_proxy(stage: Stage) -> None:
    """ANTHROPIC_BASE_URL with another path says what it should be"""
    daemon = await stage.daemon([{"model_id": MODEL, "api_base": "builtin:demo"}])
    daemon.base_url += "/anthropic/v2"
    await _run(stage, daemon, ["there is nothing at /anthropic/v2/v1/messages", "POST /v1/messages"])


@scenario
async def overload_passes_by_itself(stage: Stage) -> None:
    """A vendor that is overloaded twice is asked again, and the response comes"""
    answers = iter([503, 503])

    async def busy(_: web.Request) -> web.StreamResponse:
        status = next(answers, 200)
        if status != 200:
            return web.json_response({"error": {"message": "overloaded"}}, status=status)
        return web.Response(body=text_stream("At last."), content_type="text/event-stream")

    async with running_upstream(busy) as upstream:
        daemon = await stage.daemon([{"model_id": MODEL, "api_base": f"{upstream.base}/v1"}])
        run = await stage.succeed(daemon, "Hello.", model=MODEL)
        check("At last." in run.text, f"the answer is {run.text!r}")
