"""Claude and Gemini on Vertex AI, which takes a token, and neither all betas nor all fields of Claude Code."""

from __future__ import annotations

from tests.support.harness import running_upstream
from tests.support.vendors.vertex import BASE_PATH, StrictVertex
from tests.system.e2e.stage import Stage, check, check_equal, scenario

_TOKEN = "ya29.a-token-of-google"


@scenario
async def vertex(stage: Stage) -> None:
    """Claude, then Gemini with a tool, on Vertex AI: nothing that they refuse is sent, and the token is the entry's"""
    strict = StrictVertex(_TOKEN)
    async with running_upstream(strict) as upstream:
        base = {"provider": "vertex", "api_base": f"{upstream.base}{BASE_PATH}", "access_token": _TOKEN}
        daemon = await stage.daemon(
            [
                {"model_id": "c", "model_name": "claude-sonnet-4-5@20250929", "direct": True, **base},
                {"model_id": "g", "model_name": "gemini-3-pro-preview", "format": "gemini", **base},
            ]
        )
        run = await stage.succeed(daemon, "Begin.", model="c", tools=["Bash"])
        check_equal(run.text, "Hello.", "the answer of Claude")
        options = ["--resume", run.session_id]
        run = await stage.succeed(daemon, "On.", model="g", tools=["Read"], options=options)
        check_equal(run.text, "Hello.", "the answer of Gemini")
    called = {each.partition("/")[0] for each in strict.called}
    check_equal(called, {"anthropic", "google"}, "the publishers that were called")
    (first, *_) = upstream.headers
    check("anthropic-version" not in first, "the version is sent in a header, too")
