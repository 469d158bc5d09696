"""Direct mode cannot be distinguished from no proxy: requests and answers byte for byte, through real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.effort import examples
from tests.support.harness import running_proxy
from tests.support.raw_peers import (
    RawUpstream,
    Reply,
    exchange,
    headers_of,
    plain_reply,
    post,
    running_raw,
    stream_reply,
    unchunked,
)

#: What a body may look like and must keep: each is the rest of an object that begins with the model.
ODD_BODIES = {
    "compact": b'"messages":[{"role":"user","content":"hi"}],"max_tokens":16}',
    "spacing": b'\t"messages" :\r\n [ { "role":"user" ,"content" : "hi" } ] , \n "max_tokens": 16 }\r\n',
    "escapes": b'"messages":[{"role":"\\u0075ser","content":"\\u00e9\\/\\b\\f\\n\\r\\t\\"\\\\ \\ud83d\\ude00"}]}',
    "lone surrogates": b'"messages":[{"role":"user","content":"\\ud800 \\udfff"}]}',
    "utf-8": '"messages":[{"role":"user","content":"grüße 你好 😀 \u2028"}]}'.encode(),
    "big numbers": b'"messages":[],"a":123456789012345678901234567890,"b":1.10,"c":1E+02,"d":-0,"e":1e400,"f":0.1e-7}',
    "unknown fields": b'"messages":[],"betas":null,"x":{"y":[{},[],"",0.0,{"model":"inner"}]},"":true}',
    "duplicate keys": b'"messages":[1],"messages":[{"role":"user","content":"hi"}]}',
    "brackets in texts": b'"messages":[{"role":"user","content":"}]{[\\"}]"}],"s":"\\\\"}',
    "attribution": b'"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1;"}],"messages":[]}',
    "deep": b'"messages":[],"d":' + b"[" * 200 + b"]" * 200 + b"}",
}

STREAM = b"".join(
    (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","usage":'
        b'{"input_tokens":9,"cache_read_input_tokens":4}}}\n\n',
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b": a comment\n\n",
        b'event: new_thing\nid: 7\ndata: {"type":"new_thing",  "n":1.0}\n\n',
        b"data:\n\n",
        b'event: content_block_delta\r\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        + '"text":"grüße \\ud83d\\ude00 你"}}\r\n\r\n'.encode(),
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
        b'"usage":{"output_tokens":5}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    )
)


def entry(upstream: RawUpstream, **keys: Any) -> dict[str, Any]:
    return {"model_id": "m", "api_base": upstream.base, "direct": True, **keys}


def ok(head: bytes, body: bytes) -> Reply:
    return plain_reply(b'{"type":"message"}', more=b"content-type: application/json\r\n")


# -- requests


@pytest.mark.parametrize("rest", ODD_BODIES.values(), ids=ODD_BODIES.keys())
@pytest.mark.parametrize("model", [b'{"model":"m",', b' { "model" :\n"\\u006d" ,'])
async def test_a_request_goes_on_as_it_came(rest: bytes, model: bytes) -> None:
    body = model + rest
    async with running_raw(ok) as upstream, running_proxy([entry(upstream)]) as proxy:
        head, _ = await exchange(proxy, post(body, b"x-api-key: k"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert upstream.bodies == [body]


@pytest.mark.parametrize("rest", ODD_BODIES.values(), ids=ODD_BODIES.keys())
async def test_the_model_alone_becomes_another(rest: bytes) -> None:
    async with running_raw(ok) as upstream, running_proxy([entry(upstream, model_name="other")]) as proxy:
        await exchange(proxy, post(b'{ "model" : "m" , ' + rest, b"x-api-key: k"))
    assert upstream.bodies == [b'{ "model" : "other" , ' + rest]


async def test_what_an_entry_sets_is_all_that_changes() -> None:
    keys = {
        "max_tokens": "8k",
        "temperature": 0.5,
        "extra_body": {"metadata": {"user_id": "u"}, "service_tier": "auto"},
        "omit": ["output_config"],
    }
    body = (
        b'{"model":"m", "max_tokens" : 32000, "temperature":1.0,"metadata":{ "n":1.50, "user_id":"x" },'
        b'"output_config":{"effort":"high"},  "messages":[ {"role":"user","content":"\\u0041"} ] }'
    )
    expected = (
        b'{"model":"m", "max_tokens" : 8000, "temperature":0.5,"metadata":{ "n":1.50, "user_id":"u" },'
        b'  "messages":[ {"role":"user","content":"\\u0041"} ],"service_tier":"auto" }'
    )
    async with running_raw(ok) as upstream, running_proxy([entry(upstream, **keys)]) as proxy:
        await exchange(proxy, post(body, b"x-api-key: k"))
    # The comma ahead of what is cut goes with it; the space behind it belongs to what follows.
    assert upstream.bodies == [expected]


OWN = b'{"type":"thinking","thinking":"t","signature":"cpx1.e30"}'
UNSIGNED = b'{"signature":"","type":"thinking","thinking":"t"}'
WITHOUT = b'{"type":"thinking","thinking":"t"}'
SIGNED = b'{"type":"thinking","thinking":"t","signature":"EqQB"}'
OWN_REDACTED = b'{"type":"redacted_thinking","data":"cpx1.e30"}'
REDACTED = b'{"type":"redacted_thinking","data":"EqQB"}'
TEXT, USE = b'{"type":"text","text":"a"}', b'{"type":"tool_use"}'
ASSISTANT = b'{"model":"m","messages":[{"role":"user","content":"q"}, {"role":"assistant", "content":%b },3]}'


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b"[ %b , %b ]" % (OWN, TEXT), b"[ %b ]" % TEXT),
        (b"[%b, %b]" % (TEXT, UNSIGNED), b"[%b]" % TEXT),
        (b"[%b,%b,%b]" % (TEXT, WITHOUT, USE), b"[%b,%b]" % (TEXT, USE)),
        (b"[%b,%b, %b]" % (OWN, UNSIGNED, USE), b"[%b]" % USE),
        (b"[%b ]" % SIGNED, b"[%b ]" % SIGNED),
        (b"[%b,%b,%b]" % (OWN_REDACTED, REDACTED, USE), b"[%b,%b]" % (REDACTED, USE)),
        (b'"cpx1. is a text"', b'"cpx1. is a text"'),
    ],
)
async def test_thinking_of_others_is_cut_out(content: bytes, left: bytes) -> None:
    async with running_raw(ok) as upstream, running_proxy([entry(upstream)]) as proxy:
        await exchange(proxy, post(ASSISTANT % content, b"x-api-key: k"))
    assert upstream.bodies == [ASSISTANT % left]


async def test_a_message_of_nothing_else_goes_too() -> None:
    async with running_raw(ok) as upstream, running_proxy([entry(upstream)]) as proxy:
        await exchange(proxy, post(ASSISTANT % (b"[%b]" % OWN), b"x-api-key: k"))
    assert upstream.bodies == [b'{"model":"m","messages":[{"role":"user","content":"q"},3]}']


async def test_a_vendor_that_signs_nothing_gets_its_thinking_back() -> None:
    body = ASSISTANT % (b"[%b]" % UNSIGNED)
    async with running_raw(ok) as upstream, running_proxy([entry(upstream, provider="moonshot")]) as proxy:
        await exchange(proxy, post(body, b"x-api-key: k"))
    assert upstream.bodies == [body]


async def test_a_field_goes_with_the_beta_that_announces_it() -> None:
    body = b'{"model":"m","context_management":{"edits":[]},"messages":[]}'
    betas = b"anthropic-beta: claude-code-20250219,context-management-2025-06-27,effort-2025-11-24"
    async with running_raw(ok) as upstream, running_proxy([entry(upstream, provider="deepseek")]) as proxy:
        await exchange(proxy, post(body, b"x-api-key: k", betas))
    assert upstream.bodies == [b'{"model":"m","messages":[]}']
    assert headers_of(upstream.heads[0])["anthropic-beta"] == "claude-code-20250219,effort-2025-11-24"


async def test_a_packed_request_is_unpacked() -> None:
    body = b'{"model":"m" , "messages":[]}'
    async with running_raw(ok) as upstream, running_proxy([entry(upstream)]) as proxy:
        await exchange(proxy, post(gzip.compress(body), b"x-api-key: k", b"content-encoding: gzip"))
    assert upstream.bodies == [body]
    assert "content-encoding" not in headers_of(upstream.heads[0])


async def test_a_count_is_asked_of_the_upstream() -> None:
    keys = {"model_name": "other", "temperature": 0.5, "extra_body": {"x": 1}, "max_tokens": 5}
    async with running_raw(ok) as upstream, running_proxy([entry(upstream, **keys)]) as proxy:
        body = b'{"model":"m" , "messages":[]}'
        await exchange(
            proxy, post(body, b"x-api-key: k", path=b"/anthropic/v1/messages/count_tokens?beta=true")
        )
    assert upstream.heads[0].startswith(b"POST /v1/messages/count_tokens?beta=true HTTP/1.1\r\n")
    assert upstream.bodies == [b'{"model":"other" , "messages":[]}']


# -- answers

JSON = b"content-type: application/json\r\n"
PLAIN = {
    "a message": (b"200 OK", JSON, b'{ "type" : "message","usage":{"input_tokens":1}}\n'),
    "not JSON": (b"200 OK", JSON, b"\xff\x00{"),
    "nothing": (b"200 OK", JSON, b""),
    "bad request": (
        b"400 Bad Request",
        JSON + b"x-should-retry: false\r\nrequest-id: req_theirs\r\n",
        b'{"type":"error", "error":{"type":"invalid_request_error","message":"thinking: \\u0041"},"request_id":"r"}',
    ),
    "rate limit": (
        b"429 Too Many Requests",
        JSON + b"retry-after: 7\r\nretry-after-ms: 7000\r\n"
        b"anthropic-ratelimit-unified-status: rejected\r\nanthropic-ratelimit-requests-remaining: 0\r\n",
        b'{"type":"error","error":{"type":"rate_limit_error","message":"no"}}',
    ),
    "overloaded": (b"529 Site is overloaded", JSON, b'{"type":"error","error":{}}'),
    "a page": (
        b"503 Service Unavailable",
        b"content-type: text/html\r\nserver: cloudflare\r\n",
        b"<html>\xe9</html>",
    ),
    "compressed error": (b"400 Bad Request", JSON + b"content-encoding: gzip\r\n", gzip.compress(b"{}")),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_a_response_comes_back_as_it_was(name: str) -> None:
    status, headers, body = PLAIN[name]
    dated = headers + b"date: Sat, 01 Jan 2022 00:00:00 GMT\r\ncf-ray: 1-FRA\r\n"
    async with running_raw(lambda *_: plain_reply(body, status, dated)) as upstream:
        async with running_proxy([entry(upstream)]) as proxy:
            head, seen = await exchange(proxy, post(b'{"model":"m","messages":[]}', b"x-api-key: k"))
    assert seen == body
    assert head.split(b" ")[1] == status.split(b" ")[0], "the upstream's own reason phrase does not go on"
    found, wanted = headers_of(head), headers_of(b"\r\n" + dated)
    assert {key: found.get(key) for key in wanted} == wanted
    ours = {"connection", "content-length", "request-id", "server", "x-claude-proxy-route"}
    assert found.keys() - wanted.keys() <= ours


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_compressed_response_stays_compressed(
    encoding: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = STREAM if kind == "text/event-stream" else b'{"type":"message","usage":{"input_tokens":9}}'
    # br needs a package that is not here; to the proxy its bytes are opaque anyway.
    compressed = {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda data: b"\x0b\x02\x80" + data}[
        encoding
    ](plain)
    head = f"content-type: {kind}\r\ncontent-encoding: {encoding}\r\n".encode()
    async with running_raw(lambda *_: plain_reply(compressed, more=head)) as upstream:
        async with running_proxy([entry(upstream)]) as proxy:
            seen_head, seen = await exchange(proxy, post(b'{"model":"m","messages":[]}', b"x-api-key: k"))
    assert seen == compressed
    assert headers_of(seen_head)["content-encoding"] == encoding
    # The tokens are counted all the same, where the standard library can decompress them.
    assert (" input_tokens=9 " in capsys.readouterr().out) == (encoding != "br")


async def test_a_stream_comes_back_at_any_cut() -> None:
    replies: list[Reply] = []
    async with running_raw(lambda *_: replies[-1]) as upstream, running_proxy([entry(upstream)]) as proxy:
        for cut in range(1, len(STREAM)):
            replies.append(stream_reply(STREAM, [cut]))
            _, seen = await exchange(proxy, post(b'{"model":"m","stream":true}', b"x-api-key: k"))
            assert seen == STREAM, cut


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    frames=st.lists(
        st.binary(min_size=1, max_size=60).map(lambda data: data.replace(b"\n", b"n").replace(b"\r", b"r")),
        max_size=12,
    ),
    ends=st.lists(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b"\r\n"]), min_size=12, max_size=12),
    cuts=st.lists(st.integers(0, 1 << 16), max_size=20),
)
def test_any_bytes_come_back_at_random_cuts(frames: list[bytes], ends: list[bytes], cuts: list[int]) -> None:
    middle = b"".join(frame + end for frame, end in zip(frames, ends, strict=False))
    body = (
        STREAM[: STREAM.index(b"event: ping")]
        + middle
        + b"\n\n"
        + STREAM[STREAM.index(b"event: message_delta") :]
    )

    async def run() -> bytes:
        async with running_raw(lambda *_: stream_reply(body, cuts)) as upstream:
            async with running_proxy([entry(upstream)]) as proxy:
                _, seen = await exchange(proxy, post(b'{"model":"m","stream":true}', b"x-api-key: k"))
        return seen

    assert asyncio.run(run()) == body


def test_the_harness_reads_chunks() -> None:
    assert unchunked(b"3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n") == b"abc\r\n"
    assert json.loads(STREAM.split(b"data: ")[1].split(b"\n")[0])["type"] == "message_start"
