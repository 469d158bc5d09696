"""What of an upstream's head reaches the client of a direct route: nothing that breaks its connection, and no orders
to a browser.
"""

from __future__ import annotations

import pytest

from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, post
from tests.support.streams import HELLO

BODY = b'{"id":"msg_1","type":"message","role":"assistant","content":[],"usage":{"input_tokens":3,"output_tokens":2}}'
FRAMINGS = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
}
NEXT = b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


def response(first: bytes, framing: str = "length", *lines: bytes) -> bytes:
    return b"\r\n".join((first, b"Content-Type: application/json", *lines, FRAMINGS[framing]))


async def response_to(data: bytes) -> RawResponse:
    """What a client gets of an upstream's response; its connection is fit for another request, or closed."""
    upstream = RawUpstream(lambda _: (data,))
    async with upstream.running():
        entry = {"model_id": "d", "api_base": upstream.base, "direct": True}
        async with running_proxy([entry], max_retries=0) as base, RawClient.to(base) as client:
            await client.send(post({**HELLO, "model": "d", "stream": False}))
            found = await client.response()
            if found.headers.get("connection") != "close":
                await client.send(NEXT)
                assert (await client.response()).body == b'{"status":"ok"}'
            return found


@pytest.mark.statement("E9")
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("status", [b"000", b"001", b"099", b"101", b"199", b"600", b"999"])
async def test_a_status_that_no_final_response_has_is_502(status: bytes, framing: str) -> None:
    if status == b"199":  # an interim response: the final one follows
        data = b"HTTP/1.1 199 X\r\n\r\n" + response(b"HTTP/1.1 099 X", framing)
    else:
        data = response(b"HTTP/1.1 %b X" % status, framing)
    found = await response_to(data)
    assert (found.status, found.error()[0]) == (502, "api_error")


@pytest.mark.statement("E9")
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_205_has_the_body_that_it_is_framed_with(framing: str) -> None:
    found = await response_to(response(b"HTTP/1.1 205 Reset Content", framing))
    assert (found.status, found.body, found.is_whole) == (205, BODY, True)


@pytest.mark.statement("E9")
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("name", [b"X-Blank ", b"X(y)", b"X\xe4", b"X@y", b"X y"])
async def test_a_header_name_that_is_no_token_is_502(name: bytes, status: int) -> None:
    found = await response_to(response(b"HTTP/1.1 %d X" % status, "length", name + b": 7"))
    assert (found.status, found.error()[0]) == (502, "api_error")


ORDERS = (
    "Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true", 'Clear-Site-Data: "*"',
    "Refresh: 0;url=http://evil.example/", "X-Claude-Proxy-Route: other", "x-claude-proxy-anything: 1",
    "Set-Cookie: a=b",
)  # fmt: skip


@pytest.mark.statement("E9")
@pytest.mark.parametrize("status", [200, 400])
async def test_an_upstream_gives_no_orders_about_our_origin(status: int) -> None:
    lines = [line.encode() for line in ORDERS]
    found = await response_to(
        response(b"HTTP/1.1 %d X" % status, "length", b"request-id: req_1", *lines, b"X-Kept: 1")
    )
    assert (found.status, found.headers["x-kept"], found.headers["request-id"]) == (status, "1", "req_1")
    given = {name: found.headers.get(name.lower()) for name in (line.partition(":")[0] for line in ORDERS)}
    assert given.pop("X-Claude-Proxy-Route") in (None, "d")
    assert set(given.values()) == {None}


@pytest.mark.statement("E9")
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("reason", [b"O\x01K", b"\x1b[31mOK", b"O\x7fK"])
async def test_a_reason_phrase_is_no_way_to_break_a_response(status: int, reason: bytes) -> None:
    found = await response_to(response(b"HTTP/1.1 %d %b" % (status, reason)))
    assert found.status in (status, 502)
    assert found.is_whole
