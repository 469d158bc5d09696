"""Who may make the proxy spend or tell: web pages, clients behind a proxy on this machine, odd paths and bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxyd.secret import Secret
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, ask, post
from tests.support.streams import HELLO

TOKEN = "the-token-of-this-proxy-123"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
API = "anthropic-version: 2023-06-01"


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost:8082", *headers)).encode() + b"\r\n\r\n"


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    """Says ``{}`` to whatever asks with a body or for one."""

    def play(number: int) -> tuple[bytes, ...]:
        return (GOOD,) if found.heads[number].startswith(b"HEAD") else (GOOD + b"{}",)

    found = RawUpstream(play)
    async with found.running():
        yield found


def entry(upstream: RawUpstream, **more: Any) -> dict[str, Any]:
    return {
        "model_id": "d",
        "api_base": f"{upstream.base}/tenantA",
        "direct": True,
        "api_key": "sk-configured-0001",
        **more,
    }


# -- what a page of another site can have a browser send without asking first

PAGES: list[tuple[str, ...]] = [
    ("Origin: http://localhost:3000", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"),
    ("Origin: http://localhost:3000",),
    ("Origin: http://evil.localhost:3000",),
    ("Origin: http://127.0.0.1:3000", "Sec-Fetch-Site: cross-site"),
    ("Origin: http://localhost:8082", "Sec-Fetch-Site: cross-site"),
    ("Referer: http://evil.example/",),
    ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"),
    (),
]


@pytest.mark.statement("E3")
@pytest.mark.parametrize("headers", PAGES)
async def test_no_page_spends_anything(upstream: RawUpstream, headers: tuple[str, ...]) -> None:
    form = "Content-Type: text/plain"
    probe = post({"probe": True}, *headers, path="/test-connection", host="localhost:8082")
    async with running_proxy([entry(upstream)]) as base:
        assert (await ask(base, get("/test-connection?probe=1", *headers))).status in (400, 403)
        assert (await ask(base, get("/v1/models/d", *headers))).status in (200, 403)
        response = await ask(base, probe.replace(b"Content-Type: application/json", form.encode()))
        assert response.status in (403, 415)
    assert upstream.heads == []


@pytest.mark.statement("E3")
async def test_a_probe_says_how_to_ask_for_it_and_is_made_by_post(upstream: RawUpstream) -> None:
    async with running_proxy([entry(upstream)], max_retries=0) as base:
        response = await ask(base, get("/test-connection?probe=1"))
        assert response.status == 400
        assert 'POST: send {"probe": true}' in response.error()[1]
        probed = await ask(base, post({"probe": True}, path="/anthropic/test-connection"))
    assert probed.status == 200
    assert [route["probe"]["status"] for route in json.loads(probed.body)["routes"]] == [200]
    assert len(upstream.heads) == 1


async def test_a_client_of_the_api_has_a_model_asked_of_its_upstream(upstream: RawUpstream) -> None:
    async with running_proxy([entry(upstream)]) as base:
        for header in (API, "x-api-key: k", "Authorization: Bearer k"):
            upstream.heads.clear()
            assert (await ask(base, get("/v1/models/d", header))).status == 200
            assert len(upstream.heads) == 1, header


# -- behind a proxy on this machine


@pytest.mark.statement("E1")
@pytest.mark.parametrize("path", ["/readyz?verbose", "/anthropic/readyz?verbose=1", "/metrics"])
async def test_with_a_token_set_nobody_is_near(upstream: RawUpstream, path: str) -> None:
    async with running_proxy([entry(upstream)], auth_token=Secret(TOKEN)) as base:
        refused = await ask(base, get(path))
        assert (refused.status, refused.error()[0]) == (401, "authentication_error")
        response = await ask(base, get(path, f"x-claude-proxy-token: {TOKEN}"))
        assert response.status == 200
        assert b"sk-configured" not in response.body
        if path == "/metrics":  # a Prometheus on another machine
            head = get(path, f"Authorization: Bearer {TOKEN}", "X-Forwarded-For: 192.0.2.1")
            assert (await ask(base, head)).status == 200
        ready = await ask(base, get("/readyz"))
        assert json.loads(ready.body) == {"status": "ready"}


@pytest.mark.statement("E1")
@pytest.mark.parametrize(
    "header", ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1"]
)
async def test_what_a_proxy_passes_on_does_not_come_from_this_machine(
    upstream: RawUpstream, header: str
) -> None:
    async with running_proxy([entry(upstream)]) as base:
        assert json.loads((await ask(base, get("/readyz?verbose"))).body)["name"] == "claude-proxy"
        assert json.loads((await ask(base, get("/readyz?verbose", header))).body) == {"status": "ready"}
        assert (await ask(base, get("/metrics", header))).status == 403


# -- paths and bodies that go up


@pytest.mark.statement("E4")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "name",
    [
        "claude-x", "claude-x/../../../tenantB/keys", "claude-%2e%2e/%2e%2e/%2e%2e/tenantB",
        "claude-x%2f..%2f..%2ftenantB", "claude-x;/../a",
    ],
)  # fmt: skip
async def test_the_path_comes_from_the_entry(upstream: RawUpstream, method: str, name: str) -> None:
    async with running_proxy([entry(upstream, aliases=["claude-*"])]) as base:
        async with RawClient.to(base) as client:
            await client.send(get(f"/v1/models/{name}?all=1", API, method=method))
            assert (await client.head())[0] == 200
    assert [head.split()[:2] for head in upstream.heads] == [[method.encode(), b"/tenantA/v1/models/d?all=1"]]


@pytest.mark.statement("E4")
@pytest.mark.parametrize("path", ["/v1/%6dessages", "/anthropic/v1/messages", "/v1/./messages"])
async def test_a_call_goes_up_by_one_path(upstream: RawUpstream, path: str) -> None:
    async with running_proxy([entry(upstream)]) as base:
        status = (await ask(base, post({**HELLO, "model": "d", "stream": False}, path=path))).status
    assert status in (200, 404)
    assert [head.split()[1] for head in upstream.heads] == [b"/tenantA/v1/messages"] * (status == 200)


SECONDS = [b'"model":"dear"', b'"model" : "dear"', b'"\\u006dodel":"dear"', b'"mod\\u0065l":"dear"']
FILLER = b'{"role":"user","content":"' + b"x" * 12_000 + b'"}'


@pytest.mark.statement("E4")
@pytest.mark.parametrize("second", SECONDS)
@pytest.mark.parametrize("last", ["d", "dear"])
@pytest.mark.parametrize("headers", [(), ("X-Claude-Code-Session-Id: s1",)])
@pytest.mark.parametrize("padding", [0, 6000])
async def test_no_second_model_reaches_an_upstream(
    upstream: RawUpstream, second: bytes, last: str, headers: tuple[str, ...], padding: int
) -> None:
    """Whichever of its members a parser goes by, it is the model that the entry has."""
    first, behind = b'"model":"d"', second
    if last == "d":
        first, behind = second, b'"model":"d"'
    body = b'{%b,"max_tokens":5,"messages":[%b],%b,"metadata":{"user_id":"%b"},"stream":false}' % (
        first, FILLER, behind, b"y" * padding,
    )  # fmt: skip
    async with running_proxy([entry(upstream)]) as base:
        response = await ask(base, post(body, *headers))
    if last == "dear":
        assert response.status == 404
        assert upstream.bodies == []
        return
    assert response.status == 200
    found = json.loads(upstream.bodies[0], object_pairs_hook=lambda pairs: pairs)
    assert {value for key, value in found if key == "model"} == {"d"}


async def test_a_tool_with_a_parameter_of_that_name_is_no_second_model(upstream: RawUpstream) -> None:
    tool = {"name": "Agent", "input_schema": {"type": "object", "properties": {"model": {"type": "string"}}}}
    use = {"type": "tool_use", "id": "toolu_1", "name": "Agent", "input": {"model": "small"}}
    messages = [
        {"role": "user", "content": "x" * 20_000},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}]},
    ]
    payload = {"model": "d", "max_tokens": 5, "messages": messages, "tools": [tool], "stream": False}
    body = json.dumps(payload).encode()
    async with running_proxy([entry(upstream)]) as base:
        assert (await ask(base, post(body, "X-Claude-Code-Session-Id: s1"))).status == 200
    assert upstream.bodies == [body]


# -- small things


async def test_no_response_tells_versions(upstream: RawUpstream) -> None:
    async with running_proxy([entry(upstream)]) as base:
        for request in (
            get("/healthz"),
            get("/nothing"),
            b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
            b"\x16\x03\x01\r\n\r\n",
        ):
            async with RawClient.to(base) as client:
                await client.send(request)
                _, headers = await client.head()
            assert headers.get("server", "claude-proxy") == "claude-proxy", request


@pytest.mark.parametrize("path", ["/", "/anthropic", "/dashboard"])
async def test_no_page_of_ours_may_be_framed(upstream: RawUpstream, path: str) -> None:
    async with running_proxy([entry(upstream)]) as base:
        response = await ask(base, get(path))
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


@pytest.mark.statement("E1")
@pytest.mark.parametrize(
    ("token", "is_taken"), [("q7", False), ("fifteen-letters", False), ("sixteen-letters-", True)]
)
def test_a_token_has_sixteen_characters(tmp_path: Path, token: str, is_taken: bool) -> None:
    from proxyd.daemon.configuration import load_configuration
    from proxyd.errors import ConfigError

    path = tmp_path / "models.yaml"
    path.write_text(
        f"settings: {{auth_token: {token}}}\nmodels: [{{model_id: m, api_base: 'builtin:demo'}}]\n"
    )
    path.chmod(0o600)
    if is_taken:
        assert load_configuration({}, str(path), {}).settings.auth_token == Secret(token)
        return
    with pytest.raises(ConfigError, match="auth_token: expected at least 16 characters") as caught:
        load_configuration({}, str(path), {})
    assert token not in caught.value.message
