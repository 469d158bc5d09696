"""What is wrong with an entry, a key or an upstream is reported within seconds, in words that Claude Code shows.

The rows of docs/troubleshooting.md. Claude Code keeps its own ten retries here: a cause that it repeats takes minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.support.harness import running_upstream
from tests.system.e2e.daemon import Daemon
from tests.system.e2e.stage import Stage, check, scenario

#: From the prompt to the message, without the start of the process.
MAX_S = 5.0


async def _shows(stage: Stage, daemon: Daemon, *parts: str, model: str = "scripted", **options: Any) -> None:
    """Check that a run fails soon, with a message that has all `parts`."""
    run = await stage.run(
        daemon, "Hello.", model=model, environment={"CLAUDE_CODE_MAX_RETRIES": "10"}, **options
    )
    check(not run.is_success, "Claude Code took the failure for a success")
    for part in parts:
        check(part in run.text, f"{part!r} is missing in {run.text!r}")
    check("/login" not in run.text, f"it asks for a login: {run.text!r}")
    check("issue with the selected model" not in run.text, f"the message is hidden: {run.text!r}")
    seconds = float(run.result.get("duration_ms", 1e9)) / 1000
    check(seconds <= MAX_S, f"it took {seconds:.1f} s")


async def _upstream_shows(
    stage: Stage,
    response: Mapping[str, Any],
    *parts: str,
    path: str = "/v1",
    entry: Mapping[str, Any] | None = None,
) -> None:
    """As `_shows`, for an upstream that has one response for every request."""

    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(**response)

    async with running_upstream(respond) as upstream:
        entries = [{"model_id": "scripted", "api_base": f"{upstream.base}{path}", **(entry or {})}]
        await _shows(stage, await stage.daemon(entries), *parts)


def _json(status: int, text: str) -> dict[str, Any]:
    return {"status": status, "text": text, "content_type": "application/json"}


@scenario
async def cause_unset_key(stage: Stage) -> None:
    """A key whose variable is not set"""
    entry = {
        "model_id": "scripted",
        "api_base": "https://upstream.invalid/v1",
        "api_key": "${NO_SUCH_KEY}",
    }
    await _shows(stage, await stage.daemon([entry]), "NO_SUCH_KEY is not set")


@scenario
async def cause_wrong_key(stage: Stage) -> None:
    """A key that the upstream refuses"""
    text = '{"error":{"message":"Incorrect API key provided.","code":"invalid_api_key"}}'
    await _upstream_shows(stage, _json(401, text), "Incorrect API key provided.", "answered 401")


@scenario
async def cause_no_permission(stage: Stage) -> None:
    """A key that may not use the model"""
    text = '{"error":{"message":"Your plan does not include this.","code":"no_access"}}'
    await _upstream_shows(stage, _json(403, text), "Your plan does not include this.", "answered 403")


@scenario
async def cause_model_not_in_models_yaml(stage: Stage) -> None:
    """A model that models.yaml does not have"""
    daemon = await stage.daemon([{"model_id": "known-one", "api_base": "builtin:demo"}])
    await _shows(stage, daemon, "'another' is not in models.yaml; known models: known-one", model="another")


@scenario
async def cause_model_unknown_to_the_upstream(stage: Stage) -> None:
    """A model that the upstream does not have"""
    text = '{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}'
    await _upstream_shows(stage, _json(404, text), "The model `x` does not exist")


@scenario
async def cause_base_without_v1(stage: Stage) -> None:
    """An api_base without its /v1"""
    response = {"status": 404, "text": "404 page not found"}
    await _upstream_shows(stage, response, "/chat/completions answered 404", "ends in /v1", path="")


@scenario
async def cause_path_of_a_page(stage: Stage) -> None:
    """An api_base that leads to a web page"""
    response = {"status": 200, "text": "<html>Please log in</html>", "content_type": "text/html"}
    await _upstream_shows(stage, response, "/v1/chat/completions answered with a page", "correct api_base")


@scenario
async def cause_redirect(stage: Stage) -> None:
    """An api_base that redirects"""
    response = {"status": 308, "headers": {"location": "https://elsewhere.invalid/v1/chat/completions"}}
    await _upstream_shows(stage, response, "redirect (308) to https://elsewhere.invalid/v1/chat/completions")


@scenario
async def cause_direct_to_openai(stage: Stage) -> None:
    """`direct` for a server that speaks OpenAI's API"""
    text = '{"error":{"message":"Invalid URL (POST /v1/messages)","type":"invalid_request_error"}}'
    entry = {"direct": True}
    await _upstream_shows(stage, _json(404, text), "/v1/messages", "leave `direct` out", entry=entry)


@scenario
async def cause_missing_direct(stage: Stage) -> None:
    """No `direct` for a server that speaks Anthropic's API"""
    text = '{"type":"error","error":{"type":"not_found_error","message":"Not found"}}'
    await _upstream_shows(stage, _json(404, text), "set `direct: true`", path="/anthropic")


@scenario
async def cause_server_does_not_run(stage: Stage) -> None:
    """A local server that does not run, and then its open circuit"""

    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response()

    async with running_upstream(respond) as upstream:
        api_base = f"{upstream.base}/v1"
    daemon = await stage.daemon([{"model_id": "scripted", "api_base": api_base}])
    await _shows(stage, daemon, f"could not connect to {api_base}/chat/completions", "start it")
    await _shows(stage, daemon, f"could not connect to {api_base}/chat/completions")


@scenario
async def cause_quota_of_hours(stage: Stage) -> None:
    """A quota that resets in hours"""
    response = {
        **_json(429, '{"error":{"message":"Daily quota spent."}}'),
        "headers": {"retry-after": "7200"},
    }
    await _upstream_shows(stage, response, "Daily quota spent.")


@scenario
async def doubled_v1(stage: Stage) -> None:
    """ANTHROPIC_BASE_URL with a /v1 at its end works"""
    daemon = await stage.daemon([{"model_id": "demo", "api_base": "builtin:demo"}])
    daemon.base_url += "/v1"
    await stage.succeed(daemon, "Hello.", model="demo")
