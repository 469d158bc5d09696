"""The official SDK cannot tell a direct route from the upstream itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import pytest
from aiohttp import web

from tests.support.harness import running_proxy, running_upstream
from tests.support.raw_peers import exchange

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "upstream-1",
    "content": [{"type": "text", "text": "grüße"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 9,
        "output_tokens": 3,
        "cache_read_input_tokens": 2,
        "service_tier": "standard",
    },
    "new_field": {"x": [1.5, None]},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "ping"},
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "grü"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ße 😀"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
]
MODEL = {
    "type": "model",
    "id": "upstream-1",
    "display_name": "Upstream 1",
    "created_at": "2026-01-01T00:00:00Z",
}
HEADERS = {"request-id": "req_theirs", "anthropic-ratelimit-requests-remaining": "41", "cf-ray": "x"}


async def upstream_of_anthropic(request: web.Request) -> web.StreamResponse:
    """Answers as the API does; the prompt says which answer is wanted."""
    if request.method == "GET":
        if request.path != "/v1/models/upstream-1":
            return refused(404, "not_found_error", f"model: {request.path}")
        return web.json_response(MODEL, headers=HEADERS)
    body = await request.json()
    if body["model"] != "upstream-1":
        return refused(404, "not_found_error", f"model: {body['model']}")
    prompt = body["messages"][0]["content"]
    if prompt.startswith("fail"):
        return refused(
            int(prompt.split()[1]), "invalid_request_error", "thinking: Extra inputs are not permitted"
        )
    if request.path.endswith("/count_tokens"):
        return web.json_response({"input_tokens": 1234}, headers=HEADERS)
    if not body.get("stream"):
        return web.json_response(MESSAGE, headers=HEADERS)
    response = web.StreamResponse(headers={**HEADERS, "content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for event in EVENTS:
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    if prompt == "break":
        await response.write(
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"o"}}\n\n'
        )
    return response


def refused(status: int, kind: str, message: str) -> web.Response:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_theirs"}
    return web.json_response(body, status=status, headers={**HEADERS, "x-should-retry": "false"})


def asking(prompt: str) -> dict[str, Any]:
    return {"max_tokens": 64, "messages": [{"role": "user", "content": prompt}]}


async def whole(client: anthropic.AsyncAnthropic, model: str) -> Any:
    raw = await client.messages.with_raw_response.create(model=model, **asking("hi"))
    return (
        raw.status_code,
        {name: raw.headers[name] for name in HEADERS},
        (await raw.parse()).model_dump(),
        await raw.read(),
    )


async def streamed(client: anthropic.AsyncAnthropic, model: str) -> Any:
    async with client.messages.stream(model=model, **asking("hi")) as stream:
        events = [event.model_dump(warnings=False) async for event in stream]
        return events, (await stream.get_final_message()).model_dump(), stream.request_id


async def broken(client: anthropic.AsyncAnthropic, model: str) -> Any:
    seen: list[Any] = []
    try:
        async for event in await client.messages.create(model=model, stream=True, **asking("break")):
            seen += [event.model_dump(warnings=False)]
    except anthropic.APIStatusError as exc:
        return seen, type(exc), exc.body
    raise AssertionError("the SDK did not notice the error event")


async def counted(client: anthropic.AsyncAnthropic, model: str) -> Any:
    return await client.messages.count_tokens(model=model, messages=asking("hi")["messages"])


async def looked_up(client: anthropic.AsyncAnthropic, model: str) -> Any:
    return (await client.models.retrieve(model)).model_dump()


def refusal_of(status: int) -> Callable[[anthropic.AsyncAnthropic, str], Awaitable[Any]]:
    async def refused_with(client: anthropic.AsyncAnthropic, model: str) -> Any:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(model=model, **asking(f"fail {status}"))
        exc = caught.value
        return type(exc), exc.status_code, exc.body, exc.message, exc.request_id

    return refused_with


CALLS = [whole, streamed, broken, counted, looked_up, *map(refusal_of, (400, 401, 403, 413, 429, 500, 529))]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("credential", [{"api_key": "k"}, {"auth_token": "t"}])
async def test_the_sdk_sees_no_difference(
    call: Callable[[anthropic.AsyncAnthropic, str], Awaitable[Any]],
    credential: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    async with running_upstream(upstream_of_anthropic) as upstream:
        route = {"model_id": "m", "model_name": "upstream-1", "api_base": upstream.base, "direct": True}
        async with (
            running_proxy([route]) as proxy,
            anthropic.AsyncAnthropic(base_url=upstream.base, max_retries=0, **credential) as straight,
            anthropic.AsyncAnthropic(base_url=proxy, max_retries=0, **credential) as by_proxy,
        ):
            assert await call(by_proxy, "m") == await call(straight, "upstream-1")
    through, direct = upstream.headers
    ignored = {"host", "connection", "accept-encoding", "content-length"}
    assert {k: v for k, v in through.items() if k not in ignored} == {
        k: v for k, v in direct.items() if k not in ignored
    }
    assert upstream.requests[0] == upstream.requests[1]


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_model_that_the_upstream_does_not_describe_is_described_from_models_yaml(status: int) -> None:
    async def without_models(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>not here</html>", content_type="text/html")

    async with running_upstream(without_models) as upstream:
        entry = {
            "model_id": "m",
            "model_name": "up",
            "api_base": upstream.base,
            "direct": True,
            "context": "256k",
        }
        async with (
            running_proxy([entry]) as proxy,
            anthropic.AsyncAnthropic(base_url=proxy, max_retries=0, api_key="k") as client,
        ):
            found = await client.models.retrieve("m")
    assert len(upstream.requests) == 1
    assert (found.id, found.type, found.max_input_tokens) == ("m", "model", 256_000)
    host = upstream.base.partition("://")[2]
    assert found.model_dump()["description"] == f"up via {host} · 256k"


async def test_model_whose_key_is_refused_is_not_described() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return refused(401, "authentication_error", "invalid x-api-key")

    async with running_upstream(refuse) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, "direct": True}
        async with (
            running_proxy([entry]) as proxy,
            anthropic.AsyncAnthropic(base_url=proxy, max_retries=0, api_key="k") as client,
        ):
            with pytest.raises(anthropic.AuthenticationError):
                await client.models.retrieve("m")


async def test_a_model_is_told_from_memory_without_a_key() -> None:
    async with running_upstream(upstream_of_anthropic) as upstream:
        route = {"model_id": "m", "model_name": "upstream-1", "api_base": upstream.base, "direct": True}
        async with running_proxy([route]) as proxy:
            _, body = await exchange(
                proxy, b"GET /v1/models/m HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            )
    assert json.loads(body)["id"] == "m"
    assert upstream.requests == []
