"""Calls over Gemini's own API through the daemon: the address and the key, failures inside a 200, second tries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from tests.support.harness import Upstream, running_proxy, running_upstream
from tests.support.sse_reader import message_of
from tests.support.strict_gemini import validate

MODEL = "gemini-3-pro-preview"
TOOL = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"const": "/a"}}}}
HELLO: dict[str, Any] = {
    "model": "m",
    "max_tokens": 500,
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "messages": [{"role": "user", "content": "hi"}],
}
USAGE = {
    "promptTokenCount": 90,
    "cachedContentTokenCount": 60,
    "candidatesTokenCount": 4,
    "totalTokenCount": 94,
}


def chunks(*sent: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\r\n\r\n" for each in sent)


def chunk(*parts: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": USAGE}


def saying(*parts: dict[str, Any]) -> web.Response:
    return stream(chunk(*(parts or ({"text": "Hello."},))), chunk(finish="STOP"))


def stream(*sent: dict[str, Any]) -> web.Response:
    return web.Response(body=chunks(*sent), content_type="text/event-stream")


def refused(message: str, status: int = 400, details: Sequence[Any] = ()) -> web.Response:
    error = {"code": status, "message": message, "status": "INVALID_ARGUMENT", "details": list(details)}
    return web.json_response({"error": error}, status=status)


def entry(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return {
        "model_id": "m",
        "model_name": MODEL,
        "provider": "gemini",
        "format": "gemini",
        "api_base": f"{upstream.base}/v1beta",
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
    async with session.post(
        f"{proxy}/v1/messages", json={**HELLO, "stream": is_stream, **fields}
    ) as response:
        data = await response.read()
        if response.status == 200 and is_stream:
            return 200, message_of(data)
        return response.status, json.loads(data)


class Scripted:
    """Responds with one of a list of responses after the other, the last one for ever, and judges each request."""

    def __init__(self, *responses: Callable[[], web.Response]) -> None:
        self._responses = responses
        self.bodies: list[dict[str, Any]] = []
        self.faults: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.faults += validate(body)
        self.bodies.append(body)
        return self._responses[min(len(self.bodies), len(self._responses)) - 1]()


@pytest.mark.parametrize("is_stream", [True, False])
async def test_the_address_names_the_model_and_a_header_the_key(
    session: aiohttp.ClientSession, is_stream: bool
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.path_qs == f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
        assert validate(json.loads(await request.read())) == []
        return saying()

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, message = await ask(session, proxy, is_stream=is_stream, tools=[TOOL])
    assert status == 200
    assert message["content"] == [{"type": "text", "text": "Hello."}]
    assert message["usage"]["input_tokens"] == 30
    assert message["usage"]["cache_read_input_tokens"] == 60
    (headers,) = upstream.headers
    assert headers["x-goog-api-key"] == "k"
    assert "authorization" not in {name.lower() for name in headers}
    (sent,) = upstream.requests
    assert sent["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "HIGH", "includeThoughts": True}


async def test_the_key_of_the_client_is_passed_on(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return saying()

    async with running_upstream(respond) as upstream:
        unkeyed = {key: value for key, value in entry(upstream).items() if key != "api_key"}
        async with running_proxy([unkeyed]) as proxy:
            headers = {"authorization": "Bearer mine"}
            async with session.post(f"{proxy}/v1/messages", json=HELLO, headers=headers) as response:
                assert response.status == 200
    assert upstream.headers[0]["x-goog-api-key"] == "mine"


async def test_a_response_that_is_not_streamed(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.path_qs == f"/v1beta/models/{MODEL}:generateContent"
        return web.json_response(chunk({"text": "Whole."}, finish="STOP"))

    async with running_upstream(respond) as upstream:
        async with running_proxy([entry(upstream, can_stream=False)]) as proxy:
            for is_stream in (True, False):
                _, message = await ask(session, proxy, is_stream=is_stream)
                assert message["content"] == [{"type": "text", "text": "Whole."}]


@pytest.mark.parametrize(
    "first",
    [
        lambda: stream(chunk(finish="MALFORMED_FUNCTION_CALL")),
        lambda: stream(chunk({"text": ""}, finish="STOP")),
        lambda: stream(chunk({"functionCall": {"args": {}}}, finish="STOP")),
        lambda: stream(
            {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
        ),
        lambda: refused("The model is overloaded.", 503),
    ],
)
async def test_a_failure_before_the_first_word_is_tried_again(
    session: aiohttp.ClientSession, first: Callable[[], web.Response]
) -> None:
    script = Scripted(first, saying)
    async with running_upstream(script) as upstream, running_proxy([entry(upstream)], max_retries=1) as proxy:
        status, message = await ask(session, proxy)
    assert (status, message["content"][0]["text"]) == (200, "Hello.")
    assert len(script.bodies) == 2
    assert script.bodies[0] == script.bodies[1]


async def test_what_stays_empty_is_an_empty_message(session: aiohttp.ClientSession) -> None:
    script = Scripted(lambda: stream(chunk(finish="STOP")))
    async with running_upstream(script) as upstream:
        async with running_proxy([entry(upstream)], max_retries=2) as proxy:
            assert (await ask(session, proxy))[1]["stop_reason"] == "end_turn"
            assert len(script.bodies) == 2, "once more, and not for ever"
        async with running_proxy([entry(upstream)], max_retries=0) as proxy:
            assert (await ask(session, proxy))[1]["stop_reason"] == "end_turn"
    assert len(script.bodies) == 3


async def test_a_failure_goes_to_the_fallback(session: aiohttp.ClientSession) -> None:
    failing = Scripted(lambda: stream(chunk(finish="MALFORMED_FUNCTION_CALL")))
    async with running_upstream(failing) as first, running_upstream(Scripted(saying)) as second:
        entries = [entry(first, fallback="other"), entry(second, model_id="other")]
        async with running_proxy(entries, max_retries=0) as proxy:
            _, message = await ask(session, proxy)
            assert message["content"][0]["text"] == "Hello."
        async with running_proxy([entry(first)], max_retries=0) as proxy:
            status, body = await ask(session, proxy)
    assert (status, body["error"]["type"]) == (500, "api_error")
    assert "MALFORMED_FUNCTION_CALL" in body["error"]["message"]


async def test_a_failure_after_the_first_word_is_one_error(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return stream(chunk({"text": "I call"}), chunk(finish="MALFORMED_FUNCTION_CALL"))

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        async with session.post(f"{proxy}/v1/messages", json={**HELLO, "stream": True}) as response:
            data = await response.read()
    assert data.count(b"event: error") == 1
    assert b"message_stop" not in data
    assert b"I call" in data
    assert len(upstream.requests) == 1


async def test_a_blocked_prompt_is_a_refusal(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return stream({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, message = await ask(session, proxy, is_stream=False)
    assert (status, message["stop_reason"]) == (200, "refusal")
    assert "PROHIBITED_CONTENT" in message["stop_details"]["explanation"]
    assert len(upstream.requests) == 1


SCHEMA_REFUSED = (
    'Invalid JSON payload received. Unknown name "const" at \'tools[0].function_declarations[0].'
    "parameters_json_schema.properties[0].value': Cannot find field."
)


async def test_a_refused_schema_is_narrowed_and_that_is_remembered(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        (declaration,) = json.loads(await request.read())["tools"][0]["functionDeclarations"]
        return refused(SCHEMA_REFUSED) if "parametersJsonSchema" in declaration else saying()

    async with running_upstream(respond) as upstream:
        async with running_proxy([entry(upstream)], state_folder=tmp_path) as proxy:
            for _ in range(2):
                status, _ = await ask(session, proxy, tools=[TOOL])
                assert status == 200
    declarations = [sent["tools"][0]["functionDeclarations"][0] for sent in upstream.requests]
    assert ["parametersJsonSchema" in each for each in declarations] == [True, False, False]
    assert declarations[1]["parameters"]["properties"] == {"path": {"type": "string", "enum": ["/a"]}}


def turn(number: int, signature: str, *, is_text: bool = False) -> list[dict[str, Any]]:
    call_id = f"i{number}"
    block = encode_signature(
        MODEL,
        "thought",
        None,
        {call_id: signature},
        part_signatures={"text": f"{signature}AAAA"} if is_text else None,
    )
    return [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": block},
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": call_id, "name": "Read", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "ok"}]},
    ]


@pytest.mark.parametrize("words", ["Corrupted thought signature.", "Invalid thought signature."])
@pytest.mark.parametrize("in_stream", [True, False])
async def test_signatures_of_another_account_are_left_out_from_then_on(
    session: aiohttp.ClientSession, words: str, in_stream: bool
) -> None:
    def signatures(sent: dict[str, Any]) -> list[str]:
        return [
            part["thoughtSignature"]
            for content in sent["contents"]
            for part in content["parts"]
            if "thoughtSignature" in part
        ]

    async def respond(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        assert validate(body) == []
        if "foreignn" in signatures(body):
            error = {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}
            return stream({"error": error}) if in_stream else refused(words)
        return saying()

    first = [HELLO["messages"][0], *turn(1, "foreignn", is_text=True)]
    second = [*first, *turn(2, "ownownow")]
    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        for messages in (first, second):
            status, _ = await ask(session, proxy, messages=messages)
            assert status == 200
    placeholder = "skip_thought_signature_validator"
    assert [signatures(sent) for sent in upstream.requests] == [
        ["foreignnAAAA", "foreignn"],
        [placeholder],
        [placeholder, "ownownow"],
    ]


async def test_an_upstream_that_refuses_signatures_for_ever_is_not_asked_for_ever(
    session: aiohttp.ClientSession,
) -> None:
    script = Scripted(lambda: refused("Corrupted thought signature."))
    async with running_upstream(script) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, _ = await ask(session, proxy, messages=[HELLO["messages"][0], *turn(1, "foreignn")])
    assert status == 400
    assert len(script.bodies) <= 6


async def test_the_wait_of_a_quota_reaches_the_client(session: aiohttp.ClientSession) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    quota = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
    script = Scripted(
        lambda: refused("You exceeded your current quota.", 429, [retry]),
        lambda: refused("You exceeded your current quota.", 429, [quota, retry]),
    )
    async with running_upstream(script) as upstream, running_proxy([entry(upstream)]) as proxy:
        async with session.post(f"{proxy}/v1/messages", json=HELLO) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "35")
        async with session.post(f"{proxy}/v1/messages", json=HELLO) as response:
            assert response.status == 429
            assert response.headers["x-should-retry"] == "false"
            assert "retry-after" not in response.headers


async def test_too_long_a_prompt_has_the_words_that_make_claude_code_compact(
    session: aiohttp.ClientSession,
) -> None:
    script = Scripted(
        lambda: refused(
            "The input token count (1048600) exceeds the maximum number of tokens allowed (1048576)."
        )
    )
    async with running_upstream(script) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, body = await ask(session, proxy)
    assert status == 400
    assert body["error"]["message"].startswith("prompt is too long: 1048600 tokens > 1048576 maximum")


async def test_a_conversation_keeps_its_signatures_and_ids(session: aiohttp.ClientSession) -> None:
    calls = (
        {"text": "I look.", "thought": True},
        {
            "functionCall": {"id": "fc1", "name": "Read", "args": {"path": "/a"}},
            "thoughtSignature": "EqQBAAAA",
        },
        {"functionCall": {"id": "fc2", "name": "Read", "args": {"path": "/b"}}},
    )
    script = Scripted(lambda: saying(*calls), saying)
    async with running_upstream(script) as upstream, running_proxy([entry(upstream)]) as proxy:
        _, message = await ask(session, proxy, tools=[TOOL])
        content = [
            {**block, "input": json.loads(block["input"])} if block["type"] == "tool_use" else block
            for block in message["content"]
        ]
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": block["id"]}
            for block in content
            if block["type"] == "tool_use"
        ]
        messages = [
            HELLO["messages"][0],
            {"role": "assistant", "content": content},
            {"role": "user", "content": results[::-1]},
        ]
        await ask(session, proxy, tools=[TOOL], messages=messages)
    assert message["stop_reason"] == "tool_use"
    assert script.faults == []
    assert script.bodies[1]["contents"][1:] == [
        {"role": "model", "parts": [calls[1], calls[2]]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": call_id, "name": "Read", "response": {"output": call_id}}}
                for call_id in ("fc1", "fc2")
            ],
        },
    ]


async def test_a_server_without_the_api_is_named(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404, text="404 page not found")

    async with running_upstream(respond) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, body = await ask(session, proxy)
    assert status != 200
    assert f"{upstream.base}/v1beta/models/{MODEL}:streamGenerateContent" in body["error"]["message"]
    assert "api_base" in body["error"]["message"]
