"""Any request at all, by real sockets: it has a response, never a 500, in the shape of the API.

The proxy runs in a thread for the whole module, in front of an upstream that always answers well. So what is not 200 is
our answer to the request, and must be an error of the API with a request id, whatever was sent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from proxyd.errors import HTTP_ERRORS
from tests.support.effort import examples
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawUpstream, Step, complaints
from tests.support.streams import CHUNKED, DIRECT, TRANSLATED, as_chunks

KINDS = {kind for _, kind in HTTP_ERRORS.values()}
#: A response takes milliseconds; one that takes this long hangs.
BOUND_S = 20.0


class Server:
    """A proxy in a thread."""

    def __init__(self) -> None:
        self.port = 0
        self.lines: list[Any] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._stop: Any = None

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *exc: object) -> None:
        loop, event = self._stop
        loop.call_soon_threadsafe(event.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        bodies = {mode: as_chunks(*frames.values()) for mode, frames in (("t", TRANSLATED), ("d", DIRECT))}

        def steps(number: int) -> list[Step]:
            mode = "t" if b"/chat/completions " in upstream.heads[number] else "d"
            return [CHUNKED + bodies[mode] + b"0\r\n\r\n"]

        upstream = RawUpstream(steps)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(upstream.running())
            entries = [
                {"model_id": "m", "api_base": f"{upstream.base}/v1", "aliases": ["claude-*"]},
                {"model_id": "d", "api_base": upstream.base, "direct": True},
                {"model_id": "demo", "api_base": "builtin:demo"},
            ]
            self.lines = stack.enter_context(capture_logs())
            base = await stack.enter_async_context(running_proxy(entries, body_idle_s=0.5, keepalive_s=2.0))
            self.port = int(base.rpartition(":")[2])
            self._stop = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._stop[1].wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as found:
        yield found


def exchange(server: Server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own, and its response."""
    with socket.create_connection(("127.0.0.1", server.port), BOUND_S) as sock:
        sock.sendall(request)
        data = b""
        while chunk := sock.recv(1 << 16):
            data += chunk
    data = data.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        joined = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            joined, body = joined + body[: int(size, 16)], body[int(size, 16) + 2 :]
        body = joined
    return int(first.split()[1]), headers, body


def check(server: Server, request: bytes, *, is_http: bool = True) -> int:
    status, headers, body = exchange(server, request)
    assert 200 <= status < 500 or status in (501, 505), (status, body)
    if status == 400 and "request-id" not in headers:
        # The HTTP library's own: what it cannot parse has no request (docs/spec/operations.md#d). Never for what it
        # can.
        assert not is_http, body
    elif not headers.get("content-type", "").startswith(("text/html", "text/event-stream")):
        assert headers["request-id"].startswith("req_"), headers
        if status >= 400 and body:
            error = json.loads(body)
            assert set(error) == {"type", "error", "request_id"}
            assert error["type"] == "error"
            assert set(error["error"]) == {"type", "message"}
            assert error["error"]["type"] in KINDS | {"rate_limit_error", "conflict_error"}
            assert error["error"]["message"]
            assert error["request_id"] == headers["request-id"]
    assert complaints(server.lines) == []
    server.lines.clear()
    return status


# -- bodies, headers and queries of what is HTTP

