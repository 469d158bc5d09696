"""Rules of models.yaml through real sockets: who serves which class of requests, and what of it is recorded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.config.models import load_text
from proxyd.config.settings import Settings
from proxyd.daemon.configuration import LoadedConfig, checks
from proxyd.telemetry import ledger_queries
from proxyd.telemetry.ledger_schema import FILE
from tests.support.harness import Upstream, running_daemon, running_upstream, text_stream

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
SUMMARY = "CRITICAL: Respond with TEXT ONLY. Summarise."


@asynccontextmanager
async def proxy(
    entries: Sequence[Mapping[str, Any]],
    rules: Sequence[Mapping[str, Any]] = (),
    *,
    state_folder: Path | None = None,
) -> AsyncIterator[tuple[str, Upstream]]:
    """A proxy whose entries share one upstream, which says the name of the model that was called."""

    async def respond(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if request.path.endswith("/messages"):
            text = {"type": "text", "text": body["model"]}
            return web.json_response(
                {
                    "id": "m",
                    "type": "message",
                    "role": "assistant",
                    "content": [text],
                    "stop_reason": "end_turn",
                }
            )
        return web.Response(body=text_stream(body["model"]), content_type="text/event-stream")

    async with running_upstream(respond) as upstream:
        models = [
            {"api_base": upstream.base if entry.get("direct") else f"{upstream.base}/v1", **entry}
            for entry in entries
        ]
        text = json.dumps({"models": models, "routes": list(rules)})
        config = load_text(text, Path("models.yaml"), {}, checks=checks())
        loaded = LoadedConfig(config, Settings(port=0))
        async with running_daemon(loaded, state_folder=state_folder) as base:
            yield base, upstream


async def ask(
    base: str, content: Any = "hi", *, headers: Mapping[str, str] | None = None, **changes: Any
) -> tuple[str, str | None]:
    """Return the model that was called, and the rule in the response's head."""
    messages = [{"role": "user", "content": content}]
    request = {"model": "big", "max_tokens": 100, "messages": messages, **changes}
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{base}/v1/messages", json=request, headers=headers) as response:
            body = await response.json()
            assert response.status == 200, body
            assert response.headers["x-claude-proxy-route"] == body["content"][0]["text"]
            return body["content"][0]["text"], response.headers.get("x-claude-proxy-rule")


def of_class(name: str, **more: str) -> dict[str, str]:
    return {
        "x-claude-code-request-class": name,
        **{f"x-claude-code-{key}": value for key, value in more.items()},
    }


ENTRIES = [
    {
        "model_id": "big",
        "routes": [
            {"when": {"class": "subagent", "agent_type": "Explore"}, "use": "small"},
            {"when": {"class": "compaction"}, "use": "tiny"},
        ],
    },
    {"model_id": "small"},
    {"model_id": "tiny", "max_input_tokens": 300},
    {"model_id": "eyes"},
]
RULES = [
    {"when": {"has_image": True}, "use": "eyes"},
    {"when": {"class": ["title", "search"]}, "use": "small"},
    {"when": {"over_tokens": 2000}, "use": "eyes"},
]


