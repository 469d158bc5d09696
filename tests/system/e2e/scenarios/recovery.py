"""Failures from which Claude Code recovers, given the right error message."""

from __future__ import annotations

from tests.system.e2e.openai_upstream import call, chunk, refuse, say
from tests.system.e2e.scripted import Fault, Received, Step, cut
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario


@scenario
async def compaction_after_too_long(stage: Stage) -> None:
    """An upstream's "too long" becomes the message on which Claude Code compacts and continues"""
    words = (
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 190000 tokens. "
        "Please reduce the length of the messages."
    )
    script = [
        say("Noted: blue."),
        say("Noted: green."),
        refuse(400, words, code="context_length_exceeded"),
        say("<summary>The user likes blue and green.</summary>"),
        say("Blue and green."),
    ]
    upstream = await stage.openai(script, key=FAKE_KEY)
    daemon = await stage.daemon([{"model_id": "scripted", "api_base": upstream.api_base}])
    first = await stage.succeed(daemon, "I like blue.", model="scripted")
    resume = ["--resume", first.session_id]
    await stage.succeed(daemon, "And green.", model="scripted", options=resume)
    third = await stage.succeed(daemon, "What do I like?", model="scripted", options=resume)
    check_equal(third.text, "Blue and green.", "the answer")
    summary, last = upstream.requests[3], upstream.requests[4]
    check("TEXT ONLY" in "\n".join(summary.texts("user")), "Claude Code did not ask for a summary")
    check("The user likes blue and green." in "\n".join(last.texts("user")), "the summary is missing")


@scenario
async def invalid_tool_json(stage: Stage) -> None:
    """Arguments that are not JSON: the tool is not run, the model gets the error and corrects them"""

    def broken(received: Received) -> list[Step]:
        head = {"name": "Bash", "arguments": '{"command": "touch never.txt", "descr'}
        fragment = {"index": 0, "id": "call_broken", "type": "function", "function": head}
        return [chunk({"tool_calls": [fragment]}), chunk({}, "tool_calls"), b"data: [DONE]\n\n"]

    script = [
        broken,
        call("Bash", command="touch made.txt", description="Make it"),
        say("Made."),
    ]
    upstream, run = await stage.converse(script, "Make it.", tools=["Bash"])
    check_equal(run.text, "Made.", "the answer")
    check(not (stage.project / "never.txt").exists(), "a call with broken arguments was run")
    check((stage.project / "made.txt").exists(), "the second call was not run")
    check(len(upstream.requests[1].texts("tool")) == 1, "the model was not told of its broken call")


@scenario
async def learned_from_a_refusal(stage: Stage) -> None:
    """A parameter that the upstream refuses is left out from then on; Claude Code sees no error"""

    def particular(received: Received) -> object:
        if "max_tokens" in received.body:
            words = "Unsupported parameter: 'max_tokens' is not supported with this model."
            return refuse(400, words, code="unsupported_parameter")(received)
        return say("Hello there.")(received)

    upstream, run = await stage.converse([particular, particular], "Hello.")
    check_equal(run.text, "Hello there.", "the answer")
    check_equal(["max_tokens" in each.body for each in upstream.requests], [True, False], "max_tokens")


async def _cut(stage: Stage, first: object, by: Fault, response: str) -> None:
    """Cut the upstream once; Claude Code retries, and the text is complete and shown once."""
    script = [first, say(response)]
    upstream, run = await stage.converse(script, "Tell.", tools=["Bash"])
    check_equal(run.text, response, "the answer")
    check_equal(len(upstream.requests), 2, f"calls after {by.value}")
    check(not (stage.project / "never.txt").exists(), "a call that was cut was run")


@scenario
async def cut_before_the_answer(stage: Stage) -> None:
    """The upstream resets the connection before its response"""
    await _cut(stage, cut(say("Never said."), after=0, by=Fault.RESET), Fault.RESET, "Said.")


@scenario
async def cut_in_thinking(stage: Stage) -> None:
    """The upstream's stream ends during the reasoning"""
    turn = say("Never said.", reasoning="A long thought that is not thought to its end.")
    await _cut(stage, cut(turn, after=3, by=Fault.EOF), Fault.EOF, "Said.")


@scenario
async def cut_in_text(stage: Stage) -> None:
    """The upstream's stream is reset in the middle of the text"""
    turn = say("A sentence that is never brought to its end.")
    await _cut(stage, cut(turn, after=4, by=Fault.RESET), Fault.RESET, "Said.")


@scenario
async def cut_in_arguments(stage: Stage) -> None:
    """The upstream's stream ends in the middle of a call's arguments: the tool is not run"""
    turn = call("Bash", command="touch never.txt", description="Never done")
    await _cut(stage, cut(turn, after=5, by=Fault.EOF), Fault.EOF, "Said.")


@scenario
async def cut_after_the_finish(stage: Stage) -> None:
    """The upstream's stream ends after its finish reason, before usage and [DONE]: the response is complete"""
    turn = say("Whole.")
    upstream, run = await stage.converse([cut(turn, after=3, by=Fault.EOF)], "Tell.")
    check_equal(run.text, "Whole.", "the answer")
    check_equal(len(upstream.requests), 1, "calls")
