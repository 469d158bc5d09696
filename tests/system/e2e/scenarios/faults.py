"""Upstream failures and the reaction of Claude Code."""

from __future__ import annotations

from tests.system.e2e.claude_code import NO_SECOND_CHANCE
from tests.system.e2e.openai_upstream import refuse, say
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario


@scenario
async def rate_limited_once(stage: Stage) -> None:
    """The proxy retries after a 429; Claude Code sees no error"""
    limited = refuse(429, "Rate limit reached", kind="requests", code="rate_limit_exceeded")
    script = [limited, say("Through at last.")]
    upstream, run = await stage.converse(script, "Hello.", environment=NO_SECOND_CHANCE)
    check_equal(run.text, "Through at last.", "the answer")
    check_equal(upstream.requests[0].body, upstream.requests[1].body, "the second try")


@scenario
async def refused_key(stage: Stage) -> None:
    """A refused key: Claude Code shows the upstream's message"""
    words = "Incorrect API key provided."
    upstream = await stage.openai(refuse(401, words, code="invalid_api_key"), key=FAKE_KEY)
    daemon = await stage.daemon([{"model_id": "scripted", "api_base": upstream.api_base}])
    run = await stage.run(daemon, "Hello.", model="scripted")
    check(not run.is_success, "Claude Code took a refused call for a success")
    check_equal(run.result.get("api_error_status"), 400, "api_error_status")
    check(words in run.text, f"the upstream's words are missing: {run.text!r}")
    check(FAKE_KEY not in run.stdout + run.stderr + daemon.log(), "the key was printed")


@scenario
async def unknown_model(stage: Stage) -> None:
    """A model that models.yaml does not have: Claude Code shows which ones there are"""
    daemon = await stage.daemon([{"model_id": "known-one", "api_base": "builtin:demo"}])
    run = await stage.run(daemon, "Hello.", model="another")
    check(not run.is_success, "Claude Code took an unknown model for a success")
    check_equal(run.result.get("api_error_status"), 400, "api_error_status")
    check("known models: known-one" in run.text, f"the explanation does not name the models: {run.text!r}")
