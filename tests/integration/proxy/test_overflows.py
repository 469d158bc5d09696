"""Prompts that are too long for an upstream, through the front door: Claude Code compacts, and nothing is retried."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.error_cases import RECOVERABLE
from tests.support.harness import Upstream, running_proxy, running_upstream, text_stream

LM_STUDIO = (
    "Input does not fit in context length. The input has 31430 tokens, but it only supports 30000 tokens."
)
MIDSTREAM = "Context size has been exceeded."
OPENAI = (
    "This model's maximum context length is 30000 tokens. However, your messages resulted in 31430 tokens."
)


def refused(status: int, body: Any) -> web.Response:
    return web.json_response(body, status=status)


def events(*blocks: str) -> web.Response:
    return web.Response(body="".join(blocks).encode(), content_type="text/event-stream")


def refusals() -> dict[str, tuple[web.Response, int | None]]:
    """An upstream's error, and the window in the client's error."""
    error = {"message": LM_STUDIO}
    return {
        "200, event: error": (
            events(f"event: error\ndata: {json.dumps({'error': error, 'message': LM_STUDIO})}\n\n"),
            30000,
        ),
        "200, error chunk": (events(f"data: {json.dumps({'error': error})}\n\n"), 30000),
        "200, JSON": (refused(200, {"error": error}), 30000),
        "400": (refused(400, {"error": {"message": OPENAI, "code": "context_length_exceeded"}}), 30000),
        "403": (refused(403, {"code": "InvalidParameter", "message": "上下文长度超出限制"}), None),
        "413": (refused(413, {"errors": [{"message": LM_STUDIO, "code": 5021}], "success": False}), 30000),
        "422": (refused(422, {"detail": "输入长度超过模型最大限制"}), None),
        "429": (refused(429, {"error": error}), 30000),
        "500": (refused(500, {"error": {"code": 500, "message": MIDSTREAM, "type": "server_error"}}), None),
    }


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def entry(upstream: Upstream, **keys: Any) -> dict[str, Any]:
    return {"model_id": "m", "api_base": upstream.base, **keys}


async def ask(
    session: aiohttp.ClientSession, proxy: str, words: int = 1, *, stream: bool = True
) -> tuple[int, str]:
    """Status, and the message of an error."""
    payload = {
        "model": "m",
        "max_tokens": 1000,
        "stream": stream,
        "messages": [{"role": "user", "content": "word " * words}],
    }
    async with session.post(f"{proxy}/v1/messages", json=payload) as response:
        data = await response.read()
        if response.status == 200:
            return 200, ""
        error = json.loads(data)["error"]
        return response.status, error["message"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", refusals())
async def test_overflow_becomes_a_message_that_makes_claude_code_compact(
    session: aiohttp.ClientSession, name: str, stream: bool
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return refusals()[name][0]

    window = refusals()[name][1]
    async with running_upstream(refuse) as upstream, running_proxy([entry(upstream)]) as proxy:
        status, message = await ask(session, proxy, stream=stream)
        assert status == 400
        assert RECOVERABLE.fullmatch(message)
        assert (f"> {window} maximum" in message) is (window is not None)
        assert len(upstream.requests) == 1, "it was retried"


class Moody:
    """An upstream that responds as the test says."""

    def __init__(self) -> None:
        self.refusal: str | None = None  # of status 400; an empty one has no body

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        if self.refusal is not None:
            message = self.refusal
            return refused(400, {"error": {"message": message}}) if message else web.Response(status=400)
        return web.Response(body=text_stream("Hi."), content_type="text/event-stream")


async def test_window_in_an_error_is_learned(
    session: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    moody = Moody()
    async with running_upstream(moody) as upstream, running_proxy([entry(upstream)]) as proxy:
        moody.refusal = "Bad Request"
        assert await ask(session, proxy, 40_000) == (400, "Bad Request")
        moody.refusal = OPENAI
        await ask(session, proxy, 40_000)
        moody.refusal = "Bad Request"
        status, message = await ask(session, proxy, 40_000)
        assert status == 400
        assert message.startswith("prompt is too long: ")
        assert message.endswith(" > 30000 maximum")
        assert await ask(session, proxy, 10) == (400, "Bad Request")
    lines = [line for line in capsys.readouterr().out.splitlines() if "route.learned" in line]
    assert len(lines) == 1
    assert "max_input_tokens: 30000" in lines[0]


async def test_window_in_models_yaml_has_precedence(session: aiohttp.ClientSession) -> None:
    moody = Moody()
    async with (
        running_upstream(moody) as upstream,
        running_proxy([entry(upstream, max_input_tokens=100_000)]) as proxy,
    ):
        moody.refusal = OPENAI
        await ask(session, proxy, 40_000)
        moody.refusal = "Bad Request"
        assert await ask(session, proxy, 40_000) == (400, "Bad Request")


async def test_prompt_no_larger_than_an_accepted_one_is_never_too_long(
    session: aiohttp.ClientSession,
) -> None:
    moody = Moody()
    async with running_upstream(moody) as upstream, running_proxy([entry(upstream)]) as proxy:
        assert await ask(session, proxy, 20_000) == (200, "")
        moody.refusal = ""
        status, message = await ask(session, proxy, 20_000)
        assert status == 400
        assert "without saying why" in message
        status, message = await ask(session, proxy, 40_000)
        assert status == 400
        assert RECOVERABLE.fullmatch(message)


async def test_accepted_prompt_contradicts_a_window(session: aiohttp.ClientSession) -> None:
    moody = Moody()
    async with running_upstream(moody) as upstream, running_proxy([entry(upstream)]) as proxy:
        moody.refusal = OPENAI
        await ask(session, proxy, 10)
        moody.refusal = None
        assert await ask(session, proxy, 100_000) == (200, "")
        moody.refusal = "Bad Request"
        assert await ask(session, proxy, 120_000) == (400, "Bad Request")
