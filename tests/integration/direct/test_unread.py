"""Large direct requests go on without having been parsed, and are treated like all others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.prompt_cache.parser import parse_large_object
from proxyd.proxy.client_request import ClientRequest
from tests.support.harness import running_proxy, running_upstream
from tests.support.raw_sockets import RawClient, RawUpstream, post

SESSION = "X-Claude-Code-Session-Id: 5f0c1c0e-7c33-4c6c-9b5e-1d0b5a3a0c11"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def stream(cached: int = 0) -> bytes:
    usage = {"input_tokens": 9, "cache_read_input_tokens": cached, "output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "type": "message", "usage": usage}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    frames = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    return b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames) + b"0\r\n\r\n"


def large(**more: Any) -> bytes:
    payload = {
        "model": "m",
        "messages": [{"role": "user", "content": "Grüße \U0001f600 " * 3000}],
        "system": [{"type": "text", "text": "You are careful."}],
        **more,
        "stream": True,
    }
    return json.dumps(payload, ensure_ascii=False).encode()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the bodies that are parsed from here on. Large are those above 16 KiB."""
    sizes: list[int] = []

    def parse(body: bytes) -> dict[str, Any]:
        sizes.append(len(body))
        return parse_large_object(body)

    monkeypatch.setattr("proxyd.proxy.large_requests._COUNTED_BYTES", 1024)
    monkeypatch.setattr("proxyd.proxy.large_requests._MAX_BYTES", 16 * 1024)
    monkeypatch.setattr("proxyd.api.messages.parse_large_object", parse)
    monkeypatch.setattr("proxyd.proxy.client_request.parse_large_object", parse)
    return sizes


async def call(entry: dict[str, Any], body: bytes, *headers: str, cached: int = 0) -> tuple[RawUpstream, Any]:
    upstream = RawUpstream(lambda _: [HEAD, stream(cached)])
    with capture_logs() as lines:
        async with upstream.running():
            entries = [{"model_id": "m", "api_base": upstream.base, "direct": True, **entry}]
            async with running_proxy(entries) as base, RawClient.to(base) as client:
                await client.send(post(body, *headers))
                response = await client.response()
                assert response.status == 200, response.body
                assert response.body.endswith(b'event: message_stop\ndata: {"type": "message_stop"}\n\n')
    return upstream, next(line for line in lines if line["event"] == "call.finished")


async def test_a_large_request_is_not_parsed_and_goes_on_byte_for_byte(parsed: list[int]) -> None:
    body = large()
    upstream, line = await call({}, body, SESSION)
    assert upstream.bodies == [body]
    assert parsed == []
    assert (line["kind"], line["stream"], line["bytes_in"], line["model"]) == ("main", True, len(body), "m")
    assert (line["session_id"], line["stop_reason"], line["output_tokens"]) == (SESSION[26:], "end_turn", 5)


async def test_the_name_of_the_model_is_all_that_becomes_another(parsed: list[int]) -> None:
    body = large()
    upstream, line = await call({"model_name": "theirs"}, body, SESSION, "X-Claude-Code-Agent-Id: a1")
    assert upstream.bodies == [body.replace(b'"m"', b'"theirs"', 1)]
    assert parsed == []
    assert line["kind"] == "subagent"


@pytest.mark.parametrize(
    ("entry", "more", "headers"),
    [
        ({"max_tokens": 5}, {"max_tokens": 9}, [SESSION]),
        ({"extra_body": {"a": 1}}, {}, [SESSION]),
        ({}, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, [SESSION]),
        ({}, {}, []),  # whose session it is may stand in the body
    ],
)
async def test_what_is_to_be_changed_or_known_is_read(
    entry: dict[str, Any], more: dict[str, Any], headers: list[str], parsed: list[int]
) -> None:
    body = large(**more)
    upstream, _ = await call(entry, body, *headers)
    assert parsed == [len(body)]
    changed = {**json.loads(body), **entry.get("extra_body", {})}
    if "max_tokens" in entry:
        changed["max_tokens"] = entry["max_tokens"]
    assert json.loads(upstream.bodies[0]) == changed


@pytest.mark.parametrize("second", ['"model":"other"', '"model" :\n "other"'])
@pytest.mark.parametrize("ahead_of", [b'"stream"', b'"messages"'])
async def test_a_request_that_names_two_models_is_read_and_the_last_one_counts(
    second: str, ahead_of: bytes, parsed: list[int]
) -> None:
    body = large().replace(ahead_of, second.encode() + b", " + ahead_of, 1)
    upstream, line = await call({"model_name": "theirs", "aliases": ["other"]}, body, SESSION)
    assert parsed == [len(body)]
    assert line["model"] == "other"
    assert json.loads(upstream.bodies[0])["model"] == "theirs"


async def test_what_is_no_json_after_all_harms_nothing(parsed: list[int]) -> None:
    body = large().replace(b'"system":', b'"system"')
    upstream, line = await call({}, body, SESSION, cached=5000)
    assert upstream.bodies == [body]
    assert line["outcome"] == "ok"


async def test_a_fallback_that_has_to_read_it_reads_it(parsed: list[int]) -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        body = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        return web.Response(body=body, content_type="text/event-stream")

    body = large()
    refusing = RawUpstream(lambda _: [b"HTTP/1.1 529 Overloaded\r\nContent-Length: 2\r\n\r\n{}"])
    async with refusing.running(), running_upstream(chat) as upstream:
        entries = [
            {"model_id": "m", "api_base": refusing.base, "direct": True, "fallback": ["other"]},
            {"model_id": "other", "api_base": upstream.base + "/v1"},
        ]
        async with running_proxy(entries) as base, RawClient.to(base) as client:
            await client.send(post(body, SESSION))
            response = await client.response()
    assert response.status == 200
    assert [kind for kind, _ in response.events()][-1] == "message_stop"
    assert refusing.bodies == [body]
    assert upstream.requests[0]["messages"][-1]["content"] == json.loads(body)["messages"][0]["content"]


async def test_a_fallback_of_a_request_that_is_no_json_says_so(parsed: list[int]) -> None:
    refusing = RawUpstream(lambda _: [b"HTTP/1.1 529 Overloaded\r\nContent-Length: 2\r\n\r\n{}"])
    async with refusing.running():
        entries = [
            {"model_id": "m", "api_base": refusing.base, "direct": True, "fallback": ["other"]},
            {"model_id": "other", "api_base": refusing.base + "/v1"},
        ]
        async with running_proxy(entries) as base, RawClient.to(base) as client:
            await client.send(post(large().replace(b'"system":', b'"system"'), SESSION))
            response = await client.response()
    assert (response.status, response.error()[0]) == (400, "invalid_request_error")


def test_a_request_is_parsed_once() -> None:
    request = ClientRequest(None, None, b'{"a":1}', None, None, wants_stream=True)  # type: ignore[arg-type]
    assert request.payload is request.payload
