"""``count_tokens`` of translated entries: the upstream's number where it counts, else an estimate, never an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.proxy import token_counts
from tests.support.harness import Upstream, running_proxy, running_upstream
from tests.support.strict_gemini import validate

MODEL = "gemini-3-pro-preview"
TOOL = {"name": "Read", "description": "Reads.", "input_schema": {"type": "object", "properties": {}}}
BODY: dict[str, Any] = {
    "model": "m",
    "system": "You help.",
    "tools": [TOOL],
    "messages": [{"role": "user", "content": "hello there"}],
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def entry(upstream: Upstream, **more: Any) -> dict[str, Any]:
    common = {"model_id": "m", "model_name": MODEL, "provider": "gemini", "format": "gemini", "api_key": "k"}
    return {**common, "api_base": f"{upstream.base}/v1beta", **more}


async def count(proxy: str, body: dict[str, Any] = BODY, times: int = 1) -> list[dict[str, Any]]:
    """The bodies of the responses, which have the status 200."""
    found = []
    async with aiohttp.ClientSession() as session:
        for _ in range(times):
            async with session.post(f"{proxy}/v1/messages/count_tokens", json=body) as response:
                assert response.status == 200, await response.text()
                found.append(await response.json())
    return found


async def counting(request: web.Request) -> web.StreamResponse:
    """As strict as Google, which takes contents or a whole request, and the name of the model in the latter."""
    assert request.path == f"/v1beta/models/{MODEL}:countTokens"
    body = json.loads(await request.read())
    assert body.keys() == {"generateContentRequest"}
    sent = body["generateContentRequest"]
    assert sent.pop("model") == f"models/{MODEL}"
    assert validate(sent) == []
    return web.json_response({"totalTokens": 1000 + len(sent["contents"])})


async def test_the_upstream_counts_what_a_message_would_send() -> None:
    async with running_upstream(counting) as upstream, running_proxy([entry(upstream)]) as proxy:
        assert await count(proxy) == [{"input_tokens": 1001}]
        assert await count(proxy, {**BODY, "messages": []}) != [{"input_tokens": 1001}]
    (sent,) = upstream.requests
    assert sent["generateContentRequest"].keys() == {"model", "systemInstruction", "tools", "contents"}
    assert upstream.headers[0]["x-goog-api-key"] == "k"


async def test_with_context_edits_both_numbers_are_the_upstreams() -> None:
    def turn(number: int) -> list[dict[str, Any]]:
        call = {"type": "tool_use", "id": f"t{number}", "name": "Read", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": "x" * 400}
        return [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]

    async def respond(request: web.Request) -> web.StreamResponse:
        return web.json_response({"totalTokens": len(await request.read())})

    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "tool_uses", "value": 2},
        "keep": {"type": "tool_uses", "value": 1},
    }
    body = {
        **BODY,
        "messages": [*BODY["messages"], *turn(1), *turn(2), *turn(3)],
        "context_management": {"edits": [edit]},
    }
    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        (counted,) = await count(proxy, body)
    before, after = map(len, upstream.bodies)
    assert counted["input_tokens"] == after < before
    assert counted["context_management"] == {"original_input_tokens": before}


async def answering(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


@pytest.mark.parametrize(
    ("status", "body", "asked"),
    [
        (404, b"{}", 1),
        (400, b'{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}', 2),
        (429, b'[{"error":{"code":429}}]', 2),
        (503, b"<html>", 2),
        (200, b'{"totalTokens":"12"}', 2),
        (200, b'{"totalTokens":0}', 2),
        (200, b"not JSON", 2),
    ],
)
async def test_a_failure_gives_the_estimate(status: int, body: bytes, asked: int) -> None:
    """A server without the endpoint is asked once only."""
    async with running_upstream(lambda request: answering(status, body)) as upstream:
        async with running_proxy([entry(upstream), entry(upstream, model_id="e", format="openai")]) as proxy:
            estimates = await count(proxy, {**BODY, "model": "e"})
            assert await count(proxy, times=2) == estimates * 2
    assert len(upstream.requests) == asked


async def test_a_silent_upstream_and_none_at_all_give_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counts, "_TIMEOUT_S", 0.1)
    done = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await done.wait()
        return web.Response()

    async with running_upstream(silent) as upstream:
        refused = entry(upstream, model_id="none", api_base="http://127.0.0.1:1/v1beta")
        estimated = entry(upstream, model_id="e", format="openai")
        unkeyed = entry(upstream, model_id="unkeyed", api_base="https://example.invalid/v1beta")
        del unkeyed["api_key"]
        async with running_proxy([entry(upstream), refused, estimated, unkeyed]) as proxy:
            estimates = await count(proxy, {**BODY, "model": "e"})
            for model in ("m", "none", "unkeyed"):
                assert await count(proxy, {**BODY, "model": model}) == estimates
        done.set()


async def test_the_keys_of_a_pool_are_used() -> None:
    async with running_upstream(counting) as upstream:
        pooled = entry(upstream, api_keys=[{"key": "first-key"}, {"key": "second-key"}])
        del pooled["api_key"]
        async with running_proxy([pooled]) as proxy:
            assert await count(proxy) == [{"input_tokens": 1001}]
    assert upstream.headers[0]["x-goog-api-key"] in ("first-key", "second-key")
