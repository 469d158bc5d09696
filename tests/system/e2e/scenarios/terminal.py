"""What a user of ``claude-proxy code`` sees on the screen: windows, picker, permission mode."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from tests.system.e2e.command_line import run_proxyd
from tests.system.e2e.openai_upstream import DONE, call, chunk, refuse, say
from tests.system.e2e.scripted import Received, Refusal, Step
from tests.system.e2e.stage import Stage, check, check_equal, scenario
from tests.system.e2e.terminal import Terminal, home_of, terminal_running_code, variables_of

#: Nothing of these scenarios calls an upstream.
NOWHERE = "http://localhost:1/v1"
DEMO = {"model_id": "demo", "api_base": "builtin:demo"}
#: entry -> the window that /context shows, and the buffer that Claude Code keeps of it
WINDOWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "demo": ({"api_base": "builtin:demo"}, "200k", "33k"),
    "w32": ({"context": "32k"}, "43k", "17k"),
    "w64": ({"context": "64k"}, "73k", "21k"),
    "w128": ({"context": "128k"}, "128k", "33k"),
    "w1m": ({"context": "1m"}, "1m", "33k"),
    "no-window": ({}, "200k", "33k"),
    "claude-opus-5-5": ({"context": "128k"}, "128k", "33k"),
}
ENTRIES = [{"model_id": name, "api_base": NOWHERE, **keys} for name, (keys, _, _) in WINDOWS.items()]


async def read_context(terminal: Terminal) -> tuple[str, str]:
    """Return window and buffer as /context shows them."""
    await terminal.enter("/context")
    screen = await terminal.expect("Autocompact buffer", "Auto-compact window")
    window = re.search(r"/(\S+) tokens \(", screen)
    buffer = re.search(r"Autocompact buffer: (\S+)", screen)
    check(window and buffer, f"/context has another form now:\n{screen}")
    assert window is not None
    assert buffer is not None
    return window[1], buffer[1]


async def check_window(stage: Stage, name: str) -> None:
    _, window, buffer = WINDOWS[name]
    async with terminal_running_code(stage, ENTRIES, name) as terminal:
        screen = await terminal.expect("? for shortcuts")
        warned = "isn't recognized" in screen
        check_equal(warned, name == "no-window", "the warning of an unknown window")
        check_equal(await read_context(terminal), (window, buffer), f"window and buffer of {name}")


@scenario
async def windows_of_small_entries(stage: Stage) -> None:
    """/context of entries below 100k: compaction begins at the window less output and margin"""
    for name in ("w32", "w64"):
        await check_window(stage, name)


@scenario
async def windows_of_large_entries(stage: Stage) -> None:
    """/context of the demo, of 128k, 1m and no window: no [1m], no warning where the window is known"""
    for name in ("demo", "w128", "w1m", "no-window"):
        await check_window(stage, name)


@scenario
async def window_of_a_known_id(stage: Stage) -> None:
    """/context of an entry whose id Claude Code knows, with a window of 128k"""
    await check_window(stage, "claude-opus-5-5")


@scenario
async def window_after_a_switch(stage: Stage) -> None:
    """/context after /model from a window of 1m to one of 128k: each entry has its own"""
    async with terminal_running_code(stage, ENTRIES, "w1m") as terminal:
        await terminal.expect("? for shortcuts")
        await terminal.enter("/model w128")
        await terminal.expect("Set model to w128")
        check_equal(await read_context(terminal), ("128k", "33k"), "window and buffer")


@scenario
async def compaction_of_a_small_window(stage: Stage) -> None:
    """A window of 32k is compacted once the conversation has grown, and not at each turn"""
    sizes = iter([12_000, 16_000, 20_000, 27_000, 12_000])
    kinds: list[str] = []

    def play(received: Received) -> Sequence[Step]:
        is_summary = "TEXT ONLY" in received.texts("user")[-1]
        kinds.append("summary" if is_summary else "turn")
        text = "<summary>So far.</summary>" if is_summary else f"Response {kinds.count('turn')}."
        size = 1000 if is_summary else next(sizes)
        usage = {"prompt_tokens": size, "completion_tokens": 10, "total_tokens": size + 10}
        return [
            chunk({"role": "assistant", "content": text}),
            chunk({}, "stop"),
            chunk(None, usage=usage),
            DONE,
        ]

    upstream = await stage.openai(play)
    models = [{"model_id": "small", "api_base": upstream.api_base, "context": "32k"}]
    async with terminal_running_code(stage, models, "small") as terminal:
        await terminal.expect("? for shortcuts")
        for number in range(1, 6):
            await terminal.enter(f"Question {number}")
            await terminal.expect(f"Response {number}.")
    check_equal(kinds, ["turn"] * 4 + ["summary", "turn"], "the calls")
    check("So far." in "\n".join(upstream.requests[-1].texts("user")), "the summary is missing")


@scenario
async def picker_lists_the_entries(stage: Stage) -> None:
    """/model shows the entries of models.yaml with host and window, and no row of Anthropic's"""
    async with terminal_running_code(stage, ENTRIES, "w128") as terminal:
        await terminal.expect("? for shortcuts")
        await terminal.enter("/model")
        screen = await terminal.expect("Select model")
        rows = [line for line in screen.splitlines() if re.match(r"\W*\d+\. ", line)]
        check_equal(len(rows), len(ENTRIES) + 1, "the number of rows")
        check("(currently w128)" in rows[0], f"the default row is {rows[0]!r}")
        check(any("w1m via localhost:1 · 1m" in row for row in rows), f"no description: {rows}")
        check("[1m]" not in screen, "a row has [1m]")
        check("Opus" not in "".join(row for row in rows if "claude-opus" not in row), f"rows: {rows}")


