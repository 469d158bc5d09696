"""Text, reasoning and several turns through a translated route."""

from __future__ import annotations

from collections.abc import Mapping

from tests.system.e2e.openai_upstream import call, say
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario


@scenario
async def text_and_usage(stage: Stage) -> None:
    """A plain text: its stop reason, and the upstream's usage with cached tokens counted once"""
    upstream, run = await stage.converse([say("Grüße from the upstream: 你好 👋")], "Say something.")
    check_equal(run.text, "Grüße from the upstream: 你好 👋", "the answer")
    check_equal(run.result["stop_reason"], "end_turn", "stop_reason")
    usage = run.result["usage"]
    seen = {name: usage[name] for name in ("input_tokens", "cache_read_input_tokens", "output_tokens")}
    expected = {"input_tokens": 1000, "cache_read_input_tokens": 200, "output_tokens": 34}
    check_equal(seen, expected, "usage")
    (request,) = upstream.requests
    check(request.is_stream, "the upstream was not asked for a stream")
    check_equal(request.body["model"], "scripted", "the upstream's model")
    check("Say something." in request.texts("user")[0], "the prompt did not arrive in the first user message")
    check(
        "billing-header" not in str(request.messages), "the attribution block reached a translated upstream"
    )


@scenario
async def upstream_without_streams(stage: Stage) -> None:
    """can_stream: false requests a response without a stream and streams it to Claude Code"""
    upstream, run = await stage.converse(
        [call("Bash", command="echo one", description="Say one"), say("It said one.")],
        "Run it.",
        entry={"can_stream": False},
        tools=["Bash"],
    )
    check_equal(run.text, "It said one.", "the answer")
    check_equal([request.is_stream for request in upstream.requests], [False, False], "stream")


@scenario
async def resumed_conversation(stage: Stage) -> None:
    """--resume and --continue send the whole history, each message once and in order"""
    script = [say("Noted: blue."), say("It was blue."), say("Still blue.")]
    upstream = await stage.openai(script, key=FAKE_KEY)
    daemon = await stage.daemon([{"model_id": "scripted", "api_base": upstream.api_base}])
    first = await stage.succeed(daemon, "My colour is blue.", model="scripted")
    resume = ["--resume", first.session_id]
    second = await stage.succeed(daemon, "Which colour was it?", model="scripted", options=resume)
    third = await stage.succeed(daemon, "And now?", model="scripted", options=["--continue"])
    check_equal([run.text for run in (second, third)], ["It was blue.", "Still blue."], "the answers")
    last = upstream.requests[-1]
    check_equal(last.texts("assistant"), ["Noted: blue.", "It was blue."], "the assistant's history")
    users = "\n".join(last.texts("user"))
    for words in ("My colour is blue.", "Which colour was it?", "And now?"):
        check_equal(users.count(words), 1, f"how often the history holds {words!r}")


async def _reason(stage: Stage, provider: Mapping[str, str]) -> None:
    script = [
        call("Bash", reasoning="I have to look first.", command="echo seen", description="Look"),
        say("I have seen it.", reasoning="Now I can answer."),
        say("As I said, seen.", reasoning="Repeat it."),
    ]
    upstream = await stage.openai(script, key=FAKE_KEY, other_fields=True)
    daemon = await stage.daemon([{"model_id": "thinker", "api_base": upstream.api_base, **provider}])
    first = await stage.succeed(daemon, "Look and tell.", model="thinker", tools=["Bash"])
    check_equal(first.text, "I have seen it.", "the answer")
    options = ["--resume", first.session_id]
    second = await stage.succeed(daemon, "Once more?", model="thinker", options=options)
    check_equal(second.text, "As I said, seen.", "the second answer")
    in_loop, resumed = upstream.requests[1], upstream.requests[2]
    (called,) = [message for message in in_loop.messages if message["role"] == "assistant"]
    check_equal(called.get("reasoning_content"), "I have to look first.", "the reasoning in the tool loop")
    responses = [text for text in resumed.texts("assistant") if text]
    check_equal(responses, ["I have seen it."], "what the assistant is quoted with")


@scenario
async def reasoning_model(stage: Stage) -> None:
    """Reasoning is no part of the text, and returns to its upstream in its own field"""
    await _reason(stage, {"provider": "deepseek"})


@scenario
async def reasoning_of_an_unnamed_vendor(stage: Stage) -> None:
    """The same without a provider in models.yaml: the field is that of the received reasoning"""
    await _reason(stage, {})
