"""Direct routes: upstreams of the Anthropic API."""

from __future__ import annotations

from collections.abc import Mapping

from tests.system.e2e.anthropic_upstream import call, say
from tests.system.e2e.stage import FAKE_KEY, Stage, check, check_equal, scenario


async def _write_directly(stage: Stage, key_header: str, credentials: Mapping[str, str]) -> None:
    path = stage.project / "direct.txt"
    script = [call("Write", file_path=str(path), content="straight through"), say("Written.")]
    upstream = await stage.anthropic(script, key_header=key_header, key=FAKE_KEY)
    entry = {
        "model_id": "passed-on",
        "model_name": "the-real-name",
        "api_base": upstream.api_base,
        "direct": True,
    }
    daemon = await stage.daemon([entry])
    run = await stage.succeed(
        daemon, "Write it.", model="passed-on", credentials=credentials, tools=["Write"]
    )
    check_equal(run.text, "Written.", "the answer")
    check_equal(path.read_text(), "straight through", "direct.txt")
    check_equal(run.result["usage"]["cache_read_input_tokens"], 400, "cached tokens of both calls")
    for request in upstream.requests:
        check_equal(request.body["model"], "the-real-name", "the upstream's model")
        check_equal(request.query, "beta=true", "the query")
        check("x-anthropic-billing-header" in str(request.body["system"]), "the attribution block is gone")
        check("thinking" in request.body, "a field of the body is gone: thinking")


@scenario
async def direct_with_api_key(stage: Stage) -> None:
    """ANTHROPIC_API_KEY is forwarded as x-api-key only"""
    await _write_directly(stage, "x-api-key", {"ANTHROPIC_API_KEY": FAKE_KEY})


@scenario
async def direct_with_auth_token(stage: Stage) -> None:
    """ANTHROPIC_AUTH_TOKEN is forwarded as Authorization: Bearer only"""
    await _write_directly(stage, "authorization", {"ANTHROPIC_AUTH_TOKEN": FAKE_KEY})


@scenario
async def direct_with_configured_key(stage: Stage) -> None:
    """An api_key in models.yaml replaces the client's"""
    configured = "sk-configured-0123456789abcdef"
    upstream = await stage.anthropic([say("Yes.")], key_header="authorization", key=configured)
    entry = {
        "model_id": "passed-on",
        "api_base": upstream.api_base,
        "direct": True,
        "api_key": configured,
    }
    daemon = await stage.daemon([entry])
    run = await stage.succeed(daemon, "Hello.", model="passed-on")
    check_equal(run.text, "Yes.", "the answer")


@scenario
async def omitted_safeguards_take_their_beta_along(stage: Stage) -> None:
    """`omit: [safeguards]` of an entry removes the field of auto mode and its beta; without it both are forwarded"""
    beta = "dangerous-tool-use-"
    for name, keys in (("whole", {}), ("without", {"omit": ["safeguards"]})):
        upstream = await stage.anthropic(say("Fine."), key_header="authorization", key=FAKE_KEY)
        entry = {"model_id": name, "api_base": upstream.api_base, "direct": True, **keys}
        daemon = await stage.daemon([entry])
        await stage.succeed(daemon, "Hello.", model=name, options=["--permission-mode", "auto"])
        (request,) = upstream.requests
        check_equal("safeguards" in request.body, name == "whole", f"whether {name} gets safeguards")
        betas = request.headers["anthropic-beta"]
        check_equal(beta in betas, name == "whole", f"whether {name} gets the beta ({betas})")
