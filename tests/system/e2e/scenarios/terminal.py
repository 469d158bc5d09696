"""What a user of ``claude-proxy code`` sees on the screen: windows, picker, permission mode."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tests.system.e2e.openai_upstream import DONE, chunk
from tests.system.e2e.scripted import Received, Step
from tests.system.e2e.stage import Stage, check, check_equal, scenario
from tests.system.e2e.terminal import Terminal, terminal_running_code

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
async def starts_in_the_default_mode(stage: Stage) -> None:
    """Claude Code starts in its default permission mode and says how to get auto mode"""
    async with terminal_running_code(stage, [DEMO], "demo") as terminal:
        await terminal.expect("Permission mode: default", "--permission-mode auto", "manual mode on")
