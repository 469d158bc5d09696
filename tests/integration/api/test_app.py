"""The HTTP API over real sockets, with real upstreams.

See docs/spec/design.md#http, docs/spec/operations.md#d.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.errors import HTTP_ERRORS
from tests.support.harness import Upstream, chunk, running_proxy, running_upstream, sse, text_stream

JSON = {"content-type": "application/json"}
HELLO = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


async def say_hello(request: web.Request) -> web.StreamResponse:
    return web.Response(body=text_stream("Hel", "lo"), content_type="text/event-stream")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream(say_hello) as upstream:
        yield upstream


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[str]:
    async with running_proxy([{"model_id": "m", "api_base": upstream.base + "/v1"}]) as base:
        yield base


async def error_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the error of an envelope; each error response has one, with the id of its header."""
    body = json.loads(await response.read())
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"]
    assert response.headers["request-id"].startswith("req_")
    assert len(response.headers["request-id"]) == len("req_") + 22
    assert isinstance(body["error"], dict)
    return dict(body["error"])


BAD_BODIES = [
    (b"", 400, "invalid_request_error", "the request body is empty"),
    (b"{nonsense", 400, "invalid_request_error", "not valid JSON"),
    (b'"text"', 400, "invalid_request_error", "must be a JSON object"),
    (b"[" * 300 + b"]" * 300, 400, "invalid_request_error", "nested deeper than 256"),
    (b"\xff\xfe", 400, "invalid_request_error", "not valid JSON"),
    (b'{"messages":[{"role":"user","content":"x"}]}', 400, "invalid_request_error", "model:"),
    (b'{"model":7,"messages":[]}', 400, "invalid_request_error", "model:"),
    (b'{"model":"m"}', 400, "invalid_request_error", "messages:"),
    (b'{"model":"m","messages":[]}', 400, "invalid_request_error", "messages:"),
    (b'{"model":"m","messages":"x"}', 400, "invalid_request_error", "messages:"),
    (
        b'{"model":"m","messages":[{"role":"user","content":"x"}],'
        b'"tools":[{"name":"t","input_schema":{"type":"object","properties":{"n":{"default":NaN}}}}]}',
        400,
        "invalid_request_error",
        "NaN",
    ),
    (b'{"model":"nope","messages":[{}]}', 404, "not_found_error", "known models: m"),
]


@pytest.mark.parametrize(("body", "status", "kind", "words"), BAD_BODIES)
async def test_each_invalid_body_gets_its_own_error(
    proxy: str,
    upstream: Upstream,
    session: aiohttp.ClientSession,
    body: bytes,
    status: int,
    kind: str,
    words: str,
) -> None:
    async with session.post(f"{proxy}/v1/messages", data=body, headers=JSON) as response:
        assert response.status == status
        error = await error_of(response)
    assert error["type"] == kind
    assert words in error["message"]
    assert upstream.requests == []