@pytest.mark.parametrize(
    ("content", "headers", "changes", "expected"),
    [
        ("hi", {}, {}, ("big", None)),
        ("hi", of_class("subagent"), {}, ("big", None)),
        ("hi", of_class("subagent", **{"agent-type": "Explore"}), {}, ("small", "models[0].routes[0]")),
        ([IMAGE], {}, {}, ("eyes", "routes[0]")),
        (
            "hi",
            {},
            {"tools": [], "output_config": {"format": {"type": "json_schema"}}},
            ("small", "routes[1]"),
        ),
        ("x" * 10_000, {}, {}, ("eyes", "routes[2]")),
        (SUMMARY, {}, {}, ("tiny", "models[0].routes[1]")),
        (SUMMARY + "x" * 1200, {}, {}, ("big", None)),
        ("hi", of_class("compaction"), {}, ("tiny", "models[0].routes[1]")),
    ],
)
async def test_a_request_goes_where_its_rule_says(
    content: Any, headers: dict[str, str], changes: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    async with proxy(ENTRIES, RULES) as (base, _):
        assert await ask(base, content, headers=headers, **changes) == expected


async def test_a_rule_that_cannot_hold_the_request_is_passed_over_and_logged() -> None:
    with capture_logs() as logs:
        async with proxy(ENTRIES) as (base, _):
            await ask(base, SUMMARY + "x" * 1200)
    (line,) = [each for each in logs if each["event"] == "route.rule_passed_over"]
    assert line["rule"] == "models[0].routes[1]"
    assert line["why"] == "the request is larger than the window of 'tiny', 300 tokens"


async def test_count_tokens_is_not_handed_over() -> None:
    async with proxy(ENTRIES, [{"use": "small"}]) as (base, _), aiohttp.ClientSession() as client:
        request = {"model": "big", "messages": [{"role": "user", "content": [IMAGE]}]}
        async with client.post(f"{base}/v1/messages/count_tokens", json=request) as response:
            assert response.status == 200
            assert "x-claude-proxy-rule" not in response.headers


@pytest.mark.parametrize(
    ("condition", "is_parsed"), [({"class": "subagent"}, False), ({"thinking": False}, True)]
)
async def test_a_large_direct_request_is_parsed_only_where_a_rule_needs_it(
    condition: dict[str, Any], is_parsed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []

    def parse(body: bytes) -> Any:
        parsed.append(len(body))
        return json.loads(body)

    monkeypatch.setattr("proxyd.proxy.large_requests._COUNTED_BYTES", 1024)
    monkeypatch.setattr("proxyd.proxy.large_requests._MAX_BYTES", 16 * 1024)
    monkeypatch.setattr("proxyd.api.messages.parse_large_object", parse)
    monkeypatch.setattr("proxyd.proxy.client_request.parse_large_object", parse)
    entries = [{"model_id": "big", "direct": True}, {"model_id": "small", "direct": True}]
    headers = {**of_class("subagent"), "x-claude-code-session-id": "s", "x-api-key": "k"}
    async with proxy(entries, [{"when": condition, "use": "small"}]) as (base, upstream):
        found = await ask(base, "x" * 20_000, headers=headers, stream=False)
    assert found == ("small", "routes[0]")
    assert bool(parsed) is is_parsed
    assert upstream.requests[0]["model"] == "small"


@pytest.mark.parametrize("direct", [(True, False), (False, True)])
async def test_classes_of_a_session_may_go_to_different_kinds_of_upstreams(direct: tuple[bool, bool]) -> None:
    entries = [{"model_id": "big", "direct": direct[0]}, {"model_id": "small", "direct": direct[1]}]
    history = {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "cpx1.eyJtIjoib3RoZXIiLCJmIjoieCJ9"},
                    {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}]},
        ],
        "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
    }
    key = {"x-api-key": "k"}
    async with proxy(entries, [{"when": {"class": "subagent"}, "use": "small"}]) as (base, upstream):
        assert (await ask(base, headers=key, **history))[0] == "big"
        assert (await ask(base, headers={**key, **of_class("subagent")}, **history))[0] == "small"
    for request, is_direct in zip(upstream.requests, direct, strict=True):
        # A signature of the proxy's own is nothing for an upstream that verifies signatures.
        assert "cpx1." not in json.dumps(request)
        names = [
            block.get("id") or block.get("tool_use_id")
            for message in request["messages"]
            for block in (message["content"] if is_direct and isinstance(message["content"], list) else ())
            if block["type"] in ("tool_use", "tool_result")
        ]
        assert names == (["toolu_1", "toolu_1"] if is_direct else [])


async def test_the_clients_key_stays_with_the_upstream_that_it_asked_for() -> None:
    seen: list[str] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        seen.append(str(request.headers.get("authorization")))
        return web.Response(body=text_stream("small"), content_type="text/event-stream")

    async with running_upstream(respond) as other:
        entries = [{"model_id": "big"}, {"model_id": "small", "api_base": f"{other.base}/v1"}]
        async with proxy(entries, [{"when": {"class": "subagent"}, "use": "small"}]) as (base, _):
            await ask(base, headers={**of_class("subagent"), "x-api-key": "key-of-the-client"})
    assert seen == ["None"]


async def test_the_ledger_has_rule_class_agent_type_and_prompt(tmp_path: Path) -> None:
    async with proxy(ENTRIES, RULES, state_folder=tmp_path) as (base, _):
        prompt = {"prompt-id": "p1"}
        await ask(base, headers=of_class("main", **prompt))
        await ask(base, headers=of_class("subagent", **{"agent-type": "Explore"}, **prompt))
        await ask(base, headers=of_class("subagent", **{"agent-type": "Plan"}, **prompt))
        await ask(base, headers=of_class("auxiliary"))
        await ask(base, headers=of_class("compaction", **{"prompt-id": "not an id"}))
    database = ledger_queries.open_ledger(tmp_path / FILE)
    calls = ledger_queries.last_calls(database, 0)
    assert [call["rule"] for call in calls[::-1]] == [
        None,
        "models[0].routes[0]",
        None,
        None,
        "models[0].routes[1]",
    ]

    def grouped(by: str) -> dict[Any, int]:
        return {row[by]: row["calls"] for row in ledger_queries.sums(database, 0, by=by)}

    assert grouped("class") == {"main": 1, "subagent": 2, "auxiliary": 1, "compaction": 1}
    assert grouped("agent") == {None: 3, "Explore": 1, "Plan": 1}
    assert grouped("prompt") == {"p1": 3, None: 2}
    database.close()
