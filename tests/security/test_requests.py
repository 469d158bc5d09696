"""Who is answered, and what can be smuggled past (docs/spec/operations.md#e1, #e2, #e3, #e5, #e8, #e9)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxyd.daemon.configuration import load_configuration
from proxyd.errors import ConfigError
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, ask, post
from tests.support.streams import CHUNKED, HELLO, TRANSLATED, as_chunks

GOOD = (CHUNKED, as_chunks(*TRANSLATED.values()), b"0\r\n\r\n")


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    found = RawUpstream(lambda _: GOOD)
    async with found.running():
        yield found


def entries(upstream: RawUpstream) -> list[dict[str, Any]]:
    return [{"model_id": "m", "api_base": f"{upstream.base}/v1"}]


# -- E1

EXPOSURES = [
    ({"host": "0.0.0.0"}, {}, False),
    ({"host": "::"}, {}, False),
    ({"host": "192.0.2.1"}, {}, False),
    ({"host": "0.0.0.0"}, {"CLAUDE_PROXY_AUTH_TOKEN": "a-token-of-some-length"}, True),
    ({"host": "0.0.0.0", "insecure": True}, {}, True),
    ({"host": "127.0.0.1"}, {}, True),
    ({"host": "::1"}, {}, True),
    ({"host": "localhost"}, {}, True),
]


@pytest.mark.statement("E1")
@pytest.mark.parametrize(("flags", "environ", "is_allowed"), EXPOSURES)
def test_beyond_loopback_a_token_is_needed(
    tmp_path: Any, flags: dict[str, Any], environ: dict[str, str], is_allowed: bool
) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("- {model_id: m, api_base: http://127.0.0.1:1/v1}\n")
    if is_allowed:
        assert load_configuration(flags, str(path), environ).settings.host == flags["host"]
    else:
        with pytest.raises(ConfigError, match="auth_token"):
            load_configuration(flags, str(path), environ)


TOKEN = "the-token-of-this-proxy-123"
TOKENS = [
    ((), 401),
    (("Authorization: Bearer wrong",), 401),
    ((f"Authorization: Bearer {TOKEN}x",), 401),
    ((f"Authorization: Basic {TOKEN}",), 401),
    (("X-Api-Key: \xff\xfe",), 401),
    ((f"Authorization: Bearer {TOKEN}",), 200),
    ((f"X-Api-Key: {TOKEN}",), 200),
    ((f"X-Claude-Proxy-Token: {TOKEN}",), 200),
]


@pytest.mark.statement("E1")
@pytest.mark.parametrize(("headers", "status"), TOKENS)
async def test_the_token_opens_every_path_but_health_and_never_goes_on(
    upstream: RawUpstream, headers: tuple[str, ...], status: int
) -> None:
    from proxyd.secret import Secret

    async with running_proxy(entries(upstream), auth_token=Secret(TOKEN)) as base:
        assert (await ask(base, post(HELLO, *headers))).status == status
        for path in ("/", "/v1/models", "/v1/stats", "/metrics", "/events", "/test-connection", "/nothing"):
            lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers]
            async with RawClient.to(base) as client:
                await client.send("\r\n".join(lines).encode() + b"\r\n\r\n")
                seen, _ = await client.head()
            assert seen == 401 if status == 401 else seen in (200, 404)
        assert (await ask(base, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200
    assert TOKEN.encode() not in b"".join(upstream.heads)
    assert len(upstream.heads) == (status == 200)


# -- docs/spec/operations.md#e2, #e3

HOSTS = [
    ("localhost", 200),
    ("localhost:8082", 200),
    ("LOCALHOST.:1", 200),
    ("127.0.0.1:9999", 200),
    ("127.5.5.5", 200),
    ("[::1]:8082", 200),
    ("app.localhost", 200),
    ("allowed.example", 200),
    ("evil.example", 421),
    ("evil.example:8082", 421),
    ("localhost.evil.example", 421),
    ("127.0.0.1.evil.example", 421),
    ("evil.example#localhost", 421),
    ("user@localhost", 421),
    ("localhost:80@evil.example", 421),
    ("[::1].evil.example", 421),
    ("[::1]evil.example", 421),
    ("localhost:80:80", 421),
    ("localhost:", 200),
    ("192.0.2.1", 421),
    ("0.0.0.0", 421),
    ("", 421),
]


@pytest.mark.statement("E2")
@pytest.mark.parametrize(("host", "status"), HOSTS)
async def test_the_host_must_be_ours(upstream: RawUpstream, host: str, status: int) -> None:
    async with running_proxy(entries(upstream), allowed_hosts=("allowed.example",)) as base:
        assert (await ask(base, post(HELLO, host=host))).status == status
        target = f"http://{host}/v1/messages" if host else "http://evil.example/v1/messages"
        assert (await ask(base, post(HELLO, path=target))).status in ((200,) if status == 200 else (400, 421))
    assert len(upstream.heads) == (2 if status == 200 else 0)


BROWSERS = [
    (("Origin: https://evil.example",), 403),
    (("Origin: null",), 403),
    (("Origin: file://",), 403),
    (("Sec-Fetch-Site: cross-site",), 403),
    (("Sec-Fetch-Site: same-site",), 403),
    (("Origin: http://localhost:8082", "Sec-Fetch-Site: same-origin"), 200),
    (("Origin: http://localhost:3000",), 403),
    (("Origin: http://localhost",), 403),
    (("Origin: http://user@localhost:8082",), 403),
    (("Origin: http://localhost:8082.evil.example",), 403),
    (("Origin: ftp://localhost:8082",), 403),
    (("Origin: http://localhost:8082", "Origin: http://evil.example"), 403),
    (("Origin: http://localhost:8082", "Sec-Fetch-Site: cross-site"), 403),
    (("Origin: http://localhost:8082", "Sec-Fetch-Site: SAME-SITE"), 403),
    (("Origin: https://allowed.example", "Sec-Fetch-Site: same-origin"), 200),
    (("Origin: https://allowed.example:444",), 403),
    (("Sec-Fetch-Site: same-origin",), 200),
    (("Sec-Fetch-Site: none",), 200),
]


@pytest.mark.statement("E3")
@pytest.mark.parametrize(("headers", "status"), BROWSERS)
async def test_pages_of_other_sites_are_refused(
    upstream: RawUpstream, headers: tuple[str, ...], status: int
) -> None:
    async with running_proxy(entries(upstream), allowed_hosts=("allowed.example",)) as base:
        response = await ask(base, post(HELLO, *headers, host="127.0.0.1:8082"))
    assert response.status == status
    assert not [name for name in response.headers if name.startswith("access-control-")]
    assert len(upstream.heads) == (status == 200)


@pytest.mark.statement("E3")
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
async def test_what_a_form_can_send_is_refused(upstream: RawUpstream, kind: str) -> None:
    request = post(HELLO).replace(b"Content-Type: application/json", f"Content-Type: {kind}".encode())
    async with running_proxy(entries(upstream)) as base:
        assert (await ask(base, request)).status == 415
        preflight = (
            b"OPTIONS /v1/messages HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n"
        )
        assert (await ask(base, preflight)).status == 403
    assert upstream.heads == []


# -- E5


@pytest.mark.statement("E5")
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(upstream: RawUpstream, direct: bool, status: int) -> None:
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {upstream.base}/v1\r\nContent-Length: 0\r\n\r\n"
    moved = RawUpstream(lambda _: (head.encode(),))
    async with moved.running():
        entry = {"model_id": "m", "api_base": f"{moved.base}/v1", "direct": direct}
        async with running_proxy([entry]) as base:
            response = await ask(base, post(HELLO, "X-Api-Key: sk-client-0123456789"))
    assert (response.status, response.error()[0]) == (502, "api_error")
    assert upstream.heads == []
    assert len(moved.heads) == 1


# -- E8

BODY = json.dumps(HELLO).encode()
_HEAD = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = {
    "length_and_chunked": _HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two_lengths": _HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "a_length_list": _HEAD + b"Content-Length: 4, 5\r\n\r\nabcde",
    "a_signed_length": _HEAD + b"Content-Length: +4\r\n\r\nabcd",
    "two_hosts": _HEAD + b"Host: evil.example\r\nContent-Length: 2\r\n\r\n{}",
    "no_host": _HEAD.replace(b"Host: localhost\r\n", b"") + b"Content-Length: 2\r\n\r\n{}",
    "space_before_colon": _HEAD + b"Content-Length : 2\r\n\r\n{}",
    "folded_header": _HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "unknown_transfer_coding": _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked_twice": _HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "bad_chunk_size": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "nul_in_header": _HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "bare_cr_in_header": _HEAD + b"X: a\rb\r\nContent-Length: 2\r\n\r\n{}",
    "no_http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    "http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.statement("E8")
@pytest.mark.parametrize("name", SMUGGLED)
async def test_ambiguous_requests_are_refused(upstream: RawUpstream, name: str) -> None:
    async with running_proxy(entries(upstream)) as base, RawClient.to(base) as client:
        await client.send(SMUGGLED[name] + post(HELLO))
        status, _ = await client.head()
        assert status in (400, 421)
    assert upstream.heads == [], "nothing behind it was taken for a request"


@pytest.mark.statement("E8")
async def test_one_framing_goes_up_whatever_came_in(upstream: RawUpstream) -> None:
    chunked = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + as_chunks(BODY[:9], BODY[9:]) + b"0\r\n\r\n"
    async with running_proxy([{"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": True}]) as base:
        assert (await ask(base, chunked)).status == 200
    head = upstream.heads[0].lower()
    assert b"transfer-encoding" not in head
    assert head.count(b"content-length:") == 1
    assert upstream.bodies == [BODY]


@pytest.mark.statement("E8")
async def test_a_body_longer_than_it_says_starts_no_other_request(upstream: RawUpstream) -> None:
    hidden = post({**HELLO, "model": "hidden"})
    async with running_proxy(entries(upstream)) as base, RawClient.to(base) as client:
        await client.send(_HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) - 1) + BODY + hidden)
        assert (await client.response()).status == 400
        assert await client.is_closed()
    assert upstream.heads == []


# -- response splitting

EVIL_VALUES = ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b", "a\r\n\r\nHTTP/1.1 200 OK"]


@pytest.mark.statement("E9")
@pytest.mark.parametrize("value", EVIL_VALUES)
async def test_values_from_outside_split_no_response(upstream: RawUpstream, value: str) -> None:
    async with running_proxy(entries(upstream)) as base:
        response = await ask(base, post({**HELLO, "model": value}))
        assert response.status == 404
        assert "x-evil" not in response.headers
        async with RawClient.to(base) as client:
            await client.send(f"GET /v1/models/{value} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert "x-evil" not in (await client.head())[1]


@pytest.mark.statement("E9")
@pytest.mark.parametrize("status", [200, 400])
async def test_header_values_of_an_upstream_split_no_response(status: int) -> None:
    lines = [
        f"HTTP/1.1 {status} OK",
        "request-id: a\rX-Evil: 1",
        "Content-Type: application/json",
        "Content-Length: 2",
    ]
    head = "\r\n".join(lines) + "\r\n\r\n{}"
    upstream = RawUpstream(lambda _: (head.encode(),))
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": True}
        async with running_proxy([entry], max_retries=0) as base:
            response = await ask(base, post(HELLO))
    assert response.status == 502
    assert "x-evil" not in response.headers


# -- E6


@pytest.mark.statement("E6")
@pytest.mark.parametrize("direct", [True, False])
async def test_addresses_in_a_request_are_passed_on_and_never_fetched(
    upstream: RawUpstream, direct: bool
) -> None:
    elsewhere = RawUpstream(lambda _: GOOD)
    async with elsewhere.running():
        image = {"type": "image", "source": {"type": "url", "url": f"{elsewhere.base}/x.png"}}
        document = {"type": "document", "source": {"type": "url", "url": f"{elsewhere.base}/x.pdf"}}
        payload = {
            **HELLO,
            "messages": [{"role": "user", "content": [image, document, {"type": "text", "text": "?"}]}],
        }
        async with running_proxy([{**entries(upstream)[0], "direct": direct}]) as base:
            assert (await ask(base, post(payload))).status in (200, 502)
    assert elsewhere.accepted == 0
    assert len(upstream.heads) == 1
    assert elsewhere.base.encode() in upstream.bodies[0].replace(b"\\/", b"/")


@pytest.mark.statement("E8")
@pytest.mark.parametrize(
    "expected", ["200-ok", "100-continue, more", "\u00e4", "100-continue\r\nExpect: more"]
)
@pytest.mark.parametrize(
    "line", ["POST /v1/messages", "GET /healthz", "PUT /healthz", "GET /nothing", "GET /dashboard/x"]
)
async def test_an_expectation_that_cannot_be_met_has_a_response_of_the_api(
    upstream: RawUpstream, line: str, expected: str
) -> None:
    head = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: {expected}\r\n"
    request = head.encode("latin-1") + b"Content-Length: %d\r\n\r\n" % len(BODY)
    async with running_proxy(entries(upstream)) as base, RawClient.to(base) as client:
        await client.send(request)
        response = await client.response()
        assert (response.status, response.error()[0]) == (417, "invalid_request_error")
        assert response.headers["request-id"] == json.loads(response.body)["request_id"]
        await client.send(BODY + post(HELLO))
        assert await client.is_closed(), "nothing behind it is taken for a request"
    assert upstream.heads == []


@pytest.mark.statement("E8")
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_expectation_that_is_known_is_met(upstream: RawUpstream, version: str) -> None:
    """Before HTTP/1.1 there was none: whatever it says is left alone."""
    expected = "100-Continue" if version == "1.1" else "anything"
    head = post(HELLO, f"Expect: {expected}").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    async with running_proxy(entries(upstream)) as base, RawClient.to(base) as client:
        await client.send(head.removesuffix(BODY))
        if version == "1.1":
            assert (await client.head())[0] == 100
        await client.send(BODY)
        assert (await client.head())[0] == 200
