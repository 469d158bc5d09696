"""Causes that no retry can cure: a wrong address, mode, key or model, a server that does not run, a spent quota.

Each is reported at once, in a form that the client shows, and names the address that was called.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.support.certificates import make_certificate, server_context
from tests.support.faults import MODES, play
from tests.support.harness import running_proxy, running_upstream
from tests.support.ports import free_port
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, Step, post, until
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge

CLAUDE_CODE = "User-Agent: claude-cli/2.1.332 (external, cli)"


def respond(status: int, body: bytes = b"", kind: str = "application/json", *headers: str) -> list[Step]:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


def stream(events: Mapping[str, bytes]) -> list[Step]:
    return [CHUNKED, as_chunks(*events.values()), b"0\r\n\r\n"]


PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body>Please log in</body></html>"
OPENAI_404 = (
    b'{"error":{"message":"Invalid URL (POST /chat/completions)","type":"invalid_request_error","code":null}}'
)
ANTHROPIC_404 = b'{"type":"error","error":{"type":"not_found_error","message":"Not found"}}'
COMPLETION = (
    b'{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}]}'
)
MESSAGE = b'{"type":"message","role":"assistant","content":[{"type":"text","text":"hi"}]}'

#: The upstream's response, mode -> status, parts of the message.
WRONG: dict[str, tuple[Sequence[Step], str, int, tuple[str, ...]]] = {
    "404 of a framework": (
        respond(404, b'{"detail":"Not Found"}'),
        "translated",
        502,
        ("answered 404 (“Not Found”)", "correct api_base"),
    ),
    "404 of OpenAI": (respond(404, OPENAI_404), "translated", 502, ("Invalid URL", "correct api_base")),
    "404 page": (respond(404, PAGE, "text/html"), "translated", 502, ("answered 404 (a page)",)),
    "404 text": (respond(404, b"404 page not found", "text/plain"), "translated", 502, ("page not found",)),
    "404 without a body": (respond(404), "translated", 502, ("no message",)),
    "405": (respond(405, b'{"detail":"Method Not Allowed"}'), "translated", 502, ("answered 405",)),
    "404 for another reason": (
        respond(404, b'{"error":{"message":"No endpoints found that support tool use","code":404}}'),
        "translated",
        400,
        ("No endpoints found that support tool use (", "answered 404)"),
    ),
    "404 of an Anthropic server": (
        respond(404, ANTHROPIC_404),
        "translated",
        502,
        ("speaks Anthropic's API: set `direct: true`",),
    ),
    "200 page": (respond(200, PAGE, "text/html"), "translated", 502, ("a page, not",)),
    "200 Anthropic stream": (stream(DIRECT), "translated", 502, ("set `direct: true`",)),
    "200 Anthropic message": (respond(200, MESSAGE), "translated", 502, ("set `direct: true`",)),
    "200 wrong endpoint": (
        respond(200, b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}'),
        "translated",
        502,
        ("Unexpected endpoint",),
    ),
    "redirect": (
        respond(308, b"", "text/plain", "Location: https://login.example.com/x?token=query-value"),
        "translated",
        502,
        ("redirect (308) to https://login.example.com/x?token=…",),
    ),
    "direct 404 of OpenAI": (
        respond(404, OPENAI_404),
        "direct",
        502,
        ("/v1/messages answered 404", "leave `direct` out"),
    ),
    "direct 404 page": (respond(404, PAGE, "text/html"), "direct", 502, ("a page", "leave `direct` out")),
    "direct 405": (respond(405, b'{"detail":"Method Not Allowed"}'), "direct", 502, ("answered 405",)),
    "direct 200 page": (respond(200, PAGE, "text/html"), "direct", 502, ("a page, not",)),
    "direct 200 OpenAI stream": (
        [CHUNKED, as_chunks(b'data: {"object":"chat.completion.chunk","choices":[]}\n\n'), b"0\r\n\r\n"],
        "direct",
        502,
        ("this speaks OpenAI's API: leave `direct` out",),
    ),
    "direct 200 OpenAI completion": (respond(200, COMPLETION), "direct", 502, ("leave `direct` out",)),
    "direct redirect": (
        respond(301, b"", "text/plain", "Location: /elsewhere"),
        "direct",
        502,
        ("redirect (301) to /elsewhere",),
    ),
}


@pytest.mark.statement("D table")
@pytest.mark.parametrize("name", WRONG)
async def test_wrong_address_is_told_at_once(name: str) -> None:
    steps, mode, status, parts = WRONG[name]
    response, (line,), upstream = await play(steps, mode)
    path = "/v1/messages" if mode == "direct" else "/v1/chat/completions"
    kind, message = response.error()
    assert (response.status, kind) == (status, "invalid_request_error" if status == 400 else "api_error")
    for part in (*parts, f"{upstream.base}{path}"):
        assert part in message
    assert response.headers["x-should-retry"] == "false"
    assert len(upstream.heads) == 1, "it is not retried"
    assert line["error"] == message
    assert "Please log in" not in message
    assert "query-value" not in message


async def _ask(
    base: str, *headers: str, model: str = "m", path: str = "/v1/messages", payload: Any = None
) -> RawResponse:
    async with RawClient.to(base) as client:
        await client.send(post({**HELLO, "model": model, **(payload or {})}, *headers, path=path))
        return await client.response()


async def test_base_without_v1_is_told_to_end_in_it() -> None:
    upstream = RawUpstream(lambda _: respond(404, b"404 page not found", "text/plain"))
    async with upstream.running(), running_proxy([{"model_id": "m", "api_base": upstream.base}]) as base:
        response = await _ask(base)
    assert "it usually ends in /v1" in response.error()[1]
    assert f"{upstream.base}/chat/completions answered 404" in response.error()[1]


async def test_address_is_shown_without_query_values() -> None:
    upstream = RawUpstream(lambda _: respond(404))
    async with upstream.running():
        entries = [{"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": True}]
        async with running_proxy(entries) as base:
            response = await _ask(base, path="/v1/messages?beta=true&key=query-value")
    message = response.error()[1]
    assert f"{upstream.base}/v1/messages?beta=…&key=… answered 404" in message
    assert "query-value" not in message


UNKNOWN_MODEL = b'{"error":{"message":"The model `x` does not exist","type":"NotFoundError","code":404}}'
WRONG_KEY = b'{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}'
FORBIDDEN = b'{"error":{"message":"Your plan has no access to this model","code":"no_access"}}'

#: The upstream's status and body -> what an SDK gets, and Claude Code.
PERMANENT: dict[str, tuple[int, bytes, tuple[int, str], tuple[int, str]]] = {
    "unknown model": (404, UNKNOWN_MODEL, (404, "not_found_error"), (400, "policy_blocked")),
    "wrong key": (401, WRONG_KEY, (401, "authentication_error"), (400, "policy_blocked")),
    "no permission": (403, FORBIDDEN, (403, "permission_error"), (400, "policy_blocked")),
}


@pytest.mark.parametrize("name", PERMANENT)
async def test_permanent_errors_of_an_upstream(name: str) -> None:
    status, body, for_sdk, for_claude_code = PERMANENT[name]
    upstream = RawUpstream(lambda _: respond(status, body))
    async with upstream.running(), running_proxy([{"model_id": "m", "api_base": upstream.base}]) as base:
        for headers, expected in (((), for_sdk), ((CLAUDE_CODE,), for_claude_code)):
            response = await _ask(base, *headers)
            kind, message = response.error()
            assert (response.status, kind) == expected
            assert response.headers["x-should-retry"] == "false"
            if status != 404:
                assert f"({upstream.base}/chat/completions answered {status})" in message
    assert len(upstream.heads) == 2


async def test_direct_unknown_model_is_passed_through() -> None:
    body = b'{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}'
    response, _, _ = await play(respond(404, body), "direct")
    assert (response.status, response.body) == (404, body)
    assert "x-should-retry" not in response.headers


@pytest.mark.parametrize(
    ("headers", "expected"), [((), (404, "not_found_error")), ((CLAUDE_CODE,), (400, "policy_blocked"))]
)
async def test_unknown_model_and_unknown_path(headers: tuple[str, ...], expected: tuple[int, str]) -> None:
    async with running_proxy([{"model_id": "known", "api_base": "http://127.0.0.1:1/v1"}]) as base:
        for response, part in (
            (
                await _ask(base, *headers, model="another"),
                "'another' is not in models.yaml; known models: known",
            ),
            (await _ask(base, *headers, path="/v2/v1/messages"), "there is nothing at /v2/v1/messages"),
        ):
            assert (response.status, response.error()[0]) == expected
            assert part in response.error()[1]
            assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("headers", "expected"), [((), (401, "authentication_error")), ((CLAUDE_CODE,), (400, "policy_blocked"))]
)
@pytest.mark.parametrize("is_direct", [True, False])
async def test_unset_key(is_direct: bool, headers: tuple[str, ...], expected: tuple[int, str]) -> None:
    entry = {"model_id": "m", "api_base": "http://127.0.0.1:1/v1", "api_key": "${NO_SUCH_KEY}"}
    async with running_proxy([{**entry, "direct": is_direct}]) as base:
        response = await _ask(base, *headers)
    assert (response.status, response.error()[0]) == expected
    assert "NO_SUCH_KEY" in response.error()[1]
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/v1/v1/messages", "/anthropic/v1/v1/messages"])
async def test_doubled_v1_is_accepted(path: str) -> None:
    upstream = RawUpstream(lambda _: stream(TRANSLATED))
    async with upstream.running(), running_proxy([{"model_id": "m", "api_base": upstream.base}]) as base:
        response = await _ask(base, path=path)
        assert (response.status, response.is_whole) == (200, True)
        counted = await _ask(base, path=f"{path}/count_tokens")
        assert b"input_tokens" in counted.body


async def test_server_that_does_not_run() -> None:
    upstream = RawUpstream(lambda _: (), port=free_port())
    with capture_logs() as lines:
        async with running_proxy([{"model_id": "m", "api_base": f"{upstream.base}/v1"}]) as base:
            first = await _ask(base)
            await _ask(base)
            refused = await _ask(base)
    cause = f"could not connect to {upstream.base}/v1/chat/completions"
    assert (first.status, first.headers["x-should-retry"]) == (502, "false")
    assert cause in first.error()[1]
    assert "start it, or correct api_base" in first.error()[1]
    assert refused.status == 529, "its circuit is open"
    assert cause in refused.error()[1], "the circuit keeps the last cause"
    assert refused.headers["retry-after"] == "1", "a server on this machine is tried again at once"
    for event in ("upstream.retry", "circuit.changed"):
        line = next(line for line in lines if line["event"] == event)
        assert cause in str(line.get("why") or line.get("cause"))


@pytest.mark.parametrize("mode", MODES)
async def test_server_that_restarts_is_reached(mode: str) -> None:
    upstream = RawUpstream(lambda _: stream(MODES[mode]), port=free_port())
    entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
    with capture_logs() as lines:
        async with running_proxy([entry]) as base:
            asked = asyncio.ensure_future(_ask(base))
            await until(lambda: any(line["event"] == "upstream.retry" for line in lines))
            async with upstream.running(upstream.port):
                response = await asked
    assert (response.status, judge(response.events())) == (200, "message_stop")


@pytest.mark.parametrize("mode", MODES)
async def test_host_that_does_not_exist_is_called_once(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    known = socket.getaddrinfo

    def look_up(host: Any, *more: Any, **options: Any) -> Any:
        if host == "upstream.invalid":
            asked.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    entry = {
        "model_id": "m",
        "api_base": "https://upstream.invalid/v1",
        "api_key": "sk-0123456789abcdef",
        "direct": mode == "direct",
    }
    async with running_proxy([entry]) as base:
        response = await _ask(base)
    assert (response.status, response.headers["x-should-retry"]) == (502, "false")
    assert "the name of upstream.invalid could not be resolved" in response.error()[1]
    assert len(asked) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_unknown_certificate_is_shown_once(mode: str, tmp_path: Path) -> None:
    handshakes: list[Any] = []
    upstream = RawUpstream(lambda _: (), tls=server_context(*make_certificate(tmp_path)))
    upstream.tls.sni_callback = lambda *seen: handshakes.append(seen)
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        async with running_proxy([entry]) as base:
            response = await _ask(base)
    assert (response.status, response.headers["x-should-retry"]) == (502, "false")
    assert f"{upstream.base}/v1/" in response.error()[1]
    assert "could not be verified" in response.error()[1]
    assert len(handshakes) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_https_for_a_server_without_tls(mode: str) -> None:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response()

    with capture_logs() as lines:
        async with running_upstream(respond) as upstream:
            base_url = f"{upstream.base.replace('http:', 'https:')}/v1"
            entry = {"model_id": "m", "api_base": base_url, "direct": mode == "direct"}
            async with running_proxy([entry]) as base:
                response = await _ask(base)
    assert (response.status, response.headers["x-should-retry"]) == (502, "false")
    assert f"{base_url}/" in response.error()[1]
    assert (
        "the server there speaks no TLS: write http:// in place of https:// in api_base"
        in response.error()[1]
    )
    assert "upstream.retry" not in [line["event"] for line in lines]


@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_date_in_retry_after_becomes_seconds(mode: str) -> None:
    dates = ("Date: Mon, 23 Nov 2026 08:00:00 GMT", "Retry-After: Mon, 23 Nov 2026 08:01:30 GMT")
    steps = respond(429, b'{"error":{"message":"slow down"}}', "application/json", *dates)
    response, _, _ = await play(steps, mode)
    assert (response.status, response.headers["retry-after"]) == (429, "90")
    assert "x-should-retry" not in response.headers


async def test_quota_that_resets_in_hours_is_not_retried() -> None:
    steps = respond(429, b'{"error":{"message":"slow down"}}', "application/json", "Retry-After: 7200")
    response, _, _ = await play(steps, "translated")
    assert (response.status, response.headers["retry-after"], response.headers["x-should-retry"]) == (
        429,
        "7200",
        "false",
    )


@pytest.mark.parametrize(
    "message",
    [
        {"type": "message", "content": [{"type": "text", "text": '{"object": "chat.completion"}'}]},
        {"type": "message", "content": [{"type": "tool_use", "input": {"object": "chat.completion"}}]},
        {"content": [{"type": "text", "text": '"object": "chat.completion", <html>'}]},
    ],
)
async def test_direct_message_about_the_other_protocol_is_passed_through(message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    response, _, _ = await play(respond(200, body), "direct", {**HELLO, "stream": False})
    assert (response.status, response.body) == (200, body)


@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_log_line_of_a_failed_call_names_the_address(mode: str) -> None:
    broken = [
        CHUNKED,
        as_chunks(*list((DIRECT if mode == "direct" else TRANSLATED).values())[:4]),
        b"0\r\n\r\n",
    ]
    refused = respond(
        400, b'{"type":"error","error":{"type":"invalid_request_error","message":"bad parameter"}}'
    )
    path = "/v1/messages" if mode == "direct" else "/v1/chat/completions"
    for steps in (broken, refused):
        _, (line,), upstream = await play(steps, mode)
        assert line["address"] == f"{upstream.base}{path}"
