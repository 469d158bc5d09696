"""Routes to OpenAI's Responses API: tools and thinking, a resume, switches between all modes, another account."""

from __future__ import annotations

from typing import Any

from tests.system.e2e import anthropic_upstream, openai_upstream
from tests.system.e2e.responses_upstream import respond
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario

#: The least share of what a perfect client reads from the prompt cache.
_LEAST_SHARE = 0.95
_ENTRY = {"model_id": "gpt", "model_name": "gpt-5.6", "provider": "openai", "format": "openai-responses"}


def _kinds(body: dict[str, Any]) -> list[str]:
    """The types of the items behind the first prompt; messages by their role."""
    items = [item["role"] if item["type"] == "message" else item["type"] for item in body["input"]]
    return [kind for kind in items[items.index("user") :] if kind != "developer"]


@scenario
async def responses_conversation(stage: Stage) -> None:
    """Four turns over Responses with tools and thinking, and a resume: reasoning goes back, the cache is read"""
    script = [
        respond(
            ("Bash", {"command": "echo one", "description": "Say one"}),
            thought="First look.",
            text="Looking.",
        ),
        respond(("Bash", {"command": "echo two", "description": "Say two"}), thought=""),
        respond(("Bash", {"command": "echo three", "description": "Say three"}), thought="Almost."),
        respond(text="One, two, three.", thought="Now I can answer.", phase="final_answer"),
        respond(text="As I said.", thought="Repeat it."),
    ]
    upstream = await stage.responses(script, key=FAKE_KEY)
    daemon = await stage.daemon([{**_ENTRY, "api_base": upstream.api_base}])
    first = await stage.succeed(daemon, "Count.", model="gpt", tools=["Bash"])
    check_equal(first.text, "One, two, three.", "the answer")
    options = ["--resume", first.session_id]
    second = await stage.succeed(daemon, "Once more?", model="gpt", tools=["Bash"], options=options)
    check_equal(second.text, "As I said.", "the answer after the resume")
    turn = ["reasoning", "function_call", "function_call_output"]
    expected = ["user", "reasoning", "assistant", *turn[1:], *turn, *turn]
    check_equal(_kinds(upstream.requests[3].body), expected, "the items of the fourth request")
    (text,) = [item for item in upstream.requests[3].body["input"] if item.get("role") == "assistant"]
    check_equal(text["phase"], "commentary", "the phase of the text before a call")
    reasoning = [item for item in upstream.requests[4].body["input"] if item["type"] == "reasoning"]
    check_equal(len(reasoning), 4, "the reasoning that came back after the resume")
    keys = {request.body.get("prompt_cache_key") for request in upstream.requests}
    check(len(keys) == 1 and None not in keys, f"the cache keys differ: {keys}")
    share = upstream.cache.share
    stage.note(f"read from the prompt cache: {share:.1%} of what a perfect client reads")
    check(share >= _LEAST_SHARE, f"only {share:.1%} of the prompts were read from the cache")


@scenario
async def responses_switches(stage: Stage) -> None:
    """A conversation that goes from Chat Completions to Responses, to a direct upstream, and all the way back"""
    bash = {"command": "echo seen", "description": "Look"}
    chat = await stage.openai(
        [
            openai_upstream.call("Bash", reasoning="Chat thinks.", **bash),
            openai_upstream.say("From chat."),
            openai_upstream.say("Chat again."),
        ],
        key=FAKE_KEY,
        other_fields=True,
    )
    responses = await stage.responses(
        [
            respond(("Bash", bash), thought="Responses thinks."),
            respond(text="From responses.", thought=""),
            respond(text="Responses again.", thought="Once more."),
        ],
        key=FAKE_KEY,
    )
    direct = await stage.anthropic(
        [anthropic_upstream.say("From direct.")], key_header="authorization", key=FAKE_KEY
    )
    daemon = await stage.daemon(
        [
            {"model_id": "chat", "api_base": chat.api_base},
            {"model_id": "gpt", "format": "openai-responses", "provider": "openai", "model_name": "gpt-5.6",
             "api_base": responses.api_base},
            {"model_id": "direct", "direct": True, "api_base": direct.api_base},
        ]
    )  # fmt: skip
    run = await stage.succeed(daemon, "Begin.", model="chat", tools=["Bash"])
    said = [run.text]
    for model, prompt in (("gpt", "On."), ("direct", "And on."), ("gpt", "Back."), ("chat", "Last.")):
        options = ["--resume", run.session_id]
        run = await stage.succeed(daemon, prompt, model=model, tools=["Bash"], options=options)
        said.append(run.text)
    check_equal(
        said,
        ["From chat.", "From responses.", "From direct.", "Responses again.", "Chat again."],
        "the answers",
    )
    check_equal(responses.unreadable, 0, "requests with reasoning that is not the upstream's")
    back = [item for item in responses.requests[-1].body["input"] if item["type"] == "reasoning"]
    check_equal(len(back), 2, "the reasoning that came back to Responses")
    (seen,) = direct.requests
    check("cpx1." not in str(seen.body), "reasoning of a translated route reached the direct upstream")
    check(
        "encrypted_content" not in str(chat.requests[-1].body), "encrypted reasoning reached Chat Completions"
    )


@scenario
async def responses_of_another_account(stage: Stage) -> None:
    """Reasoning of another account is left out at once, and that of later turns comes back"""
    bash = {"command": "echo seen", "description": "Look"}
    first = await stage.responses([respond(text="One.", thought="Mine.")], key=FAKE_KEY)
    second = await stage.responses(
        [
            respond(("Bash", bash), thought="Theirs."),
            respond(text="Two."),
        ],
        key=FAKE_KEY,
    )
    before = await stage.daemon([{**_ENTRY, "api_base": first.api_base}])
    run = await stage.succeed(before, "Begin.", model="gpt", tools=["Bash"])
    after = await stage.daemon([{**_ENTRY, "api_base": second.api_base}])
    options = ["--resume", run.session_id]
    run = await stage.succeed(after, "On.", model="gpt", tools=["Bash"], options=options)
    check_equal(run.text, "Two.", "the answer")
    check_equal(second.unreadable, 1, "requests with the reasoning of the other account")
    (kept,) = [item for item in second.requests[-1].body["input"] if item["type"] == "reasoning"]
    check_equal(kept["summary"][0]["text"], "Theirs.", "the reasoning that came back")
