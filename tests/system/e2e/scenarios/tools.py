"""Tool calls of a translated upstream, run by Claude Code."""

from __future__ import annotations

import json
from typing import Any

from tests.system.e2e.openai_upstream import call, calls, say
from tests.system.e2e.scripted import Received
from tests.system.e2e.stage import Stage, check, check_equal, scenario

POEM = 'Roses are "red",\n\tviolets are \\blue\\,\nüber 漢字 👋\n'


def _calls_in(received: Received) -> list[dict[str, Any]]:
    return [call for message in received.messages for call in message.get("tool_calls") or []]


@scenario
async def file_through_write(stage: Stage) -> None:
    """A file with quotes, backslashes and four-byte characters, split over many argument fragments"""
    path = stage.project / "poem.txt"
    script = [call("Write", file_path=str(path), content=POEM), say("The poem is written.")]
    upstream, run = await stage.converse(script, "Write a poem.", tools=["Write"])
    check(path.exists(), "poem.txt did not appear")
    check_equal(path.read_text(), POEM, "poem.txt")
    check_equal(run.text, "The poem is written.", "the answer")
    check_equal(run.result["num_turns"], 2, "num_turns")
    (made,) = _calls_in(upstream.requests[1])
    (result,) = [message for message in upstream.requests[1].messages if message["role"] == "tool"]
    check_equal(result["tool_call_id"], made["id"], "the id that the result answers")
    check_equal(made["function"]["name"], "Write", "the name of the call in the history")
    offered = [tool["function"]["name"] for tool in upstream.requests[0].body["tools"]]
    check("DeferredToolPlaceholder" not in offered, "a tool that must never be called was offered")
    for name in ("Bash", "Read", "Write"):
        check(name in offered, f"{name} was not offered: {offered}")


@scenario
async def bash_call(stage: Stage) -> None:
    """A Bash call whose output reaches the upstream as the tool's message"""
    script = [
        call("Bash", command="echo $((6 * 7)) | tee answer.txt", description="Work it out"),
        say("It is 42."),
    ]
    upstream, run = await stage.converse(script, "What is six times seven?", tools=["Bash"])
    check_equal(run.text, "It is 42.", "the answer")
    check_equal((stage.project / "answer.txt").read_text(), "42\n", "answer.txt")
    check_equal(upstream.requests[1].texts("tool"), ["42"], "what the upstream got from the tool")


@scenario
async def failing_bash_call(stage: Stage) -> None:
    """The failure of a command reaches the upstream, and the conversation continues"""
    script = [call("Bash", command="echo broken >&2; exit 3", description="Break"), say("It broke.")]
    upstream, run = await stage.converse(script, "Break it.", tools=["Bash"])
    check_equal(run.text, "It broke.", "the answer")
    (result,) = upstream.requests[1].texts("tool")
    check("Error" in result and "broken" in result, f"the upstream did not get the failure: {result!r}")


@scenario
async def two_parallel_calls(stage: Stage) -> None:
    """Two calls in one turn, after a text: both run, and the results are sent in the order of the calls"""
    wanted = [
        ("Bash", {"command": "echo first > one.txt; cat one.txt", "description": "First"}),
        ("Write", {"file_path": str(stage.project / "two.txt"), "content": "second"}),
    ]

    script = [calls(*wanted, text="I do both."), say("Both done.")]
    upstream, run = await stage.converse(script, "Do both.", tools=["Bash", "Write"])
    check_equal(run.text, "Both done.", "the answer")
    check_equal((stage.project / "one.txt").read_text(), "first\n", "one.txt")
    check_equal((stage.project / "two.txt").read_text(), "second", "two.txt")
    history = upstream.requests[1].messages
    (turn,) = [message for message in history if message["role"] == "assistant"]
    check_equal(turn["content"], "I do both.", "the text beside the calls")
    check_equal([made["function"]["name"] for made in turn["tool_calls"]], ["Bash", "Write"], "the calls")
    answered = [message["tool_call_id"] for message in history if message["role"] == "tool"]
    check_equal(answered, [made["id"] for made in turn["tool_calls"]], "the order of the results")


@scenario
async def call_written_as_text(stage: Stage) -> None:
    """A model without a parser on its server writes a Bash call as Hermes does: it runs, and an example does not"""
    wanted = {"command": "echo $((6 * 7)) | tee answer.txt", "description": "Work it out"}
    example = (
        '```\n<tool_call>{"name": "Bash", "arguments": {"command": "touch never.txt"}}</tool_call>\n```\n'
    )
    text = (
        f'I work it out.\n\n<tool_call>\n{{"name": "Bash", "arguments": {json.dumps(wanted)}}}\n</tool_call>'
    )
    script = [say(text), say(f"It is 42. I wrote:\n\n{example}")]
    upstream, run = await stage.converse(script, "What is six times seven?", tools=["Bash"])
    check_equal(run.result["num_turns"], 2, "num_turns")
    check(run.text.startswith("It is 42.") and "never.txt" in run.text, f"the answer: {run.text!r}")
    check_equal((stage.project / "answer.txt").read_text(), "42\n", "answer.txt")
    check(not (stage.project / "never.txt").exists(), "the example in the code fence was run")
    check_equal(upstream.requests[1].texts("tool"), ["42"], "what the upstream got from the tool")
    (made,) = _calls_in(upstream.requests[1])
    check_equal(json.loads(made["function"]["arguments"]), wanted, "the call in the history")