_NAMES = st.sampled_from(
    [
        "model", "messages", "role", "content", "type", "text", "system", "tools", "tool_choice", "name", "input", "id",
        "input_schema", "max_tokens", "stream", "metadata", "user_id", "thinking", "stop_sequences", "temperature",
        "tool_use_id", "source", "output_config", "anything",
    ]
)  # fmt: skip
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["m", "d", "demo", "claude-x", "user", "assistant", "text", "tool_use", "tool_result", "image"])
)  # fmt: skip
_JSON: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=20,
)
#: Bodies that get further than the first check: a model that there is, and messages.
_OPTIONAL = (
    "stream", "tools", "system", "max_tokens", "tool_choice", "thinking", "metadata", "stop_sequences", "temperature",
    "output_config", "top_k", "mcp_servers",
)  # fmt: skip
_MESSAGES = st.lists(st.dictionaries(_NAMES, _JSON, max_size=4) | _JSON, min_size=1, max_size=3)
_NEARLY = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "d", "claude-x"]), "messages": _MESSAGES | _JSON},
    optional=dict.fromkeys(_OPTIONAL, _JSON),
)
_BODIES = st.binary(max_size=60) | (_JSON | _NEARLY).map(lambda value: json.dumps(value).encode())
_VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30
)
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "anthropic-beta", "anthropic-version", "x-api-key", "authorization", "accept", "accept-encoding",
                "content-encoding", "content-type", "cookie", "origin", "referer", "range", "if-none-match", "te",
                "x-request-id", "x-claude-code-session-id", "x-claude-proxy-token", "traceparent", "user-agent",
                "sec-fetch-site", "x-forwarded-for", "upgrade", "x-anything",
            ]
        ),
        _VALUES,
    )
    | st.tuples(st.just("expect"), st.just("100-continue") | _VALUES),
    max_size=4,
    unique_by=lambda header: header[0],
)  # fmt: skip
_QUERIES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=20)
_PATHS = st.sampled_from(
    [
        "/v1/messages", "/v1/messages/count_tokens", "/anthropic/v1/messages", "/v1/models", "/v1/models/m",
        "/v1/models/d", "/v1/models/%2F", "/v1/stats", "/metrics", "/readyz", "/test-connection", "/dashboard",
        "/dashboard/x", "/",         "/%2e%2e/etc/passwd", "/nothing", "//v1/messages", "/v1/messages/",
    ]
)  # fmt: skip


def request_of(
    method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes, kind: str
) -> bytes:
    lines = [f"{method} {path}{'?' if query else ''}{query} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers if name != "content-type"]
    lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@pytest.mark.statement("E8")
@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(body=_BODIES, headers=_HEADERS, query=_QUERIES, path=_PATHS)
def test_any_post_has_a_response(
    server: Server, body: bytes, headers: list[tuple[str, str]], query: str, path: str
) -> None:
    check(server, request_of("POST", path, query, headers, body, "application/json"))


@pytest.mark.statement("E8")
@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(payload=_NEARLY, path=st.sampled_from(["/v1/messages", "/v1/messages/count_tokens"]))
def test_any_payload_has_a_response(server: Server, payload: dict[str, Any], path: str) -> None:
    check(server, request_of("POST", path, "", [], json.dumps(payload).encode(), "application/json"))


@pytest.mark.statement("E8")
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"]),
    headers=_HEADERS,
    query=_QUERIES,
    path=_PATHS,
)
def test_any_other_request_has_a_response(
    server: Server, method: str, headers: list[tuple[str, str]], query: str, path: str
) -> None:
    check(server, request_of(method, path, query, headers, b"", "application/json"))


@pytest.mark.statement("E8")
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(start=st.integers(0, 60), put=st.binary(max_size=8), more=st.binary(max_size=30))
def test_any_bytes_have_a_response_or_an_end(server: Server, start: int, put: bytes, more: bytes) -> None:
    """A request that somebody has written over: it is answered, or taken for none and closed."""
    request = request_of("POST", "/v1/messages", "", [], b'{"model":"m","messages":[]}', "application/json")
    damaged = request[:start] + put + request[start + len(put) :] + more
    with socket.create_connection(("127.0.0.1", server.port), BOUND_S) as sock:
        sock.sendall(damaged)
        sock.shutdown(socket.SHUT_WR)
        data = b""
        try:
            while chunk := sock.recv(1 << 16):
                data += chunk
        except ConnectionResetError:
            pass
    assert b" 500 " not in data.partition(b"\r\n")[0]
    assert check(server, request_of("GET", "/healthz", "", [], b"", "application/json")) == 200