@scenario
async def picker_by_discovery(stage: Stage) -> None:
    """/model of plain claude with the variables of `env` shows what GET /v1/models describes"""
    environment = {"CLAUDE_PROXY_DISCOVERY_PREFIX": "claude-proxy/"}
    async with terminal_running_code(
        stage, ENTRIES, "w128", environment=environment, by_env=True
    ) as terminal:
        await terminal.expect("? for shortcuts")
        await terminal.enter("/model")
        await terminal.expect("Select model", "claude-proxy/w1m", "w1m via localhost:1 · 1m")


@scenario
async def model_by_name_that_refuses_one_token(stage: Stage) -> None:
    """/model ID of an entry that no list has: its probe of one token works, although the upstream refuses so few"""

    def play(received: Received) -> Sequence[Step] | Refusal:
        words = "Could not finish the message because max_tokens or model output limit was reached."
        return (refuse(400, words) if received.body["max_tokens"] < 16 else say("From the other."))(received)

    upstream = await stage.openai(play)
    models = [DEMO, {"model_id": "other", "api_base": upstream.api_base, "context": "200k"}]
    async with terminal_running_code(stage, models, "demo", by_env=True) as terminal:
        await terminal.expect("? for shortcuts")
        await terminal.enter("/model other")
        await terminal.expect("Set model to other")
        await terminal.enter("Hello")
        await terminal.expect("From the other.")
    check_equal(upstream.requests[0].body["max_tokens"], 1, "max_tokens of the probe")


@scenario
async def statusline_names_the_current_model(stage: Stage) -> None:
    """The status line shows model, tokens and cost; after /model it names the new model's entry only"""
    upstream = await stage.openai(say("Fine."))
    prices = {"input": 1, "output": 2, "cache_read": 0.1}
    models = [
        {
            "model_id": name,
            "model_name": "real",
            "api_base": upstream.api_base,
            "context": "200k",
            "pricing": prices,
        }
        for name in ("first", "second")
    ]
    settings = home_of(stage) / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True)
    command = shlex.join([sys.executable, "-m", "proxyd", "statusline"])
    settings.write_text(
        json.dumps({"statusLine": {"type": "command", "command": command, "refreshInterval": 1}})
    )
    async with terminal_running_code(stage, models, "first") as terminal:
        await terminal.expect("manual mode on")
        await terminal.enter("Hello")
        await terminal.expect("Fine.", "first · 1.2k in (17% cached), 34 out · $")
        await terminal.enter("/model second")
        await terminal.expect("Yes, switch to second")
        await terminal.press("Enter")
        await terminal.expect("Set model to second")
        await terminal.enter("Hello again")
        screen = await terminal.expect("second · 2.4k in (17% cached), 68 out · $")
        check("via" not in screen, f"the status line names another entry:\n{screen}")


@scenario
async def kinds_of_calls(stage: Stage) -> None:
    """`stats --by kind` counts turns, a subagent and a compaction as what Claude Code's header says they are"""

    def play(received: Received) -> Sequence[Step] | Refusal:
        text = received.texts("user")[-1]
        if "TEXT ONLY" in text:
            return say("<summary>So far.</summary>")(received)
        if "Let another" in text and not received.texts("tool"):
            return call("Agent", description="Count", prompt="Count.", subagent_type="general-purpose")(
                received
            )
        return say("Counted.")(received)

    upstream = await stage.openai(play)
    models = [{"model_id": "m", "api_base": upstream.api_base, "context": "200k"}]
    async with terminal_running_code(stage, models, "m", "--allowedTools", "Agent") as terminal:
        await terminal.expect("? for shortcuts")
        await terminal.enter("Let another count.")
        await terminal.expect("Counted.")
        await terminal.enter("/compact")
        await terminal.expect("Compacted")
    code, out, err = await run_proxyd(variables_of(stage), stage.project, "stats", "--by", "kind", "--json")
    check_equal(code, 0, f"the exit code of stats ({err})")
    calls = {row["kind"]: row["calls"] for row in json.loads(out)["rows"]}
    check(calls.get("main", 0) >= 2, f"turns of the conversation: {calls}")
    check(calls.get("subagent", 0) >= 1, f"calls of the subagent: {calls}")
    check_equal(calls.get("compact"), 1, f"compactions: {calls}")


@scenario
async def starts_in_the_default_mode(stage: Stage) -> None:
    """Claude Code starts in its default permission mode and says how to get auto mode"""
    async with terminal_running_code(stage, [DEMO], "demo") as terminal:
        await terminal.expect("Permission mode: default", "--permission-mode auto", "manual mode on")
