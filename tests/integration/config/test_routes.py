"""The entry that serves a call: ids, aliases, globs and fallbacks, over sockets and in both modes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.harness import Upstream, running_proxy, running_upstream, text_stream
from tests.support.ports import free_port

KEY = {"x-api-key": "k"}


def asking(model: str, *, stream: bool = False) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": 9,
        "stream": stream,
        "messages": [{"role": "user", "content": "hi"}],
    }


def event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


START = event(
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}}
)
STOP = event({"type": "message_stop"})


class ScriptedUpstream:
    """An upstream of both dialects; the name of the model selects its response."""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name, is_direct = body["model"], "chat" not in request.path
        if name.startswith("status-"):
            _, status, kind, *words = name.split("-")
            error = {"type": kind, "message": " ".join(words) or "no"}
            return web.json_response(
                {"type": "error", "error": error}, status=int(status), headers={"x-theirs": "1"}
            )
        if name == "breaks":
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(START if is_direct else text_stream("begun").split(b"\n\n")[0] + b"\n\n")
            return response
        if not is_direct:
            return web.Response(body=text_stream(f"I am {name}"), content_type="text/event-stream")
        if request.path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": 77})
        if body.get("stream"):
            delta = {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": f"I am {name}"},
            }
            return web.Response(body=START + event(delta) + STOP, content_type="text/event-stream")
        return web.json_response({"type": "message", "content": [{"type": "text", "text": f"I am {name}"}]})


def entry(upstream: Upstream, model_id: str, name: str, mode: str, **keys: Any) -> dict[str, Any]:
    base = (
        {"api_base": upstream.base, "direct": True}
        if mode == "direct"
        else {"api_base": f"{upstream.base}/v1"}
    )
    return {"model_id": model_id, "model_name": name, **base, **keys}


async def served(proxy: str, model: str, *, stream: bool = False) -> tuple[int, str, str]:
    """Status, the entry that served, and the body."""
    async with (
        aiohttp.ClientSession(proxy) as client,
        client.post("/v1/messages", json=asking(model, stream=stream), headers=KEY) as response,
    ):
        return response.status, response.headers.get("x-claude-proxy-route", ""), await response.text()


TRIGGERS = [
    "status-429-rate_limit_error",
    "status-529-overloaded_error",
    "status-500-api_error",
    "status-503-api_error",
    "status-402-billing_error",
    "status-400-invalid_request_error-Your-credit-balance-is-too-low-to-access-the-API",
    "status-403-permission_error-insufficient-balance",
]
MODES = [
    ("direct", "direct"),
    ("direct", "translated"),
    ("translated", "direct"),
    ("translated", "translated"),
]


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("modes", MODES)
async def test_the_fallback_serves_after_a_failure(
    trigger: str, modes: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        chain = [
            entry(upstream, "first", trigger, modes[0], fallback=["second"]),
            entry(upstream, "second", "good", modes[1]),
        ]
        async with running_proxy(chain, max_retries=0) as proxy:
            for stream in (False, True):
                status, route, body = await served(proxy, "first", stream=stream)
                assert (status, route) == (200, "second")
                assert "I am good" in body
    log = capsys.readouterr().out
    assert log.count("call.fallback") == 2
    assert log.count("fallback_from=first") == 2


@pytest.mark.parametrize("modes", MODES)
async def test_the_fallback_serves_when_the_first_is_unreachable(modes: tuple[str, str]) -> None:
    port = free_port()
    async with running_upstream(ScriptedUpstream()) as upstream:
        gone = Upstream(f"http://127.0.0.1:{port}")
        chain = [
            entry(gone, "first", "x", modes[0], fallback=["second"]),
            entry(upstream, "second", "good", modes[1], api_key="own"),
        ]
        async with running_proxy(chain, max_retries=0) as proxy:
            status, route, _ = await served(proxy, "first", stream=True)
    assert (status, route) == (200, "second")


@pytest.mark.parametrize(
    "refusal",
    [
        "status-400-invalid_request_error",
        "status-401-authentication_error",
        "status-403-permission_error",
        "status-413-request_too_large",
    ],
)
@pytest.mark.parametrize("mode", ["direct", "translated"])
async def test_client_errors_use_no_fallback(refusal: str, mode: str) -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        chain = [
            entry(upstream, "first", refusal, mode, fallback=["second"]),
            entry(upstream, "second", "good", mode),
        ]
        async with running_proxy(chain, max_retries=0) as proxy:
            status, _, body = await served(proxy, "first")
    assert status == int(refusal.split("-")[1])
    assert json.loads(body)["type"] == "error"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("modes", MODES)
async def test_a_started_stream_uses_no_fallback(modes: tuple[str, str]) -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        chain = [
            entry(upstream, "first", "breaks", modes[0], fallback=["second"]),
            entry(upstream, "second", "good", modes[1]),
        ]
        async with running_proxy(chain, max_retries=0) as proxy:
            status, route, body = await served(proxy, "first", stream=True)
    assert (status, route) == (200, "first")
    assert "event: error" in body
    assert len(upstream.requests) == 1


async def test_a_chain_is_followed_to_its_end_and_each_entry_tried_once() -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        busy = "status-529-overloaded_error"
        chain = [
            entry(upstream, "a", busy, "direct", fallback=["b", "c"]),
            entry(upstream, "b", busy, "translated", fallback=["a", "d"]),
            entry(upstream, "c", busy, "direct", fallback=["b"]),
            entry(upstream, "d", "status-429-rate_limit_error-later", "direct"),
        ]
        async with running_proxy(chain, max_retries=0) as proxy:
            status, _, body = await served(proxy, "a")
    # The last one's own words, byte for byte.
    assert status == 429
    assert json.loads(body)["error"] == {"type": "rate_limit_error", "message": "later"}
    assert [each["model"] for each in upstream.requests] == [
        busy,
        busy,
        busy,
        "status-429-rate_limit_error-later",
    ]


async def test_token_counting_skips_translated_fallbacks() -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        chain = [
            entry(upstream, "first", "status-529-overloaded_error", "direct", fallback=["t", "d"]),
            entry(upstream, "t", "good", "translated"),
            entry(upstream, "d", "good", "direct"),
        ]
        async with running_proxy(chain, max_retries=0) as proxy, aiohttp.ClientSession(proxy) as client:
            async with client.post(
                "/v1/messages/count_tokens", json=asking("first"), headers=KEY
            ) as response:
                assert await response.json() == {"input_tokens": 77}
    assert [each["model"] for each in upstream.requests] == ["status-529-overloaded_error", "good"]


async def test_variants_of_one_model_differ_in_their_effort() -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        doubao = {"provider": "doubao"}
        entries = [
            entry(upstream, "fast", "seed", "translated", reasoning_effort="minimal", **doubao),
            entry(upstream, "deep", "seed", "translated", reasoning_effort="high", **doubao),
        ]
        async with running_proxy(entries) as proxy:
            assert (await served(proxy, "fast"))[:2] == (200, "fast")
            assert (await served(proxy, "deep"))[:2] == (200, "deep")
    fast, deep = upstream.requests
    assert (fast["model"], deep["model"]) == ("seed", "seed")
    assert fast["thinking"] == {"type": "disabled"}
    assert deep["thinking"] == {"type": "enabled"}
    assert deep["reasoning_effort"] == "high"


@pytest.mark.parametrize(
    ("asked", "route"),
    [
        ("big", "big"),
        ("big[1m]", "big"),
        ("nick", "big"),
        ("claude-haiku-4-5-20251001", "small"),
        ("claude-haiku-4-5[1m]", "small"),
        ("claude-haiku-9", "exact"),
        ("claude-proxy/big", "big"),
        ("claude-proxy/big[1m]", "big"),
    ],
)
async def test_an_id_finds_its_entry(asked: str, route: str) -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        entries = [
            entry(upstream, "big", "the-big-one", "direct", aliases=["nick"]),
            entry(upstream, "small", "the-small-one", "translated", aliases=["claude-haiku-*"]),
            entry(upstream, "exact", "the-exact-one", "direct", aliases=["claude-haiku-9"]),
        ]
        async with running_proxy(entries, discovery_prefix="claude-proxy/") as proxy:
            status, served_by, body = await served(proxy, asked)
    assert (status, served_by) == (200, route)
    assert f"I am the-{route}-one" in body


async def test_an_unknown_id_gets_the_list_of_ids() -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        entries = [
            entry(upstream, "a", "x", "direct"),
            entry(upstream, "b", "x", "translated", aliases=["c-*"]),
        ]
        async with running_proxy(entries) as proxy:
            status, _, body = await served(proxy, "claude-opus-9")
            async with aiohttp.ClientSession(proxy) as client, client.get("/v1/models/nothing") as response:
                assert response.status == 404
    assert status == 404
    assert json.loads(body)["error"] == {
        "type": "not_found_error",
        "message": "model: 'claude-opus-9' is not in models.yaml; known models: a, b",
    }


# -- discovery


async def listed(proxy: str, query: str = "") -> dict[str, Any]:
    async with aiohttp.ClientSession(proxy) as client, client.get(f"/v1/models{query}") as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


def ids(page: dict[str, Any]) -> Sequence[str]:
    return [each["id"] for each in page["data"]]


async def test_discovery_names_what_the_picker_shows() -> None:
    async with running_upstream(ScriptedUpstream()) as upstream:
        entries = [
            entry(upstream, "claude-x", "x", "direct"),
            entry(upstream, "glm", "x", "direct", context="200k", max_tokens="64k"),
        ]
        async with running_proxy(entries, discovery_prefix="claude-proxy/") as proxy:
            page = await listed(proxy, "?limit=1000")
            assert ids(page) == ["claude-x", "glm", "claude-proxy/glm"]
            # Each listed id can be asked for.
            for model in ids(page):
                assert (await served(proxy, model))[0] == 200
        async with running_proxy(entries) as proxy:
            assert ids(await listed(proxy)) == ["claude-x", "glm"]
        address = upstream.base.removeprefix("http://").partition("/")[0]
    assert page["data"][1] == {
        "type": "model", "id": "glm", "display_name": "glm", "created_at": "2025-01-01T00:00:00Z",
        "max_input_tokens": 200_000, "max_tokens": 64_000, "description": f"x via {address} · 200k",
    }  # fmt: skip
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "claude-x", "claude-proxy/glm")


async def test_discovery_in_pages() -> None:
    entries = [{"model_id": name, "api_base": "builtin:demo"} for name in "abcde"]
    async with running_proxy(entries) as proxy:
        first = await listed(proxy, "?limit=2")
        assert (ids(first), first["has_more"]) == (["a", "b"], True)
        second = await listed(proxy, f"?limit=2&after_id={first['last_id']}")
        assert (ids(second), second["has_more"]) == (["c", "d"], True)
        third = await listed(proxy, f"?limit=2&after_id={second['last_id']}")
        assert (ids(third), third["has_more"]) == (["e"], False)
        back = await listed(proxy, "?limit=2&before_id=c")
        assert (ids(back), back["has_more"]) == (["a", "b"], False)
