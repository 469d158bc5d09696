"""Rules that hand classes of requests to other entries, with the classes as Claude Code names them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from tests.support.raw_sockets import until
from tests.system.e2e import anthropic_upstream
from tests.system.e2e.claude_code import SWITCHES
from tests.system.e2e.openai_upstream import calls, say
from tests.system.e2e.scripted import Received, Refusal, Step
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario
from tests.system.e2e.terminal import terminal_running_code

#: Claude Code counts a title as traffic that is not essential; the rest of it ends at a proxy that is not there.
TITLES = {**SWITCHES, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "", "HTTPS_PROXY": "http://127.0.0.1:9"}
#: For a few words no title is asked for.
PROMPT = "Please greet me in a friendly way, and say when it is done."


@scenario
async def classes_go_to_their_own_entries(stage: Stage) -> None:
    """A subagent and a web search go to entries of their own by rules; the ledger knows class, agent and prompt"""

    def main(received: Received) -> Sequence[Step]:
        results = received.texts("tool")
        if not results:
            turn = calls(
                (
                    "Agent",
                    {"description": "look", "prompt": "Look around.", "subagent_type": "general-purpose"},
                ),
                ("WebSearch", {"query": "rust 2026"}),
            )
        else:
            turn = say("All done.")
        return turn(received)  # type: ignore[return-value]

    upstream = await stage.openai(main)
    small = await stage.openai(say("I looked."))
    rules = [
        {"when": {"class": "subagent"}, "use": "small"},
        {"when": {"web_search": True}, "use": "searcher"},
    ]
    daemon = await stage.daemon(
        [
            {"model_id": "big", "api_base": upstream.api_base, "routes": rules},
            {"model_id": "small", "api_base": small.api_base},
            {"model_id": "searcher", "api_base": small.api_base},
        ]
    )
    hints = {"CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1"}
    run = await stage.succeed(
        daemon, "Look around and search.", model="big", tools=["Agent", "WebSearch"], environment=hints
    )
    check("All done." in run.text, f"the answer is {run.text!r}")
    check(
        any("Look around." in text for request in small.requests for text in request.texts("user")),
        "no subagent",
    )
    await daemon.stop()
    database = sqlite3.connect(daemon.state_folder / "usage.db")
    rows = database.execute("SELECT kind, route, rule, agent_type, prompt_id FROM calls").fetchall()
    database.close()
    found = {kind: (route, rule, agent) for kind, route, rule, agent, _ in rows}
    check_equal(found["main"], ("big", None, None), "who served the conversation")
    check_equal(
        found["subagent"], ("small", "models[0].routes[0]", "general-purpose"), "who served the subagent"
    )
    check_equal(found["search"], ("searcher", "models[0].routes[1]", None), "who served the search")
    prompts = {kind: [row[-1] for row in rows if row[0] == kind] for kind in ("main", "subagent")}
    check(None not in prompts["main"], "a prompt has no id")
    check(
        set(prompts["subagent"]) <= set(prompts["main"]), f"the subagent's prompt is another one: {prompts}"
    )


@scenario
async def titles_go_to_their_own_entry(stage: Stage) -> None:
    """In a terminal the title of a conversation comes from an entry of its own, by a rule for its class"""
    upstream = await stage.openai(say("Hello, it is done."))
    titles = await stage.openai(say('{"title": "A greeting"}'))
    rules = [{"when": {"class": "title"}, "use": "small"}]
    entries = [
        {"model_id": "big", "api_base": upstream.api_base, "routes": rules},
        {"model_id": "small", "api_base": titles.api_base},
    ]
    prompt = (
        "Please greet me in a friendly way, and say when it is done."  # no title is asked for a few words
    )
    # Claude Code counts a title as traffic that is not essential; the rest of it ends at a proxy that is not there.
    switches = {
        **SWITCHES,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    async with terminal_running_code(stage, entries, "big", switches=switches) as terminal:
        await terminal.expect("? for shortcuts")
        await terminal.enter(prompt)
        await terminal.expect("Hello, it is done.")
        await until(lambda: bool(titles.requests))
    check(PROMPT in titles.requests[0].texts("user")[-1], "the title is not that of the conversation")
    check_equal(len(upstream.requests), 1, "requests to the entry of the conversation")


@scenario
async def refused_schema_of_a_title(stage: Stage) -> None:
    """A direct upstream refuses the schema of titles: one refused call, and the conversation keeps its effort"""
    seen: list[tuple[list[str], bool]] = []

    def play(received: Received) -> Sequence[Step] | Refusal:
        config, has_tools = received.body.get("output_config") or {}, bool(received.body.get("tools"))
        seen.append((sorted(config), has_tools))
        if "format" in config:
            message = "output_config.format: Extra inputs are not permitted"
            return anthropic_upstream.refuse(400, "invalid_request_error", message)(received)
        return anthropic_upstream.say("Hello, it is done." if has_tools else '{"title": "Hi"}')(received)

    upstream = await stage.anthropic(play, key_header="authorization", key=FAKE_KEY)
    entry = {"model_id": "big", "api_base": upstream.api_base, "direct": True, "api_key": FAKE_KEY}
    async with terminal_running_code(stage, [entry], "big", switches=TITLES) as terminal:
        await terminal.expect("? for shortcuts")
        await terminal.enter(PROMPT)
        await terminal.expect("Hello, it is done.")
        await until(lambda: (["effort"], False) in seen)
        await terminal.enter("Once more.")
        await until(lambda: seen.count((["effort"], True)) == 2)
    check_equal(seen.count((["effort", "format"], False)), 1, "refused calls")
