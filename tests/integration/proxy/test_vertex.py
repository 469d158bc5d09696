"""Gemini and Claude on Vertex AI: addresses, tokens, signatures that stay on their own side."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyd.codecs.anthropic.thinking_signature import decode_signature, encode_signature
from tests.support.harness import Upstream, running_proxy, running_upstream
from tests.support.servers import running_site
from tests.support.sse_reader import message_of
from tests.support.vendors.vertex import BASE_PATH, CLAUDE_STREAM, OWN_SIGNATURE, PLACEHOLDER, StrictVertex

TOKEN = "ya29.a-token-of-google"
GEMINI, CLAUDE = "gemini-3-pro-preview", "claude-sonnet-4-5@20250929"
TOOL = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
HELLO: dict[str, Any] = {"max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]}
#: What Claude Code sends to Anthropic.
FROM_CLAUDE_CODE = {
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "metadata": {"user_id": "u"},
}
BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,effort-2025-11-24,context-management-2025-06-27,"
    "prompt-caching-scope-2026-01-05,web-search-2025-03-05,advanced-tool-use-2025-11-20"
)


def entries(upstream: Upstream, **more: Any) -> list[dict[str, Any]]:
    base = {"provider": "vertex", "api_base": f"{upstream.base}{BASE_PATH}"}
    credential = {"access_token": TOKEN} if "access_token" not in more else {}
    return [
        {"model_id": "g", "model_name": GEMINI, "format": "gemini", **base, **credential, **more},
        {"model_id": "c", "model_name": CLAUDE, "direct": True, **base, **credential, **more},
    ]


@asynccontextmanager
async def vertex(**more: Any) -> AsyncIterator[tuple[str, StrictVertex, Upstream]]:
    strict = StrictVertex(TOKEN)
    async with running_upstream(strict) as upstream, running_proxy(entries(upstream, **more)) as proxy:
        yield proxy, strict, upstream


async def post(proxy: str, body: dict[str, Any], path: str = "/v1/messages") -> tuple[int, bytes]:
    headers = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": BETAS,
        "authorization": "Bearer of-the-client",
    }
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{proxy}{path}?beta=true", json={**HELLO, **body}) as response:
            return response.status, await response.read()


async def test_claude_is_called_at_its_address_and_its_bytes_pass() -> None:
    async with vertex() as (proxy, strict, upstream):
        body = {"model": "c", **FROM_CLAUDE_CODE}
        assert await post(proxy, {**body, "stream": True}) == (200, CLAUDE_STREAM)
        status, whole = await post(proxy, body)
        assert (status, json.loads(whole)["content"][0]["text"]) == (200, "Hello.")
        count = {"model": "c", "messages": HELLO["messages"]}
        status, counted = await post(proxy, count, "/v1/messages/count_tokens")
        assert (status, json.loads(counted)) == (200, {"input_tokens": 42})
    assert strict.called == [
        f"anthropic/{CLAUDE}:streamRawPredict",
        f"anthropic/{CLAUDE}:rawPredict",
        "anthropic/count-tokens:rawPredict",
    ]
    streamed, _, counting = upstream.requests
    assert streamed["thinking"] == {"type": "adaptive"}
    assert streamed["context_management"] == FROM_CLAUDE_CODE["context_management"]
    assert "model" not in streamed
    assert counting["model"] == CLAUDE
    kept = "interleaved-thinking-2025-05-14,context-management-2025-06-27"
    assert [each["anthropic-beta"] for each in upstream.headers] == [
        f"{kept},web-search-2025-03-05,tool-search-tool-2025-10-19",
        f"{kept},web-search-2025-03-05,tool-search-tool-2025-10-19",
        f"{kept},tool-search-tool-2025-10-19",
    ]
    assert not any("anthropic-version" in each for each in upstream.headers)


async def test_a_large_request_of_claude_code_is_changed_all_the_same() -> None:
    """One that other direct routes would forward without parsing it."""
    text = "x" * 40_000
    body = {"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": text}], "stream": True}
    async with vertex() as (proxy, strict, _):
        headers = {"x-claude-code-session-id": "s1", "content-type": "application/json"}
        async with aiohttp.ClientSession() as session:
            async with session.post(
                f"{proxy}/v1/messages", data=json.dumps(body), headers=headers
            ) as response:
                assert (response.status, await response.read()) == (200, CLAUDE_STREAM)
    assert strict.called == [f"anthropic/{CLAUDE}:streamRawPredict"]


async def test_a_model_is_described_from_memory() -> None:
    async with vertex() as (proxy, strict, upstream):
        async with aiohttp.ClientSession(headers={"anthropic-version": "2023-06-01"}) as session:
            async with session.get(f"{proxy}/v1/models/c") as response:
                assert (await response.json())["id"] == "c"
    assert (strict.called, upstream.requests) == ([], [])


async def test_gemini_is_called_at_its_address_and_counts() -> None:
    async with vertex() as (proxy, strict, _):
        body = {"model": "g", **FROM_CLAUDE_CODE, "stream": True}
        status, data = await post(proxy, body)
        assert (status, message_of(data)["content"]) == (200, [{"type": "text", "text": "Hello."}])
        counted = await post(proxy, {"model": "g"}, "/v1/messages/count_tokens")
    assert (counted[0], json.loads(counted[1])) == (200, {"input_tokens": 77})
    assert strict.called == [f"google/{GEMINI}:streamGenerateContent", f"google/{GEMINI}:countTokens"]


def foreign_turn(model: str, signature: str) -> list[dict[str, Any]]:
    block = encode_signature(model, "thought", None, {"t1": signature})
    call = {"type": "tool_use", "id": "t1", "name": "Read", "input": {}}
    return [
        *HELLO["messages"],
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": block}, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]},
    ]


async def test_signatures_of_ai_studio_never_reach_vertex() -> None:
    async with vertex() as (proxy, _, upstream):
        messages = foreign_turn(GEMINI, "of-ai-studio")
        status, _ = await post(proxy, {"model": "g", "tools": [TOOL], "messages": messages})
    assert status == 200
    (sent,) = upstream.requests
    assert [part.get("thoughtSignature") for part in sent["contents"][1]["parts"]] == [PLACEHOLDER]


async def test_signatures_of_vertex_come_back_there_and_nowhere_else() -> None:
    studio: list[dict[str, Any]] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        studio.append(json.loads(await request.read()))
        part = {"candidates": [{"content": {"parts": [{"text": "Hi."}]}, "finishReason": "STOP"}]}
        return web.Response(
            body=b"data: " + json.dumps(part).encode() + b"\n\n", content_type="text/event-stream"
        )

    strict = StrictVertex(TOKEN)
    async with running_upstream(strict) as upstream, running_upstream(respond) as other:
        at_studio = {
            "model_id": "s",
            "model_name": GEMINI,
            "provider": "gemini",
            "format": "gemini",
            "api_base": f"{other.base}/v1beta",
            "api_key": "k",
        }
        async with running_proxy([*entries(upstream), at_studio]) as proxy:
            status, data = await post(proxy, {"model": "g", "tools": [TOOL], "stream": True})
            assert status == 200
            content = message_of(data)["content"]
            signature = decode_signature(content[0]["signature"])
            assert signature is not None
            assert (signature.model, [*signature.tool_signatures.values()]) == (
                f"vertex/{GEMINI}",
                [OWN_SIGNATURE],
            )
            call = {**content[1], "input": json.loads(content[1]["input"])}
            result = {"type": "tool_result", "tool_use_id": call["id"], "content": "ok"}
            messages = [
                *HELLO["messages"],
                {"role": "assistant", "content": [content[0], call]},
                {"role": "user", "content": [result]},
            ]
            for model in ("g", "s"):
                assert (await post(proxy, {"model": model, "tools": [TOOL], "messages": messages}))[0] == 200
    assert upstream.requests[1]["contents"][1]["parts"][0]["thoughtSignature"] == OWN_SIGNATURE
    assert studio[0]["contents"][1]["parts"][0]["thoughtSignature"] != OWN_SIGNATURE, (
        "AI Studio cannot read it"
    )


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def credentials_file(folder: Path, token_uri: str, private_key: str) -> Path:
    """The file of a service account whose tokens come from `token_uri`."""
    path = folder / "credentials.json"
    account = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "proxy@my-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(account))
    return path


async def test_application_default_credentials_give_the_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    asked = 0

    async def token(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        assert (await request.post())["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return web.json_response({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})

    async with _token_server(token) as uri, vertex(access_token="application-default") as (proxy, strict, _):
        path = credentials_file(tmp_path, uri, private_key)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        for body in ({"model": "g"}, {"model": "c", "stream": True}, {"model": "g"}):
            assert (await post(proxy, body))[0] == 200
        assert (await post(proxy, {"model": "g"}, "/v1/messages/count_tokens"))[1] == b'{"input_tokens":77}'
    assert len(strict.called) == 4
    assert asked == 1, "one token serves them all"


async def test_credentials_that_google_refuses_are_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    async def token(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "invalid_grant", "error_description": "Bad."}, status=400)

    async with _token_server(token) as uri, vertex(access_token="application-default") as (proxy, strict, _):
        path = credentials_file(tmp_path, uri, private_key)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        status, body = await post(proxy, {"model": "g"})
        error = json.loads(body)["error"]
        assert (status, error["type"]) == (401, "authentication_error")
        assert "gcloud auth application-default login" in error["message"]
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        status, body = await post(proxy, {"model": "c"})
        assert (status, "GOOGLE_APPLICATION_CREDENTIALS" in body.decode()) == (401, True)
        counted = await post(proxy, {"model": "g"}, "/v1/messages/count_tokens")
        assert counted[0] == 200, "an estimate"
    assert strict.called == []


@asynccontextmanager
async def _token_server(respond: Any) -> AsyncIterator[str]:
    """Serve `respond` without reading JSON from what it is sent; gives the address."""
    app = web.Application()
    app.router.add_post("/token", respond)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    async with running_site(runner) as port:
        yield f"http://127.0.0.1:{port}/token"
