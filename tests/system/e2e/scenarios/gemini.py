"""Routes to Google's Gemini API: tools and thinking, a resume, switches between all modes, another account."""

from __future__ import annotations

from typing import Any

from tests.system.e2e import anthropic_upstream, openai_upstream, responses_upstream
from tests.system.e2e.gemini_upstream import MODEL, PLACEHOLDER, respond
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario

#: The least share of what a perfect client reads from the prompt cache.
_LEAST_SHARE = 0.95
_ENTRY = {"model_id": "gem", "model_name": MODEL, "provider": "gemini", "format": "gemini"}
_BASH = {"command": "echo seen", "description": "Look"}


def _kinds(body: dict[str, Any]) -> list[str]:
    """The kinds of the parts behind the first prompt; a star stands for a signature."""
    kinds = []
    for content in body["contents"][1:]:
        for part in content["parts"]:
            kind = next(name for name in ("text", "functionCall", "functionResponse") if name in part)
            if kind != "text" or content["role"] == "model":
                kinds.append(kind + ("*" if "thoughtSignature" in part else ""))
    return kinds


def _signatures(body: dict[str, Any]) -> list[str]:
    parts = [part for content in body["contents"] for part in content["parts"]]
    return [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]


@scenario
async def gemini_conversation(stage: Stage) -> None:
    """Four turns over Gemini's API with tools and thinking, and a resume: signatures go back, the cache is read"""
    script = [
        respond(
            ("Bash", {"command": "echo one", "description": "Say one"}),
            ("Bash", {"command": "echo uno", "description": "Say uno"}),
            thought="First look.",
            text="Looking.",
        ),
        respond(("Bash", {"command": "echo two", "description": "Say two"})),
        respond(("Bash", {"command": "echo three", "description": "Say three"}), thought="Almost."),
        respond(text="One, two, three.", thought="Now I can answer."),
        respond(text="As I said.", thought="Repeat it."),
    ]
    upstream = await stage.gemini(script, key=FAKE_KEY)
    daemon = await stage.daemon([{**_ENTRY, "api_base": upstream.api_base}])
    first = await stage.succeed(daemon, "Count.", model="gem", tools=["Bash"])
    check_equal(first.text, "One, two, three.", "the answer")
    options = ["--resume", first.session_id]
    second = await stage.succeed(daemon, "Once more?", model="gem", tools=["Bash"], options=options)
    check_equal(second.text, "As I said.", "the answer after the resume")
    turn = ["functionCall*", "functionResponse"]
    expected = ["text", "functionCall*", "functionCall", "functionResponse", "functionResponse", *turn, *turn]
    check_equal(_kinds(upstream.requests[3].body), expected, "the parts of the fourth request")
    signatures = _signatures(upstream.requests[4].body)
    check(PLACEHOLDER not in signatures, "a signature was lost")
    check_equal(len(signatures), 3, "the signatures that came back after the resume")
    share = upstream.cache.share
    stage.note(f"read from the prompt cache: {share:.1%} of what a perfect client reads")
    check(share >= _LEAST_SHARE, f"only {share:.1%} of the prompts were read from the cache")


@scenario
async def gemini_malformed_call(stage: Stage) -> None:
    """A malformed call and an empty response are repeated before Claude Code sees anything of them"""
    script = [
        respond(finish="MALFORMED_FUNCTION_CALL"),
        respond(("Bash", _BASH)),
        respond(),
        respond(text="Done."),
    ]
    upstream = await stage.gemini(script, key=FAKE_KEY)
    daemon = await stage.daemon([{**_ENTRY, "api_base": upstream.api_base}])
    run = await stage.succeed(daemon, "Look.", model="gem", tools=["Bash"])
    check_equal(run.text, "Done.", "the answer")
    bodies = [request.body for request in upstream.requests]
    check(bodies[0] == bodies[1] and bodies[2] == bodies[3], "a repeated request differs from the first")


#: Every change from one format to another, once.
_ROUND = [
    "chat",
    "gem",
    "chat",
    "gpt",
    "chat",
    "direct",
    "gem",
    "gpt",
    "gem",
    "direct",
    "gpt",
    "direct",
    "chat",
]


