"""Calls over OpenAI's Responses API through the daemon: failures inside a 200, second tries, what is remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.providers.registry import PROFILES, profile_for
from tests.support.harness import Upstream, running_proxy, running_upstream
from tests.support.sse_reader import message_of

HELLO: dict[str, Any] = {
    "model": "m",
    "max_tokens": 500,
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "messages": [{"role": "user", "content": "hi"}],
}


def events(*sent: Mapping[str, Any]) -> bytes:
    return b"".join(
        f"event: {each['type']}\ndata: {json.dumps({**each, 'sequence_number': number})}\n\n".encode()
        for number, each in enumerate(sent)
    )


CREATED = {"type": "response.created", "response": {"status": "in_progress", "output": []}}
USAGE = {
    "input_tokens": 90,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 4,
    "total_tokens": 94,
}


def saying(text: str) -> bytes:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return events(
        CREATED,
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"status": "completed", "output": [item], "usage": USAGE}},
    )


def failing(code: str, message: str) -> bytes:
    error = {"code": code, "message": message}
    return events(CREATED, {"type": "response.failed", "response": {"status": "failed", "error": error}})


def stream(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/event-stream")


def refused(message: str, *, param: str | None = None, code: str | None = None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return web.json_response({"error": error}, status=400)


def entry(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return {
        "model_id": "m",
        "model_name": "gpt-5.6",
        "provider": "openai",
        "format": "openai-responses",
        "api_base": f"{upstream.base}/v1",
        "api_key": "k",
        **more,
    }


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(
    session: aiohttp.ClientSession, proxy: str, *, is_stream: bool = True, **fields: Any
) -> tuple[int, dict[str, Any]]:
    """The status, and the message or the error."""
    body = {**HELLO, "stream": is_stream, **fields}
    async with session.post(f"{proxy}/v1/messages", json=body) as response:
        data = await response.read()
        if response.status == 200 and is_stream:
            return 200, message_of(data)
        return response.status, json.loads(data)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_model_that_needs_it_goes_there_by_itself(
    session: aiohttp.ClientSession, is_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the vendor's own address, which is that of the test's upstream here."""
    monkeypatch.setitem(PROFILES, "openai", replace(PROFILES["openai"], hosts=("127.0.0.1",)))
    profile_for.cache_clear()

    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.path == "/v1/responses"
        return stream(saying("Hello."))

    async with running_upstream(respond) as upstream:
        unnamed = {key: value for key, value in entry(upstream).items() if key != "format"}
        async with running_proxy([unnamed]) as proxy:
            status, message = await ask(session, proxy, is_stream=is_stream)
    profile_for.cache_clear()
    assert status == 200
    assert message["content"] == [{"type": "text", "text": "Hello."}]
    assert message["usage"]["input_tokens"] == 30
    assert message["usage"]["cache_read_input_tokens"] == 60
    (sent,) = upstream.requests
    assert sent["reasoning"] == {"effort": "high", "summary": "auto"}
    assert sent["store"] is False
    assert upstream.headers[0]["authorization"] == "Bearer k"


async def test_a_response_that_is_not_streamed(session: aiohttp.ClientSession) -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Whole."}]}

    async def respond(request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"object": "response", "status": "completed", "error": None, "output": [item], "usage": USAGE}
        )

    async with running_upstream(respond) as upstream:
        async with running_proxy([entry(upstream, can_stream=False)]) as proxy:
            for is_stream in (True, False):
                _, message = await ask(session, proxy, is_stream=is_stream)
                assert message["content"] == [{"type": "text", "text": "Whole."}]
    assert [sent["stream"] for sent in upstream.requests] == [False, False]


async def test_an_overload_inside_a_200_goes_to_the_fallback(session: aiohttp.ClientSession) -> None:
    async def overloaded(request: web.Request) -> web.StreamResponse:
        return stream(failing("server_is_overloaded", "Our servers are currently overloaded."))

    async def respond(request: web.Request) -> web.StreamResponse:
        return stream(saying("From the other."))

    async with running_upstream(overloaded) as first, running_upstream(respond) as second:
        entries = [entry(first, fallback="other"), entry(second, model_id="other")]
        async with running_proxy(entries, max_retries=0) as proxy:
            _, message = await ask(session, proxy)
            assert message["content"][0]["text"] == "From the other."
            assert message["model"] == "m"
        async with running_proxy([entry(first)], max_retries=0) as proxy:
            status, body = await ask(session, proxy)
    assert (status, body["error"]["type"]) == (529, "overloaded_error")


