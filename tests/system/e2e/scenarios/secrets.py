"""Logins, prompts and keys on a machine where much could lead them elsewhere: they go to the chosen entry only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.system.e2e.openai_upstream import call, say
from tests.system.e2e.scripted import Received, Refusal, Step
from tests.system.e2e.stage import Stage, check, check_equal, scenario
from tests.system.e2e.terminal import home_of, terminal_running_code

LOGIN = "sk-ant-oat01-planted-login-0123456789"
PROMPT = "planted words of the user"
ANSWER = "planted words of the model"
#: As on a machine of a user: nothing that is not essential is switched off.
BARE = {"IS_SANDBOX": "1"}


class Elsewhere:
    """A server that nothing should reach.

    Attributes:
        received: the beginning of what each connection brought.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.origin = ""

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received.append(await reader.read(500))
        writer.close()


@asynccontextmanager
async def elsewhere() -> AsyncIterator[Elsewhere]:
    found = Elsewhere()
    server = await asyncio.start_server(found.on_connection, "127.0.0.1", 0)
    found.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


def proxy_variables(proxy: Elsewhere) -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return dict.fromkeys([*names, *(name.lower() for name in names)], proxy.origin)


def telemetry_of_prompts(collector: Elsewhere) -> dict[str, str]:
    return {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.origin,
        "OTEL_LOG_USER_PROMPTS": "1",
        "OTEL_LOGS_EXPORT_INTERVAL": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }


def plant_login(home: Path) -> None:
    """Log the user of `home` in to claude.ai."""
    login = {
        "accessToken": LOGIN,
        "refreshToken": "sk-ant-ort01-planted-refresh",
        "expiresAt": 4_102_444_800_000,
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
    (home / ".claude").mkdir(parents=True, exist_ok=True)
    (home / ".claude" / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))


def _play(received: Received) -> Sequence[Step] | Refusal:
    """Let a subagent work on the prompt, then answer; side calls get the response at once."""
    texts = "\n".join(received.texts("user"))
    offers_agents = any(tool["function"]["name"] == "Agent" for tool in received.body.get("tools") or ())
    if PROMPT in texts and offers_agents and not received.texts("tool"):
        task = {"description": "Look", "prompt": "task of the subagent", "subagent_type": "general-purpose"}
        return call("Agent", **task)(received)
    return say(ANSWER)(received)


@scenario
async def planted_secrets_go_nowhere_else(stage: Stage) -> None:
    """With a login, a proxy, Bedrock and telemetry of prompts planted, no byte goes anywhere but to the chosen entry"""
    chosen, other = await stage.openai(_play, key="any"), await stage.openai(_play)
    models = [
        {"model_id": "chosen", "api_base": chosen.api_base, "context": "200k"},
        {"model_id": "other", "api_base": other.api_base, "aliases": ["claude-*"]},
    ]
    plant_login(home_of(stage))
    async with elsewhere() as proxy, elsewhere() as collector:
        environment = {
            **proxy_variables(proxy),
            **telemetry_of_prompts(collector),
            "CLAUDE_CODE_USE_BEDROCK": "1",
            "AWS_REGION": "eu-north-1",
        }
        arguments = ("chosen", "--allowedTools", "Agent")
        async with terminal_running_code(
            stage, models, *arguments, environment=environment, switches=BARE
        ) as terminal:
            await terminal.expect("? for shortcuts")
            await terminal.enter(PROMPT)
            await terminal.expect(ANSWER)
            await asyncio.sleep(2)  # exporters and background calls have had their time
        check_equal(proxy.received, [], "what reached the proxy of the environment")
        check_equal(collector.received, [], "what reached the telemetry collector")
    check_equal(len(other.requests), 0, "calls that reached the other entry")
    tasks = [request for request in chosen.requests if "task of the subagent" in str(request.messages[:3])]
    check(tasks, "the subagent made no call")
    for request in chosen.requests:
        check(LOGIN not in str(request.headers) + str(request.body), "the login reached the chosen entry")
    for path in (home_of(stage) / ".local" / "state" / "claude-proxy").rglob("*"):
        if path.is_file():
            kept = path.read_bytes()
            for secret in (LOGIN, PROMPT, ANSWER):
                check(secret.encode() not in kept, f"{path.name} holds {secret!r}")


@scenario
async def login_is_not_sent_to_another_vendor(stage: Stage) -> None:
    """Plain claude with a login of claude.ai and no key: refused before any upstream is called, saying what to set"""
    upstream = await stage.openai(say(ANSWER))
    direct = await stage.anthropic(say_nothing, key_header="authorization", key="none")
    daemon = await stage.daemon(
        [
            {"model_id": "translated", "api_base": upstream.api_base},
            {"model_id": "direct", "api_base": direct.api_base, "direct": True},
        ]
    )
    plant_login(stage.home)
    for model in ("translated", "direct"):
        run = await stage.run(daemon, PROMPT, model=model, credentials={})
        check(not run.is_success, "Claude Code took the refusal for a success")
        check("login of claude.ai" in run.text, f"the cause is missing: {run.text!r}")
        check("set ANTHROPIC_AUTH_TOKEN" in run.text, f"the remedy is missing: {run.text!r}")
    check_equal(len(upstream.requests) + len(direct.requests), 0, "calls that reached an upstream")
    check(LOGIN not in daemon.log(), "the login is in the log")


def say_nothing(received: Received) -> Refusal:
    raise AssertionError("the upstream was called")


@scenario
async def web_fetch_asks_nobody_about_the_host(stage: Stage) -> None:
    """WebFetch connects to the host of its URL, and does not ask Anthropic about it first"""
    page = "https://planted.example.org/page"
    upstream = await stage.openai([call("WebFetch", url=page, prompt="Summary"), say(ANSWER)])
    models = [{"model_id": "chosen", "api_base": upstream.api_base, "context": "200k"}]
    async with elsewhere() as proxy:
        environment = {**proxy_variables(proxy), "ENABLE_TOOL_SEARCH": "false"}
        arguments = ("chosen", "-p", "Fetch it.", "--allowedTools", "WebFetch")
        async with terminal_running_code(stage, models, *arguments, environment=environment) as terminal:
            await terminal.expect(ANSWER)
        hosts = {received.split(b" ")[1] for received in proxy.received}
    check_equal(hosts, {b"planted.example.org:443"}, "hosts that Claude Code connected to")