@scenario
async def gemini_switches(stage: Stage) -> None:
    """A conversation that changes from each of the four formats to each other, with a tool call in each turn"""
    chat = await stage.openai(
        [
            turn
            for number in range(_ROUND.count("chat"))
            for turn in (
                openai_upstream.call("Bash", reasoning="Chat thinks.", **_BASH),
                openai_upstream.say(f"chat {number}"),
            )
        ],
        key=FAKE_KEY,
        other_fields=True,
    )
    gemini = await stage.gemini(
        [
            turn
            for number in range(_ROUND.count("gem"))
            for turn in (respond(("Bash", _BASH), thought="Hm."), respond(text=f"gem {number}"))
        ],
        key=FAKE_KEY,
    )
    responses = await stage.responses(
        [
            turn
            for number in range(_ROUND.count("gpt"))
            for turn in (
                responses_upstream.respond(("Bash", _BASH), thought="Hm."),
                responses_upstream.respond(text=f"gpt {number}", thought=""),
            )
        ],
        key=FAKE_KEY,
    )
    direct = await stage.anthropic(
        [
            turn
            for number in range(_ROUND.count("direct"))
            for turn in (anthropic_upstream.call("Bash", **_BASH), anthropic_upstream.say(f"direct {number}"))
        ],
        key_header="authorization",
        key=FAKE_KEY,
    )
    daemon = await stage.daemon(
        [
            {"model_id": "chat", "api_base": chat.api_base},
            {**_ENTRY, "api_base": gemini.api_base},
            {"model_id": "gpt", "format": "openai-responses", "provider": "openai", "model_name": "gpt-5.6",
             "api_base": responses.api_base},
            {"model_id": "direct", "direct": True, "api_base": direct.api_base},
        ]
    )  # fmt: skip
    said, session, counts = [], "", dict.fromkeys(_ROUND, 0)
    for model in _ROUND:
        options = ["--resume", session] if session else []
        run = await stage.succeed(daemon, f"On with {model}.", model=model, tools=["Bash"], options=options)
        session = run.session_id
        said.append((run.text, f"{model} {counts[model]}"))
        counts[model] += 1
    check_equal([text for text, _ in said], [expected for _, expected in said], "the answers")
    check_equal(gemini.unreadable + responses.unreadable, 0, "requests with data of another upstream")
    last = _signatures(gemini.requests[-1].body)
    own = [each for each in last if each != PLACEHOLDER]
    check_equal(len(own), counts["gem"], "the signatures that came back to Gemini")
    check(len(last) > len(own), "no call of another model has a placeholder")
    check(
        "cpx1." not in str(direct.requests[-1].body),
        "reasoning of a translated route reached the direct upstream",
    )
    for other in (chat, responses, direct):
        sent = str(other.requests[-1].body)
        check(
            not any(each in sent for each in own), f"a thought signature reached the {other.dialect} upstream"
        )


@scenario
async def gemini_of_another_account(stage: Stage) -> None:
    """Signatures of another account are replaced at once, and those of later turns come back"""
    first = await stage.gemini([respond(("Bash", _BASH)), respond(text="One.")], key=FAKE_KEY)
    second = await stage.gemini([respond(("Bash", _BASH)), respond(text="Two.")], key=FAKE_KEY)
    before = await stage.daemon([{**_ENTRY, "api_base": first.api_base}])
    run = await stage.succeed(before, "Begin.", model="gem", tools=["Bash"])
    after = await stage.daemon([{**_ENTRY, "api_base": second.api_base}])
    options = ["--resume", run.session_id]
    run = await stage.succeed(after, "On.", model="gem", tools=["Bash"], options=options)
    check_equal(run.text, "Two.", "the answer")
    check_equal(second.unreadable, 1, "requests with a signature of the other account")
    kept = _signatures(second.requests[-1].body)
    check_equal(
        [each == PLACEHOLDER for each in kept], [True, False], "the placeholders among the signatures"
    )