async def test_wrong_path_and_method(proxy: str, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{proxy}/v2/messages") as response:
        assert response.status == 404
        assert (await error_of(response))["type"] == "not_found_error"
    async with session.get(f"{proxy}/v1/messages") as response:
        assert response.status == 405
        assert response.headers["allow"] == "POST"
        assert "use POST" in (await error_of(response))["message"]


async def test_a_body_over_the_limit_is_413(session: aiohttp.ClientSession, upstream: Upstream) -> None:
    entry = {"model_id": "m", "api_base": upstream.base}
    async with running_proxy([entry], max_body_bytes=4096) as base:
        big = json.dumps({**HELLO, "system": "x" * 5000}).encode()
        # By its Content-Length, when it is chunked, and when it decompresses to too much.
        for data, headers in (
            (big, JSON),
            (_in_pieces(big), JSON),
            (gzip.compress(big), {**JSON, "content-encoding": "gzip"}),
        ):
            async with session.post(f"{base}/v1/messages", data=data, headers=headers) as response:
                assert response.status == 413
                assert (await error_of(response))["type"] == "request_too_large"
    assert upstream.requests == []


async def _in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


async def test_content_types(proxy: str, session: aiohttp.ClientSession) -> None:
    body = json.dumps(HELLO).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        async with session.post(
            f"{proxy}/v1/messages", data=body, headers={"content-type": kind}
        ) as response:
            assert response.status == 415
    async with session.post(
        f"{proxy}/v1/messages", data=gzip.compress(body), headers={**JSON, "content-encoding": "gzip"}
    ) as response:
        assert response.status == 200


async def test_a_stream_and_a_message_have_the_same_content(
    proxy: str, upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    async with session.post(f"{proxy}/v1/messages?beta=true", json={**HELLO, "stream": True}) as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-claude-proxy-route"] == "m"
        assert response.headers["request-id"].startswith("req_")
        text = (await response.read()).decode()
    kinds = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    async with session.post(f"{proxy}/anthropic/v1/messages", json=HELLO) as response:
        assert response.headers["request-id"].startswith("req_")
        message = await response.json()
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert message["stop_reason"] == "end_turn"
    assert message["model"] == "m"
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (12, 3)
    # Upstream both were streams: a long response that is not streamed looks like a dead connection.
    assert [request["stream"] for request in upstream.requests] == [True, True]


async def test_events_are_forwarded_as_they_arrive(session: aiohttp.ClientSession) -> None:
    """The client has each event before the upstream sends the next: nothing is buffered."""
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse(chunk({"content": "first"}), done=False))
        await go_on.wait()
        await response.write(sse(chunk({"content": "second"}), chunk({}, "stop")))
        return response

    async with running_upstream(slow) as upstream, running_proxy([_entry(upstream)]) as base:
        async with session.post(f"{base}/v1/messages", json={**HELLO, "stream": True}) as response:
            seen = b""
            while b'"first"' not in seen:
                seen += await asyncio.wait_for(response.content.readany(), 30)
            assert b"second" not in seen
            go_on.set()
            assert b'"second"' in await response.content.read()


async def test_one_read_is_one_write(session: aiohttp.ClientSession) -> None:
    """The bytes of one read from the upstream are one write to the client."""
    async with running_upstream(say_hello) as upstream, running_proxy([_entry(upstream)]) as base:
        async with session.post(f"{base}/v1/messages", json={**HELLO, "stream": True}) as response:
            piece, is_whole = await response.content.readchunk()
            assert is_whole
            assert piece.count(b"event: ") == 7


def _entry(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return {"model_id": "m", "api_base": f"{upstream.base}/v1", **more}


async def test_keys_reach_the_upstream_only_in_its_own_header(
    proxy: str, upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    for headers in ({"x-api-key": "k1"}, {"authorization": "Bearer k1"}, {"authorization": "bearer  k1 "}):
        async with session.post(f"{proxy}/v1/messages", json=HELLO, headers=headers) as response:
            assert response.status == 200
    for sent in upstream.headers:
        assert sent["authorization"] == "Bearer k1"
        assert "x-api-key" not in sent
        assert "cookie" not in sent


async def test_a_missing_key_is_401_before_any_call(session: aiohttp.ClientSession) -> None:
    entries = [
        {"model_id": "t", "api_base": "https://api.example.com/v1"},
        {"model_id": "d", "api_base": "https://api.example.com", "direct": True},
    ]
    async with running_proxy(entries) as base:
        for model in ("t", "d"):
            async with session.post(f"{base}/v1/messages", json={**HELLO, "model": model}) as response:
                assert response.status == 401
                error = await error_of(response)
                assert error["type"] == "authentication_error"
                assert "ANTHROPIC_AUTH_TOKEN" in error["message"]


async def test_models_are_listed(session: aiohttp.ClientSession) -> None:
    entries = [{"model_id": f"m{n}", "api_base": "http://127.0.0.1:9/v1"} for n in range(5)]
    async with running_proxy(entries) as base:

        async def ids(query: str) -> tuple[list[str], bool]:
            async with session.get(f"{base}/v1/models{query}") as response:
                assert response.status == 200
                page = await response.json()
            assert page["first_id"] == (page["data"][0]["id"] if page["data"] else None)
            assert all(model["type"] == "model" and model["display_name"] for model in page["data"])
            assert all(model["description"].startswith(f"{model['id']} via ") for model in page["data"])
            return [model["id"] for model in page["data"]], page["has_more"]

        assert await ids("?limit=1000") == (["m0", "m1", "m2", "m3", "m4"], False)
        assert await ids("?limit=2") == (["m0", "m1"], True)
        assert await ids("?limit=2&after_id=m1") == (["m2", "m3"], True)
        assert await ids("?limit=2&after_id=m3") == (["m4"], False)
        assert await ids("?limit=2&before_id=m4") == (["m2", "m3"], True)
        assert await ids("?limit=9&before_id=m2") == (["m0", "m1"], False)
        async with session.get(f"{base}/v1/models?limit=0") as response:
            assert response.status == 400
        async with session.get(f"{base}/v1/models/m3") as response:
            assert (await response.json())["id"] == "m3"
        async with session.get(f"{base}/v1/models/none") as response:
            assert response.status == 404


async def test_probes(proxy: str, session: aiohttp.ClientSession) -> None:
    for path in ("/", "/api/hello", "/healthz", "/health", "/readyz", "/anthropic", "/anthropic/"):
        for method in ("GET", "HEAD"):
            async with session.request(method, proxy + path) as response:
                assert response.status == 200, (method, path)
                assert response.headers["request-id"]


async def test_count_tokens_of_a_translated_route_is_local(
    proxy: str, upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 400}], "tools": []}
    async with session.post(f"{proxy}/v1/messages/count_tokens?beta=true", json=body) as response:
        assert response.status == 200
        count = (await response.json())["input_tokens"]
    assert 300 < count < 800
    assert upstream.requests == []


def test_every_exception_has_a_response() -> None:
    for status, kind in HTTP_ERRORS.values():
        assert 400 <= status < 600
        assert kind.endswith("_error") or kind == "request_too_large"


@pytest.mark.parametrize(
    ("body", "model", "reason"),
    [
        ({"model": "no-such", "messages": []}, "no-such", "model: 'no-such' is not in models.yaml; known"),
        ({"messages": []}, None, "model: a model id is required"),
    ],
)
async def test_the_log_says_why_a_request_is_refused(
    session: aiohttp.ClientSession, body: dict[str, Any], model: str | None, reason: str
) -> None:
    with capture_logs() as lines:
        async with running_proxy([{"model_id": "m", "api_base": "builtin:demo"}]) as base:
            async with session.post(f"{base}/v1/messages", json=body) as response:
                assert response.status in (400, 404)
    (line,) = [line for line in lines if line["event"] == "request.refused"]
    assert line.get("model") == model
    assert line["reason"].startswith(reason)


async def test_a_request_for_an_unknown_model_is_in_the_feed(session: aiohttp.ClientSession) -> None:
    async with running_proxy([{"model_id": "m", "api_base": "builtin:demo"}]) as base:
        body = {"model": "no-such", "messages": [], "stream": True}
        headers = {"x-claude-code-session-id": "session-1"}
        async with session.post(f"{base}/v1/messages", json=body, headers=headers) as response:
            request_id = response.headers["request-id"]
        async with session.get(f"{base}/events") as feed:
            frame = await feed.content.readuntil(b"\n\n")
        async with session.get(f"{base}/metrics") as metrics:
            assert "no-such" not in await metrics.text()
    hello = json.loads(frame.partition(b"data: ")[2])
    assert hello["totals"] == []
    (call,) = hello["recent"]
    assert (call["request_id"], call["model"], call["session_id"]) == (request_id, "no-such", "session-1")
    assert (call["outcome"], call["status"], call["error_type"]) == ("refused", 404, "not_found_error")
    assert "known models: m" in call["error"]
