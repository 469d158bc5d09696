"""Which headers go where, and whose key: nothing of one upstream's may reach another."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.secret import Secret
from tests.support.harness import running_proxy
from tests.support.raw_peers import RawUpstream, Reply, exchange, headers_of, plain_reply, post, running_raw

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
JSON = b"content-type: application/json\r\n"


def ok(head: bytes, body: bytes) -> Reply:
    return plain_reply(b'{"type":"message"}', more=JSON)


def entry(upstream: RawUpstream, model_id: str = "m", **keys: Any) -> dict[str, Any]:
    return {"model_id": model_id, "api_base": upstream.base, "direct": True, **keys}


async def test_what_goes_on_and_what_does_not() -> None:
    request = post(
        BODY,
        b"x-api-key: k",
        b"anthropic-version: 2026-10-21",
        b"anthropic-beta: a-1",
        b"anthropic-beta: b-2",
        b"anthropic-workspace-id: w",
        b"x-claude-code-session-id: s",
        b"user-agent: claude-cli/2.1.330 (external, cli)",
        b"x-app: cli",
        b"x-stainless-lang: js",
        b"traceparent: 00-1-2-03",
        b"accept: application/json",
        b"X-Team: blue",
        b"cookie: a=b",
        b"keep-alive: timeout=5",
        b"te: trailers",
        b"proxy-authorization: Basic eA==",
        b"x-forwarded-for: 10.0.0.1",
        b"forwarded: for=10.0.0.1",
        b"via: 1.1 x",
        b"accept-encoding: gzip, br",
        b"x-claude-proxy-token: t",
        b"x-claude-code-request-class: main",
        b"x-claude-code-prev-tool-durations: Bash=50",
        b"x-claude-1p-request-class: main",
        path=b"/v1/messages?beta=true&x=%2F+a",
    ).replace(b"connection: close", b"connection: close, x-hop", 1)
    request = request.replace(b"x-app:", b"x-hop: 1\r\nx-app:", 1)
    async with running_raw(ok) as upstream, running_proxy([entry(upstream)]) as proxy:
        await exchange(proxy, request)
    assert upstream.heads[0].split(b"\r\n")[0] == b"POST /v1/messages?beta=true&x=%2F+a HTTP/1.1"
    assert headers_of(upstream.heads[0]) == {
        "host": upstream.base.removeprefix("http://"),
        "content-length": str(len(BODY)),
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "a-1, b-2",
        "anthropic-workspace-id": "w",
        "x-claude-code-session-id": "s",
        "user-agent": "claude-cli/2.1.330 (external, cli)",
        "x-app": "cli",
        "x-stainless-lang": "js",
        "traceparent": "00-1-2-03",
        "x-team": "blue",
        "x-api-key": "k",
    }


@pytest.mark.parametrize(
    ("sent", "keys", "expected"),
    [
        ([b"x-api-key: k"], {}, {"x-api-key": "k"}),
        ([b"authorization: Bearer b"], {}, {"authorization": "Bearer b"}),
        # A key helper puts its value into both (docs/spec/messages-api.md#credentials).
        ([b"x-api-key: k", b"authorization: Bearer b"], {}, {"x-api-key": "k", "authorization": "Bearer b"}),
        ([], {"api_key": "own"}, {"x-api-key": "own"}),
        ([b"x-api-key: k"], {"api_key": "own"}, {"x-api-key": "own"}),
        ([b"authorization: Bearer b"], {"api_key": "own"}, {"authorization": "Bearer own"}),
        ([b"x-api-key: k", b"authorization: Bearer b"], {"api_key": "own"}, {"x-api-key": "own"}),
        ([b"api-key: k", b"x-goog-api-key: g"], {"api_key": "own"}, {"x-api-key": "own"}),
        # Ollama's cloud knows Bearer alone.
        ([b"x-api-key: k"], {"provider": "ollama"}, {"authorization": "Bearer k"}),
        ([], {"provider": "ollama", "api_key": "own"}, {"authorization": "Bearer own"}),
        ([b"x-api-key: k"], {"extra_headers": {"X-Api-Key": "last word"}}, {"x-api-key": "last word"}),
        # An upstream on this machine needs none.
        ([], {}, {}),
    ],
)
async def test_the_key_and_its_form(
    sent: list[bytes], keys: dict[str, Any], expected: dict[str, str]
) -> None:
    async with running_raw(ok) as upstream, running_proxy([entry(upstream, **keys)]) as proxy:
        await exchange(proxy, post(BODY, *sent))
    names = ("x-api-key", "authorization", "api-key", "x-goog-api-key")
    found = headers_of(upstream.heads[0])
    assert {name: found[name] for name in names if name in found} == expected


async def test_the_proxys_own_token_is_no_key() -> None:
    async with running_raw(ok) as upstream:
        async with running_proxy([entry(upstream)], auth_token=Secret("the token")) as proxy:
            head, _ = await exchange(proxy, post(BODY, b"authorization: Bearer the token", b"x-api-key: k"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert "authorization" not in headers_of(upstream.heads[0])
    assert headers_of(upstream.heads[0])["x-api-key"] == "k"


async def test_a_key_crosses_no_redirect() -> None:
    async with running_raw(ok) as other:
        target = f"location: {other.base}/v1/messages\r\n".encode()
        async with running_raw(lambda *_: plain_reply(b"", b"307 Temporary Redirect", target)) as upstream:
            async with running_proxy([entry(upstream)]) as proxy:
                head, body = await exchange(proxy, post(BODY, b"x-api-key: sk-secret-0123456789"))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"sk-secret" not in body
    assert other.heads == []


async def test_a_key_stays_with_the_upstream_it_is_for() -> None:
    """In a chain the next upstream gets its own key or none, and no header that may hold one."""
    busy = plain_reply(b'{"type":"error","error":{"type":"overloaded_error"}}', b"529 Overloaded", JSON)
    sent = (
        b"x-api-key: sk-client",
        b"authorization: Bearer sk-client",
        b"x-portkey-key: sk-client",
        b"x-app: cli",
    )
    async with running_raw(lambda *_: busy) as first, running_raw(ok) as second, running_raw(ok) as third:
        chain = [
            entry(first, fallback=["n", "o"]),
            entry(second, "n", api_key="own"),
            entry(third, "o"),
        ]
        async with running_proxy(chain) as proxy:
            head, _ = await exchange(proxy, post(BODY, *sent))
    assert headers_of(head)["x-claude-proxy-route"] == "n"
    assert b"sk-client" not in second.heads[0]
    assert headers_of(second.heads[0])["x-api-key"] == "own"
    assert headers_of(second.heads[0])["x-app"] == "cli"
    assert third.heads == []


async def test_a_fallback_of_the_same_upstream_takes_the_clients_key() -> None:
    def respond(head: bytes, body: bytes) -> Reply:
        return ok(head, body) if b'"small"' in body else plain_reply(b"{}", b"429 Too Many Requests", JSON)

    async with running_raw(respond) as upstream:
        chain = [entry(upstream, fallback=["n"]), entry(upstream, "n", model_name="small")]
        async with running_proxy(chain) as proxy:
            await exchange(proxy, post(BODY, b"x-api-key: k", b"x-team: blue"))
    assert [headers_of(head)["x-api-key"] for head in upstream.heads] == ["k", "k"]
    assert headers_of(upstream.heads[1])["x-team"] == "blue"


async def test_a_missing_key_is_said_before_any_call() -> None:
    beyond = {"model_id": "m", "api_base": "https://api.example.invalid", "direct": True}
    async with running_proxy([beyond]) as proxy:
        head, body = await exchange(proxy, post(BODY))
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"authentication_error" in body
    assert b"set ANTHROPIC_AUTH_TOKEN (or ANTHROPIC_API_KEY)" in body


async def test_a_configured_key_that_is_not_there_names_its_variable() -> None:
    beyond = {
        "model_id": "m",
        "api_base": "https://api.example.invalid",
        "direct": True,
        "api_key": "${NO_SUCH_KEY}",
    }
    async with running_proxy([beyond]) as proxy:
        head, body = await exchange(proxy, post(BODY, b"x-api-key: sk-client"))
    assert head.startswith(b"HTTP/1.1 401 ")
    assert (
        b"model 'm' has no key: NO_SUCH_KEY is not set where claude-proxy runs; run `export NO_SUCH_KEY=KEY`"
        in body
    )
