"""What a client sees of an upstream's errors, and of its own, in both modes.

See docs/spec/operations.md#d.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.faults import MODES, play
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, Step, post
from tests.support.streams import HELLO

#: Kept by direct mode, whatever the status; a translated response says how long to wait where waiting helps.
KEPT = (
    "retry-after: 17",
    "retry-after-ms: 17000",
    "anthropic-ratelimit-requests-remaining: 0",
    "anthropic-ratelimit-tokens-reset: 2026-11-26T00:00:00Z",
)
MESSAGE = "the machine says no"

#: Status of the upstream -> status and error type of a translated response (docs/spec/errors.md#mapping).
STATUSES = {
    400: (400, "invalid_request_error"),
    401: (401, "authentication_error"),
    403: (403, "permission_error"),
    404: (502, "api_error"),
    413: (413, "request_too_large"),
    422: (400, "invalid_request_error"),
    429: (429, "rate_limit_error"),
    500: (500, "api_error"),
    502: (502, "api_error"),
    503: (529, "overloaded_error"),
    504: (504, "timeout_error"),
    529: (529, "overloaded_error"),
}
BODIES = {
    "json": (b'{"error":{"message":"%s","type":"t","code":"c"}}' % MESSAGE.encode(), "application/json"),
    "text": (MESSAGE.encode(), "text/plain"),
    "html": (b"<html><body>" + MESSAGE.encode() + b"</body></html>", "text/html"),
    "empty": (b"", "application/json"),
    "broken": (b'{"error":{"mess', "application/json"),
}


def refusal(status: int, body: bytes, kind: str) -> list[Step]:
    lines = [
        f"HTTP/1.1 {status} No",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *KEPT,
        "X-Odd: yes",
    ]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


@pytest.mark.statement("D table")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize("status", STATUSES)
async def test_error_of_an_upstream(status: int, form: str, mode: str) -> None:
    body, kind = BODIES[form]
    response, (line,), upstream = await play(refusal(status, body, kind), mode, max_retries=0)
    assert len(upstream.heads) == 1
    assert (line["outcome"], line["status"]) == ("refused", response.status)
    if status == 404:  # not about a model: see test_wrong_address
        assert response.status == (400 if form == "json" else 502)
        assert response.headers["x-should-retry"] == "false"
    elif mode == "direct":
        assert (response.status, response.body) == (status, body)
        assert response.headers["content-type"] == kind
        assert {f"{name}: {response.headers[name]}" for name in ("retry-after", "retry-after-ms")} == set(
            KEPT[:2]
        )
        assert response.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert response.headers["x-odd"] == "yes"
    else:
        expected, error_type = STATUSES[status]
        assert (response.status, response.error()[0]) == (expected, error_type)
        assert response.error()[1]
        assert response.headers.get("retry-after") == ("17" if expected == 429 or expected >= 500 else None)
        assert json.loads(response.body)["request_id"] == response.headers["request-id"]
        assert (MESSAGE in response.error()[1]) is (form in ("json", "text"))
        assert "x-odd" not in response.headers


MISTAKES: dict[str, tuple[Any, int, str, str]] = {
    "no_json": (b"{nonsense", 400, "invalid_request_error", "not valid JSON"),
    "no_object": ([HELLO], 400, "invalid_request_error", "JSON object"),
    "empty": (b"", 400, "invalid_request_error", "empty"),
    "no_model": ({"messages": HELLO["messages"]}, 400, "invalid_request_error", "model"),
    "model_is_a_number": ({**HELLO, "model": 5}, 400, "invalid_request_error", "model"),
    "unknown_model": ({**HELLO, "model": "nobody"}, 404, "not_found_error", "known models: m"),
}


@pytest.mark.statement("D table")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MISTAKES)
async def test_invalid_request_calls_no_upstream(name: str, mode: str) -> None:
    payload, status, kind, words = MISTAKES[name]
    upstream = RawUpstream(lambda _: ())
    async with upstream.running():
        entry = {"model_id": "m", "api_base": upstream.base, "direct": mode == "direct"}
        async with running_proxy([entry]) as base, RawClient.to(base) as client:
            await client.send(post(payload))
            response = await client.response()
            assert (response.status, response.error()[0]) == (status, kind)
            assert words in response.error()[1]
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.response()).status == 200, "its connection goes on"
    assert upstream.heads == []
