"""The embedded demo upstream."""

from __future__ import annotations

from tests.system.e2e.claude_code import NO_SECOND_CHANCE
from tests.system.e2e.stage import Stage, check, check_equal, scenario

DEMO = {"model_id": "demo", "api_base": "builtin:demo"}


@scenario
async def hello_on_demo(stage: Stage) -> None:
    """A first conversation with the embedded model, without a key or network"""
    daemon = await stage.daemon([DEMO])
    run = await stage.succeed(
        daemon,
        "hello",
        model="demo",
        credentials={"ANTHROPIC_AUTH_TOKEN": "any"},
        environment=NO_SECOND_CHANCE,
    )
    check("demo model" in run.text, f"the answer does not say who answers: {run.text!r}")
    check("“hello”" in run.text, f"the answer does not quote the user's own words: {run.text!r}")
    check_equal(run.result["num_turns"], 1, "num_turns")
    check_equal(run.result["stop_reason"], "end_turn", "stop_reason")
    check(run.result["usage"]["input_tokens"] > 1000, f"no usage came through: {run.result['usage']}")
    check(run.result["usage"]["output_tokens"] > 50, f"no usage came through: {run.result['usage']}")


@scenario
async def demo_writes_a_file(stage: Stage) -> None:
    """The embedded model calls the Write tool if the prompt names it, and ends with a sentence"""
    daemon = await stage.daemon([DEMO])
    prompt = "use the Write tool to create hello.txt saying hi"
    run = await stage.succeed(daemon, prompt, model="demo", tools=["Write"], environment=NO_SECOND_CHANCE)
    written = stage.project / "hello.txt"
    check(written.exists(), f"hello.txt did not appear; the answer was {run.text!r}")
    check_equal(written.read_text().strip(), "hi", "hello.txt")
    check(run.text.startswith("The Write tool answered"), f"no closing sentence: {run.text!r}")