async def test_an_overload_is_tried_again(session: aiohttp.ClientSession) -> None:
    answers = iter([failing("server_is_overloaded", "overloaded"), saying("Now.")])

    async def respond(request: web.Request) -> web.StreamResponse:
        return stream(next(answers))

    async with running_upstream(respond) as upstream:
        async with running_proxy([entry(upstream)], max_retries=1) as proxy:
            _, message = await ask(session, proxy)
    assert message["content"][0]["text"] == "Now."


VERIFY = "Your organization must be verified to generate reasoning summaries."


async def test_an_organisation_without_summaries_is_asked_without_and_remembered(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        if "summary" in json.loads(await request.read())["reasoning"]:
            return refused(VERIFY, param="reasoning.summary", code="unsupported_value")
        return stream(saying("Yes."))

    async with running_upstream(respond) as upstream:
        async with running_proxy([entry(upstream)], state_folder=tmp_path) as proxy:
            for _ in range(2):
                status, _ = await ask(session, proxy)
                assert status == 200
    assert ["summary" in sent["reasoning"] for sent in upstream.requests] == [True, False, False]
    assert all(sent["reasoning"]["effort"] == "high" for sent in upstream.requests)


def history(*encrypted: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    for content in encrypted:
        signature = encode_signature(
            "gpt-5.6", "summary", None, None, response_item={"encrypted_content": content}
        )
        thinking = {"type": "thinking", "thinking": "t", "signature": signature}
        messages += [
            {"role": "assistant", "content": [thinking, {"type": "text", "text": "a"}]},
            {"role": "user", "content": "on"},
        ]
    return messages


def as_status() -> web.Response:
    return refused(
        "The encrypted content gAAA...DQ== could not be verified.", code="invalid_encrypted_content"
    )


def in_stream() -> web.Response:
    return stream(failing("invalid_encrypted_content", "The encrypted content could not be verified."))


@pytest.mark.parametrize("refuse", [as_status, in_stream])
async def test_reasoning_of_another_account_is_left_out_from_then_on(
    session: aiohttp.ClientSession, refuse: Callable[[], web.Response]
) -> None:
    def reasoning(sent: dict[str, Any]) -> list[str]:
        return [item["encrypted_content"] for item in sent["input"] if item["type"] == "reasoning"]

    async def respond(request: web.Request) -> web.StreamResponse:
        if "foreign" in reasoning(json.loads(await request.read())):
            return refuse()
        return stream(saying("Yes."))

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        first, _ = await ask(session, proxy, messages=history("foreign"))
        second, _ = await ask(session, proxy, messages=history("foreign", "own"))
    assert (first, second) == (200, 200)
    assert [reasoning(sent) for sent in upstream.requests] == [["foreign"], [], ["own"]]
    assert all(sent["include"] for sent in upstream.requests), "reasoning is still asked for"


async def test_an_upstream_that_refuses_it_for_ever_is_not_asked_for_ever(
    session: aiohttp.ClientSession,
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return as_status()

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, _ = await ask(session, proxy, messages=history("a", "b"))
    assert status == 400
    assert len(upstream.requests) <= 6


async def test_a_server_without_the_api_is_named_with_the_remedy(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404, text="404 page not found")

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, body = await ask(session, proxy)
    assert status != 200
    assert f"{upstream.base}/v1/responses" in body["error"]["message"]
    assert "format: openai-chat" in body["error"]["message"]


async def test_a_stop_sequence_ends_the_call_at_once(session: aiohttp.ClientSession) -> None:
    gone = asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        added = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}
        delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "no</block> and more"}
        await response.write(events(CREATED, added, delta))
        try:
            await asyncio.sleep(30)  # cancelled when the proxy closes the connection
        finally:
            gone.set()
        return response

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        _, message = await asyncio.wait_for(ask(session, proxy, stop_sequences=["</block>"]), 30)
        await asyncio.wait_for(gone.wait(), 30)
    assert message["content"] == [{"type": "text", "text": "no"}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "</block>")


async def test_a_stream_that_breaks_off_ends_in_one_error(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return stream(saying("Half of it").partition(b"event: response.completed")[0])

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        body = {**HELLO, "stream": True}
        async with session.post(f"{proxy}/v1/messages", json=body) as response:
            data = await response.read()
    assert data.count(b"event: error") == 1
    assert b"message_stop" not in data
    assert b"Half of it" in data


async def test_too_few_tokens_are_answered_as_anthropic_does(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return refused(
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
            param="max_output_tokens",
            code="integer_below_min_value",
        )

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, message = await ask(session, proxy, is_stream=False, max_tokens=1)
    assert (status, message["stop_reason"]) == (200, "max_tokens")
