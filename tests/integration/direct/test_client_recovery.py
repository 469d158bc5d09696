"""What Claude Code gets where a direct upstream refuses a request, and what others get: the upstream's bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.providers import registry
from tests.support.harness import running_proxy, running_upstream

CLAUDE = {"user-agent": "claude-cli/2.1.332 (external, cli)", "x-api-key": "k"}
SDK = {"user-agent": "anthropic-python/2.14", "x-api-key": "k"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
REQUEST = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": [IMAGE]}]}
NO_IMAGES = (
    b'{"type": "error",  "error": {"type": "invalid_request_error", "message": "images are not supported"}}'
)


async def refused(
    status: int, body: bytes, headers: Mapping[str, str], own_headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request whose upstream refuses it; return what the client gets."""

    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type="application/json", headers=own_headers)

    async with running_upstream(respond) as upstream:
        entry = {"model_id": "m", "api_base": upstream.base, "direct": True}
        async with running_proxy([entry], max_retries=0) as base, aiohttp.ClientSession() as client:
            async with client.post(f"{base}/v1/messages", json=REQUEST, headers=headers) as response:
                seen = {name.lower(): value for name, value in response.headers.items()}
                return response.status, seen, await response.read()


def error_of(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)["error"]
    return error


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_claude_code_gets_the_class_of_what_was_refused(status: int) -> None:
    with capture_logs() as logs:
        seen, headers, body = await refused(status, NO_IMAGES, CLAUDE)
    assert seen == 400
    assert error_of(body) == {"type": "invalid_request_error", "message": "capability_rejected: image_block"}
    assert "x-should-retry" not in headers
    (line,) = [each for each in logs if each["event"] == "upstream.bad_reply"]
    assert "images are not supported" in line["seen"]
    assert [each["error"] for each in logs if each["event"] == "call.finished"] == [
        "capability_rejected: image_block"
    ]


async def test_other_clients_get_the_bytes_of_the_upstream() -> None:
    assert (await refused(400, NO_IMAGES, SDK))[::2] == (400, NO_IMAGES)


async def test_anthropics_own_refusals_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = registry.PROFILES["anthropic"]
    monkeypatch.setattr("proxyd.proxy.driver_direct.profile_for", lambda base, name: profile)
    assert (await refused(400, NO_IMAGES, CLAUDE))[::2] == (400, NO_IMAGES)


async def test_other_refusals_are_the_upstreams_for_everybody() -> None:
    body = b'{"error":  {"message": "tools.0: too many"}}'
    assert (await refused(400, body, CLAUDE))[::2] == (400, body)


async def test_a_filter_of_contents_is_shown_with_what_to_do() -> None:
    status, headers, body = await refused(400, b'{"error":{"message":"Content Exists Risk"}}', CLAUDE)
    assert status == 400
    assert headers["x-should-retry"] == "false"
    error = error_of(body)
    assert error["type"] == "policy_blocked"
    assert error["message"].startswith("the content filter of 127.0.0.1:")
    assert "Content Exists Risk" in error["message"]
    assert "choose another model" in error["message"]


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (429, "You exceeded your current quota; insufficient balance", "false"),
        (402, "Insufficient Balance", None),  # shown at once
        (404, "model: not here", None),
        (401, "invalid api key", "false"),
        (429, "rate limit reached, try again in 2s", None),
        (503, "overloaded", None),
    ],
)
@pytest.mark.parametrize("client", [CLAUDE, SDK])
async def test_no_retry_is_asked_for_where_none_can_help(
    status: int, message: str, expected: str | None, client: dict[str, str]
) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    seen, headers, got = await refused(status, body, client)
    assert (seen, got) == (status, body)
    assert headers.get("x-should-retry") == expected


async def test_the_upstreams_own_word_on_retries_stays() -> None:
    body = b'{"error":{"message":"Insufficient Balance"}}'
    _, headers, _ = await refused(429, body, CLAUDE, {"x-should-retry": "true"})
    assert headers["x-should-retry"] == "true"
