"""Which headers pass, from a large corpus of them, in both directions and modes; redirects; what values may hold.

docs/spec/operations.md#e4, #e5, #e9. Direct mode passes on what a client sets by itself to the upstream that it has
chosen (``ANTHROPIC_CUSTOM_HEADERS``), and to no other; translated mode sends what we make.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxyd.errors import ConfigError
from tests.support.faults import MODES
from tests.support.harness import load_entries, running_proxy
from tests.support.raw_sockets import RawClient, RawUpstream, ask, post
from tests.support.streams import CHUNKED, HELLO, as_chunks

KEY, BEARER, CONFIGURED = (
    "sk-client-0123456789abcdef",
    "client-bearer-0123456789",
    "sk-configured-0123456789abcdef",
)

#: Never passed on, whoever asks: of one connection, of browsers, of other proxies, of ourselves.
NEVER = [
    "Connection-Named", "Also-Named", "Cookie", "Cookie2", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
    "Proxy-Connection", "TE", "Trailer", "Upgrade", "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host",
    "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Real-IP", "Referer", "Sec-Fetch-Mode",
    "Sec-Fetch-Dest", "Sec-CH-UA", "Sec-WebSocket-Key", "X-Claude-Proxy-Token", "X-Claude-Proxy-Anything",
    "Accept-Encoding",
]  # fmt: skip
#: Passed on by direct mode to every upstream.
USUAL = [
    "Anthropic-Beta", "Anthropic-Version", "Anthropic-Workspace-Id", "Anthropic-Dangerous-Direct-Browser-Access",
    "X-Claude-Code-Session-Id", "X-Claude-Code-Agent-Id", "X-Stainless-Lang", "X-Stainless-Retry-Count",
    "X-Stainless-Timeout", "X-App", "User-Agent", "Accept", "Traceparent", "Tracestate",
]  # fmt: skip
#: A client's own: for the upstream that it has chosen.
CUSTOM = [
    "X-Team", "X-Request-Id", "X-Trace", "Helicone-Auth", "X-Portkey-Config", "Cf-Aig-Authorization", "Priority",
    "Accept-Language", "If-None-Match", "X-Goog-Api-Key", "Api-Key", "Idempotency-Key", "Date", "Pragma",
]  # fmt: skip
#: What the proxy sets by itself on a request.
OURS = {
    "host",
    "content-length",
    "content-type",
    "accept",
    "accept-encoding",
    "anthropic-version",
    "user-agent",
}


def corpus() -> list[str]:
    lines = [f"{name}: planted-{name.lower()}" for name in (*NEVER, *USUAL, *CUSTOM)]
    return [*lines, "Connection: keep-alive, Connection-Named", "Connection: also-named"]


def headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").strip().split("\r\n")[1:]
    pairs = [line.partition(":") for line in lines]
    found = {name.lower(): value.strip() for name, _, value in pairs}
    assert len(found) == len(pairs), "no header is sent twice"
    return found


def good(mode: str, *more: str) -> bytes:
    head = (
        CHUNKED.removesuffix(b"\r\n") + b"".join(f"{line}\r\n".encode("latin-1") for line in more) + b"\r\n"
    )
    return head + as_chunks(*MODES[mode].values()) + b"0\r\n\r\n"


async def sent(
    mode: str, *lines: str, settings: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, str]:
    """The headers that an upstream is sent when a client sends `lines`."""
    upstream = RawUpstream(lambda _: [good(mode)])
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct", **more}
        async with running_proxy([entry], **(settings or {})) as base:
            assert (await ask(base, post(HELLO, *lines))).status == 200
    return headers_of(upstream.heads[0])


@pytest.mark.statement("E4")
async def test_a_direct_upstream_is_sent_what_is_meant_for_it() -> None:
    found = await sent("direct", *corpus(), f"X-Api-Key: {KEY}")
    assert {name for name, value in found.items() if value.startswith("planted-")} == {
        name.lower() for name in (*USUAL, *CUSTOM)
    }
    assert set(found) - {name.lower() for name in (*USUAL, *CUSTOM)} <= OURS | {"x-api-key"}
    assert found["accept-encoding"] == "identity"


@pytest.mark.statement("E4")
@pytest.mark.parametrize(
    ("patterns", "custom"),
    [
        ((), []),
        (("*",), CUSTOM),
        (("X-Team", "x-portkey-*"), ["X-Team", "X-Portkey-Config"]),
        (("x-team", "x-*"), [name for name in CUSTOM if name.startswith("X-")]),
        (("x-tea", "sec", "c*"), ["Cf-Aig-Authorization"]),
    ],
)
async def test_a_clients_own_headers_go_on_as_far_as_the_setting_says(
    patterns: tuple[str, ...], custom: list[str]
) -> None:
    """Whatever the patterns take besides, such as ``Connection-Named`` and ``Cookie``, never goes on."""
    found = await sent("direct", *corpus(), f"X-Api-Key: {KEY}", settings={"forward_headers": patterns})
    assert {name for name, value in found.items() if value.startswith("planted-")} == {
        name.lower() for name in (*USUAL, *custom)
    }
    assert found["x-api-key"] == KEY


@pytest.mark.statement("E4")
async def test_a_translated_upstream_is_sent_what_we_make_and_nothing_of_the_client() -> None:
    found = await sent("translated", *corpus(), f"X-Api-Key: {KEY}")
    assert set(found) <= OURS | {"authorization"}
    assert "planted" not in json.dumps(found)
    assert found["authorization"] == f"Bearer {KEY}"


@pytest.mark.statement("E4")
@pytest.mark.parametrize("mode", MODES)
async def test_a_fallback_elsewhere_is_sent_no_header_of_the_clients_own(mode: str) -> None:
    broken = RawUpstream(lambda _: [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"])
    spare = RawUpstream(lambda _: [good(mode)])
    async with broken.running(), spare.running():
        entries = [
            {"model_id": "m", "api_base": broken.base, "direct": mode == "direct", "fallback": ["spare"]},
            {"model_id": "spare", "api_base": spare.base, "direct": mode == "direct", "api_key": CONFIGURED},
        ]
        async with running_proxy(entries, max_retries=0) as base:
            response = await ask(
                base, post(HELLO, *corpus(), f"X-Api-Key: {KEY}", f"Authorization: Bearer {BEARER}")
            )
    assert response.status == 200
    found = headers_of(spare.heads[0])
    usual = {name.lower() for name in USUAL} if mode == "direct" else set()
    assert {name for name, value in found.items() if "planted" in value} <= usual
    assert KEY not in str(found)
    assert BEARER not in str(found)
    assert CONFIGURED in str(found)


@pytest.mark.statement("E4")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("configured", [None, CONFIGURED])
@pytest.mark.parametrize(
    "lines",
    [
        [f"X-Api-Key: {KEY}"],
        [f"Authorization: Bearer {BEARER}"],
        [f"X-Api-Key: {KEY}", f"Authorization: Bearer {BEARER}"],
    ],
    ids=["x-api-key", "bearer", "both"],
)
async def test_never_a_clients_key_beside_a_configured_one(
    lines: list[str], configured: str | None, mode: str
) -> None:
    more = {} if configured is None else {"api_key": configured}
    found = str(await sent(mode, *lines, **more))
    if configured is not None:
        assert found.count(configured) == 1
        assert KEY not in found
        assert BEARER not in found
    else:
        assert found.count(KEY) <= 1
        assert found.count(BEARER) <= 1
        assert KEY in found or BEARER in found


#: What an upstream's response may carry that is not for the client.
NOT_RETURNED = [
    "Set-Cookie: a=b", "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5",
    "Proxy-Authenticate: Basic", "Trailer: X-Sum", "Upgrade: h2c",
]  # fmt: skip


@pytest.mark.statement("E4")
@pytest.mark.parametrize("mode", MODES)
async def test_what_a_response_carries_back(mode: str) -> None:
    kept = ["anthropic-ratelimit-requests-remaining: 7", "request-id: req_of_the_upstream", "x-vendor: yes"]
    upstream = RawUpstream(lambda _: [good(mode, *NOT_RETURNED, *kept)])
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        async with running_proxy([entry]) as base:
            response = await ask(base, post(HELLO))
    assert response.status == 200
    for name in ("set-cookie", "x-hop", "keep-alive", "proxy-authenticate", "trailer", "upgrade"):
        assert name not in response.headers
    if mode == "direct":
        assert response.headers["anthropic-ratelimit-requests-remaining"] == "7"
        assert response.headers["request-id"] == "req_of_the_upstream"
    else:
        assert response.headers["request-id"].startswith("req_")
        assert response.headers["request-id"] != "req_of_the_upstream"
        assert "x-vendor" not in response.headers


@pytest.mark.statement("E5")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("configured", [None, CONFIGURED])
async def test_no_redirect_carries_keys_or_prompts_on(
    mode: str, status: int, stream: bool, configured: str | None
) -> None:
    """Whichever key, in whichever form, to another origin and to the same."""
    elsewhere = RawUpstream(lambda _: [good(mode)])
    async with elsewhere.running():
        for target in (f"{elsewhere.base}/v1/messages", "/v1/messages", f"//127.0.0.1:{elsewhere.port}/v1"):
            head = f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
            moved = RawUpstream(lambda _, head=head: [head.encode()])
            async with moved.running():
                entry = {"model_id": "m", "api_base": f"{moved.base}/v1", "direct": mode == "direct"}
                entry |= {} if configured is None else {"api_key": configured}
                async with running_proxy([entry]) as base:
                    request = post(
                        {**HELLO, "stream": stream}, f"X-Api-Key: {KEY}", f"Authorization: Bearer {BEARER}"
                    )
                    response = await ask(base, request)
            assert (response.status, response.error()[0]) == (502, "api_error")
            assert "location" not in response.headers
            assert len(moved.heads) == 1
    assert elsewhere.accepted == 0


# -- values that would split a message


@pytest.mark.statement("E9")
@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rb", "a\0b"])
@pytest.mark.parametrize("where", ["name", "value"])
def test_a_configured_header_that_would_split_a_request_is_a_fault(value: str, where: str) -> None:
    headers = {value: "x"} if where == "name" else {"x-y": value}
    with pytest.raises(ConfigError, match="extra_headers"):
        load_entries([{"model_id": "m", "api_base": "http://127.0.0.1:1", "extra_headers": headers}])


@pytest.mark.statement("E9")
@pytest.mark.parametrize("value", ["key\r\nX-Evil: 1", "key\nX-Evil: 1", "key\0", "k\u00e9y"])
def test_a_key_that_would_split_a_request_is_a_fault(value: str) -> None:
    with pytest.raises(ConfigError, match="api_key") as caught:
        load_entries([{"model_id": "m", "api_base": "http://127.0.0.1:1", "api_key": value}])
    assert "Evil" not in caught.value.message


@pytest.mark.statement("E9")
@pytest.mark.parametrize("value", ["key\r\nX-Evil: 1", "key\nX-Evil: 1", "key\0"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_key_file_with_a_stray_line_is_no_key(value: str, mode: str, tmp_path: Path) -> None:
    """Its calls are answered 401 before any upstream is asked, with no word of what is in it."""
    (tmp_path / "a.key").write_text(value)
    (tmp_path / "a.key").chmod(0o600)
    upstream = RawUpstream(lambda _: [good(mode)])
    async with upstream.running():
        key = f"${{file:{tmp_path / 'a.key'}}}"
        entry = {
            "model_id": "m",
            "api_base": f"{upstream.base}/v1",
            "direct": mode == "direct",
            "api_key": key,
        }
        async with running_proxy([entry]) as base:
            response = await ask(base, post(HELLO))
    assert (response.status, response.error()[0]) == (401, "authentication_error")
    assert b"Evil" not in response.body
    assert upstream.heads == []


@pytest.mark.statement("E9")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("evil", ["a\rX-Evil: 1", "a\0b", "a\x0bb"])
@pytest.mark.parametrize("status", [200, 400, 429])
async def test_a_header_of_an_upstream_splits_no_response(status: int, evil: str, mode: str) -> None:
    for name in (
        "request-id",
        "retry-after",
        "anthropic-ratelimit-tokens-reset",
        "x-anything",
        "content-type",
    ):
        lines = [f"HTTP/1.1 {status} OK", f"{name}: {evil}", "Content-Length: 2"]
        upstream = RawUpstream(lambda _, lines=lines: [("\r\n".join(lines) + "\r\n\r\n{}").encode()])
        async with upstream.running():
            entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
            async with running_proxy([entry], max_retries=0) as base, RawClient.to(base) as client:
                await client.send(post(HELLO))
                _, headers = await client.head()
        assert "x-evil" not in headers
        assert "\0" not in str(headers)
