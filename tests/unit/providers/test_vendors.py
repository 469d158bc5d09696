"""What Claude Code really sends is taken by every vendor: all captures through all profiles to their simulators."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from proxyd.providers.registry import PROFILES
from tests.captures import Capture, captures, versions
from tests.support.effort import newest, sampled
from tests.support.harness import running_proxy
from tests.support.rows import check_rows
from tests.support.vendors import VENDORS, Vendor
from tests.support.vendors.engine import Rule
from tests.support.vendors.expected import EXPECTED, expected_failures
from tests.support.vendors.matrix import Route, cell, requests_of, routes
from tests.support.vendors.server import VendorServer

ROUTES = {route.name: route for route in routes()}
#: What a capture must have been recorded of, so that a recording which lacks one is seen.
KINDS = {
    "first_turn", "tool_turn", "parallel_tools", "next_turn", "thinking_off", "thinking_budget", "effort_low",
    "effort_max", "image", "document", "compaction", "after_compaction", "subagent", "web_search", "tool_search",
    "mcp_tools", "structured_output", "count_tokens",
}  # fmt: skip


@pytest.mark.parametrize("version", versions())
def test_captures_are_complete(version: str) -> None:
    assert captures(version).keys() >= KINDS
    tools = {tool["name"] for tool in captures(version)["first_turn"].body["tools"]}
    assert {"Bash", "Read", "Write", "Workflow"} <= tools


def test_two_versions_were_captured() -> None:
    assert len(versions()) >= 2


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_matrix(route: Route) -> None:
    """Each cell ends in 200: at once where the profile knows the vendor, else within three tries."""
    for version in newest(versions()):
        requests = list(sampled(requests_of(version), step=1))
        found = {capture.name: cell(route, capture) for capture in requests}
        wrong = {name: result for name, result in found.items() if not result.is_right(route)}
        expected = expected_failures(route.name, requests)
        new = {name: result for name, result in wrong.items() if name not in expected}
        assert not new, f"Claude Code {version} is refused: {new}"
        right_by_now = expected - wrong.keys()
        assert not right_by_now, f"take out of expected.py, which lists what is wrong: {sorted(right_by_now)}"


def test_expected_failures_name_routes() -> None:
    assert set(EXPECTED) <= set(ROUTES)


def test_every_profile_has_a_simulator() -> None:
    assert set(PROFILES) - set(VENDORS) == {"anthropic", "generic"}
    assert set(VENDORS) <= set(PROFILES)


def test_rules_have_sources_and_models() -> None:
    def check(row: tuple[Vendor, Rule]) -> None:
        vendor, rule = row
        assert rule.source.startswith("https://"), f"{vendor.name}: {rule.name}"
        shown = [model for model in vendor.models if re.search(rule.models, model, re.IGNORECASE)]
        assert shown, f"no model of {vendor.name} shows {rule.name}"

    check_rows(((vendor, rule) for vendor in VENDORS.values() for rule in vendor.rules), check)


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}


def tool(schema: dict[str, Any], name: str = "T") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "T", "arguments": "{}"}}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "done"},
]
IMAGE = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
]
LATE_SYSTEM = [
    {"role": "user", "content": "hi"},
    {"role": "system", "content": "s"},
    {"role": "user", "content": "x"},
]

#: Vendor, what it is sent, and the rule that must be broken.
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("openai", body(model="gpt-4.1", tools=[tool(objects(a={"type": "array"}))]), "schemas"),
    ("openai", body(model="gpt-4.1", tools=[tool({**objects(), "anyOf": [{}]})]), "schemas"),
    ("openai", body(model="gpt-5", max_tokens=9), "output limit"),
    ("openai", body(model="gpt-5", temperature=0.5), "no temperature"),
    ("openai", body(model="gpt-5", stop=["x"]), "no stop"),
    ("openai", body(model="gpt-4.1", reasoning_effort="low"), "no reasoning_effort"),
    ("openai", body(model="gpt-5", reasoning_effort="xhigh"), "efforts"),
    ("openai", body(model="gpt-5.6", tools=[tool(objects())]), "effort with tools"),
    ("openai", body(model="gpt-5.4", tools=[tool(objects())], reasoning_effort="high"), "effort with tools"),
    ("openai", body(model="gpt-5", tools=[tool(objects(), f"t{n}") for n in range(129)]), "chat completions"),
    ("moonshot", body(model="kimi-k2.6", tools=[tool(objects(a={"description": "d"}))]), "schemas"),
    ("moonshot", body(model="kimi-k2.6", tools=[tool(objects(a={"type": "string", "anyOf": []}))]), "schemas"),
    ("moonshot", body(model="kimi-k2.6", tools=[tool({**objects(), "required": ["a"]})]), "schemas"),
    ("moonshot", body(model="kimi-k2.6", messages=CALLED, tools=[tool(objects())]), "reasoning given back"),
    ("moonshot", body(model="kimi-k2.6", temperature=0.5), "temperature"),
    ("moonshot", body(model="kimi-k2.7-code", thinking={"type": "disabled"}), "always thinking"),
    ("deepseek", body(model="deepseek-v4-pro", messages=CALLED, tools=[tool(objects())]), "reasoning given back"),
    ("deepseek", body(model="deepseek-v4-pro", messages=IMAGE), "no images"),
    ("deepseek", body(model="deepseek-v4-pro", tools=[tool(objects())], tool_choice="required"),
     "forced tool while thinking"),
    ("zhipu", body(model="glm-5.3", reasoning_effort="medium"), "efforts"),
    ("zhipu", body(model="glm-5.3", thinking={"type": "disabled"}), "always thinking"),
    ("minimax", body(model="MiniMax-M2.7", messages=LATE_SYSTEM), "one system message"),
    ("dashscope", body(model="qwen3.8-plus", messages=LATE_SYSTEM), "one system message"),
    ("gemini", body(model="gemini-3-pro", tools=[tool({**objects(), "additionalProperties": False})]), "schemas"),
    ("gemini", body(model="gemini-3-pro", messages=CALLED, tools=[tool(objects())]), "thought signatures"),
    ("gemini", body(model="gemini-2.5-pro", messages=CALLED, tools=[tool(objects())]), "names of results"),
    ("gemini", body(model="gemini-3-pro", reasoning_effort="medium"), "efforts"),
    ("gemini", body(model="gemini-3-pro", parallel_tool_calls=False, tools=[tool(objects())]), "unknown fields"),
    ("xai", body(model="grok-4.3", tools=[tool(objects(a={"type": "string", "maxLength": 9}))]), "schemas"),
    ("groq", body(model="qwen/qwen3-32b", reasoning_effort="high"), "efforts"),
    ("groq", body(model="qwen/qwen3-32b", messages=[CALLED[0], {**CALLED[1], "reasoning": "r"}, CALLED[2]]),
     "fields of messages"),
    ("mistral", body(model="mistral-large-2512", stream_options={"include_usage": True}), "unknown fields"),
    ("mistral", body(model="mistral-large-2512", messages=[*CALLED, {"role": "user", "content": "x"}]),
     "order of roles"),
    ("mistral", body(model="mistral-large-2512",
                     messages=[CALLED[0], {**CALLED[1], "tool_calls": [{**CALL, "id": "call_1"}]},
                               {**CALLED[2], "tool_call_id": "call_1"}]), "tool ids"),
    ("vllm", body(model="mistralai/Devstral-2-123B", chat_template_kwargs={}), "no template arguments"),
    ("llamacpp", body(model="qwen3.8-27b", tools=[tool(objects(a={"type": "string", "maxLength": 9999}))]), "schemas"),
    ("llamacpp", body(model="qwen3.8-27b", tools=[tool(objects(a={"type": "string", "pattern": "\\S"}))]), "schemas"),
    ("llamacpp", body(model="qwen3.8-27b", tools=[tool(objects(a={"type": "string", "pattern": "^\\d$"}))]), "schemas"),
    ("llamacpp", body(model="qwen3.8-27b", tools=[tool(objects(a={"description": "d"}))]), "schemas"),
    ("llamacpp", body(model="qwen3.8-27b", tools=[tool(objects(a=True))]), "schemas"),
    ("llamacpp", body(model="qwen3.8-27b", messages=LATE_SYSTEM), "one system message"),
    ("lmstudio", body(model="qwen3.8-27b", tools=[tool(objects())],
                      tool_choice={"type": "function", "function": {"name": "T"}}), "named tool"),
    ("ollama", body(model="qwen2.5-coder:7b", reasoning_effort="high"), "no thinking"),
]  # fmt: skip


@pytest.mark.parametrize(("vendor", "request_body", "broken"), BROKEN)
def test_simulators_refuse(vendor: str, request_body: dict[str, Any], broken: str) -> None:
    found = VENDORS[vendor].judge(request_body)
    assert found is not None
    assert found.rule == broken
    assert found.status in (400, 422, 500)
    assert VENDORS[vendor].refusal(request_body) == (found.status, found.body)


def test_a_key_is_asked_for() -> None:
    hello = body(model="gpt-4.1")
    assert VENDORS["openai"].refusal(hello, {"authorization": "Bearer k"}) is None
    assert VENDORS["openai"].refusal(hello, {})[0] == 401  # type: ignore[index]


async def post(proxy: str, capture: Capture) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session:
        headers = {"x-api-key": "a-key-of-nobody"}
        async with session.post(
            f"{proxy}/v1/messages", json={**capture.body, "model": "m"}, headers=headers
        ) as got:
            return got.status, await got.read()


@pytest.mark.parametrize(
    ("profile", "vendor", "model", "tries"),
    [
        ("moonshot", "moonshot", "kimi-k2.7-code", 1),
        ("llamacpp", "llamacpp", "qwen3.8-27b", 1),
        ("zhipu", "zhipu", "glm-5.3", 1),
        ("generic", "llamacpp", "qwen3.8-27b", 2),
        ("generic", "openai", "gpt-5.6", 3),
        ("generic", "gemini", "gemini-3-pro", 3),
        ("generic", "xai", "grok-4.3", 2),
    ],
)
async def test_over_sockets(profile: str, vendor: str, model: str, tries: int) -> None:
    capture = captures(versions()[0])["mcp_tools"]
    async with VendorServer(VENDORS[vendor]) as upstream:
        entry = {"model_id": "m", "model_name": model, "api_base": upstream.api_base, "provider": profile}
        async with running_proxy([entry]) as proxy:
            status, response = await post(proxy, capture)
            assert status == 200, response
            assert b"Fine." in response
            assert len(upstream.bodies) == tries, upstream.refused
            status, _ = await post(proxy, capture)
            assert status == 200
            assert len(upstream.bodies) == tries + 1, "what was learned is not used"
