"""Each way in which an upstream can fail, at each point of its response, in both modes (docs/spec/operations.md#d).

The tables are the specification: what the client sees, what the log says. Every case also checks that the upstream's
connection is released within a second and that no task and no descriptor is left.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.proxy import pump
from tests.support import faults
from tests.support.certificates import make_certificate
from tests.support.faults import (
    BREAKS,
    MODES,
    SETTINGS,
    SHORT_TIMEOUTS,
    Break,
    breaks,
    compressed,
    entry,
    play,
    without_ids,
)
from tests.support.harness import running_proxy
from tests.support.ports import free_port
from tests.support.raw_sockets import (
    Fault,
    Pause,
    RawClient,
    RawResponse,
    RawUpstream,
    Step,
    Trickle,
    no_leaks,
    post,
)
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def tls(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstreams of `play` speak TLS."""
    monkeypatch.setattr(faults, "certificate", certificate)


@pytest.fixture(params=["plain", "tls"])
def plain_and_tls(request: pytest.FixtureRequest) -> None:
    """The upstreams of `play` speak plain HTTP, then TLS."""
    if request.param == "tls":
        request.getfixturevalue("tls")


@pytest.mark.statement("D table")
@pytest.mark.statement("D1")
@pytest.mark.parametrize("case", list(breaks()), ids=lambda case: case.name)
async def test_response_that_breaks_off(case: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    await _check_break(case, monkeypatch)


#: Each fault in each framing, before an event and in the middle.
ROWS = [
    case
    for case in breaks()
    if (case.whole, case.is_inside) in ((0, False), (3, False), (5, True), (6, False))
]


@pytest.mark.statement("D table")
@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
async def test_response_that_breaks_off_over_tls(case: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    await _check_break(case, monkeypatch)


async def _check_break(case: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "FINISH_GRACE_S", 0.05)
    fault = BREAKS[case.fault]
    # What the proxy ends by itself must not run into a timeout on a busy machine.
    is_stalled = fault.kind == "timeout_error" or case.is_opaque
    timeouts = {} if is_stalled else dict.fromkeys(SHORT_TIMEOUTS, 30.0)
    response, (line,), upstream = await play(case.steps, case.mode, **timeouts)
    if case.is_opaque:
        _check_opaque(case, response, line)
    elif case.is_complete:
        assert (response.status, response.is_whole) == (200, True)
        assert judge(response.events()) == "message_stop"
        assert line["outcome"] == "ok"
    elif case.is_early:
        assert (response.status, response.error()[0]) == (fault.status, fault.kind)
        assert upstream.base in response.error()[1]
        assert (line["outcome"], line["error_type"], line["status"]) == ("refused", fault.kind, fault.status)
    else:
        assert (response.status, response.is_whole) == (200, True)
        seen = response.events()
        assert judge(seen) == "error"
        assert seen[-1][1]["error"]["type"] == fault.kind
        path = "/v1/messages" if case.mode == "direct" else "/v1/chat/completions"
        assert upstream.base + path in seen[-1][1]["error"]["message"]
        assert (line["outcome"], line["error_type"]) == ("failed", fault.kind)
        if case.mode == "direct":
            whole = case.arriving[: case.arriving.rfind(b"\n\n") + 2]
            assert response.body.startswith(whole)
            assert response.body[len(whole) :].lstrip(b"\n").startswith(b"event: error\n"), (
                "whole frames, byte for byte, then the error"
            )
        else:
            assert without_ids(seen[:-1]) == without_ids(await _undisturbed(case.arrived))
    assert len(upstream.heads) == 1, "what failed after the head is never sent twice"


def _check_opaque(case: Break, response: RawResponse, line: dict[str, Any]) -> None:
    """A compressed body is passed through, and is complete only where its framing says so."""
    assert response.status == 200
    assert response.headers["content-encoding"] == "gzip"
    assert response.body.startswith(compressed(case.good))
    is_whole = case.fault == "clean_end" or case.is_complete
    assert response.is_whole is is_whole
    assert line["outcome"] == ("ok" if is_whole else "failed")


_reference: list[tuple[str, dict[str, Any]]] = []


async def _undisturbed(whole: int) -> list[tuple[str, dict[str, Any]]]:
    """The events that the first `whole` events of the upstream become when nothing goes wrong."""
    if not _reference:
        response, _, _ = await play([CHUNKED, as_chunks(*TRANSLATED.values()), b"0\r\n\r\n"], "translated")
        _reference.extend(response.events())
    stops = [0, 0, 3, 4, 8, 9, 9, 12, 13][whole]  # a call opens with its first arguments
    return _reference[:stops]


#: Before there is a whole head: steps -> status, type, words of the message, how often the upstream was asked.
BEFORE_THE_HEAD: dict[str, tuple[Sequence[Step], int, str, str, int]] = {
    "reset": ((Fault.RESET,), 502, "api_error", "closed the connection without an answer", 2),
    "close": ((Fault.CLOSE,), 502, "api_error", "closed the connection without an answer", 2),
    "stall": ((Fault.STALL,), 504, "timeout_error", "did not answer in time", 1),
    "reset_in_head": ((CHUNKED[:30], Fault.RESET), 502, "api_error", "closed the connection", 2),
    "close_in_head": ((CHUNKED[:30], Fault.CLOSE), 502, "api_error", "closed the connection", 2),
    "stall_in_head": ((CHUNKED[:30], Fault.STALL), 504, "timeout_error", "did not answer in time", 1),
    "garbage_status_line": ((b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Fault.CLOSE), 502, "api_error", "not HTTP", 1),
    "bad_status": ((b"HTTP/1.1 two hundred\r\n\r\n", Fault.CLOSE), 502, "api_error", "not HTTP", 1),
    "bad_header": (
        (b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", Fault.CLOSE),
        502,
        "api_error",
        "not HTTP",
        1,
    ),
    "endless_header": (
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000, Fault.CLOSE),
        502,
        "api_error",
        "not HTTP",
        1,
    ),
    "two_lengths": (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello", Fault.CLOSE),
        502,
        "api_error",
        "not HTTP",
        1,
    ),
    "redirect": (
        (b"HTTP/1.1 307 Temporary\r\nLocation: http://127.0.0.1:9/v1\r\nContent-Length: 0\r\n\r\n",),
        502,
        "api_error",
        "redirect (307)",
        1,
    ),
}


@pytest.mark.statement("D table")
@pytest.mark.statement("E5")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BEFORE_THE_HEAD)
@pytest.mark.usefixtures("plain_and_tls")
async def test_missing_head(mode: str, name: str) -> None:
    steps, status, kind, words, attempts = BEFORE_THE_HEAD[name]
    response, (line,), upstream = await play(steps, mode)
    assert (response.status, response.error()[0]) == (status, kind)
    assert words in response.error()[1]
    assert (line["outcome"], line["status"], line["error_type"]) == ("refused", status, kind)
    assert (len(upstream.heads), line["retries"]) == (attempts, attempts - 1)


@pytest.mark.statement("D table")
async def test_connection_refused() -> None:
    upstream = RawUpstream(lambda _: (), port=free_port())
    with capture_logs() as lines:
        async with no_leaks(), running_proxy([entry(upstream, "translated")], **SETTINGS) as base:
            async with RawClient.to(base) as client:
                await client.send(post(HELLO))
                response = await client.response()
    assert (response.status, response.error()[0]) == (502, "api_error")
    assert f"127.0.0.1:{upstream.port}" in response.error()[1]
    (line,) = [line for line in lines if line["event"] == "call.finished"]
    assert line["retries"] == 1


def _stream(*frames: bytes) -> Sequence[Step]:
    return [CHUNKED, as_chunks(*frames), b"0\r\n\r\n"]


def _body(status: str, kind: str, body: bytes, *headers: str) -> Sequence[Step]:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


_T = list(TRANSLATED.values())
_ERROR_CHUNK = b'data: {"error":{"message":"the machine caught fire","code":500}}\n\n'
_COMPLETION = {
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "All at once."}, "finish_reason": "stop"}
    ]
}
_BOMB = gzip.compress(b"data: " + b"a" * (40 << 20))

#: Answers that arrive and are no good: steps -> status, the error's type, words of its message.
BAD_ANSWERS: dict[str, tuple[Sequence[Step], int, str, str]] = {
    "html": (
        _body("200 OK", "text/html", b"<html>Login</html>"),
        502,
        "api_error",
        "a page, not with a message",
    ),
    "text": (_body("200 OK", "text/plain", b"hello"), 502, "api_error", ""),
    "empty": (_body("200 OK", "text/event-stream", b""), 502, "api_error", ""),
    "only_comments": (_stream(b": hi\n\n", b": hi\n\n"), 502, "api_error", ""),
    "only_done": (_stream(_T[-1]), 502, "api_error", "without a response"),
    "nonsense_json": (_stream(b"data: {nonsense\n\n"), 502, "api_error", "not JSON"),
    "nested_too_deeply": (_stream(b"data: " + b"[" * 400 + b"]" * 400 + b"\n\n"), 502, "api_error", ""),
    "json_error": (
        _body("200 OK", "application/json", b'{"error":{"message":"no such luck","code":503}}'),
        529,
        "overloaded_error",
        "no such luck",
    ),
    "error_chunk_first": (_stream(_ERROR_CHUNK), 500, "api_error", "caught fire"),
    "unfinished_frame_over_the_limit": (
        _stream(b"data: " + b"a" * (2 << 20)),
        502,
        "api_error",
        "larger than",
    ),
    "too_many_lines": (_stream(b"data: a\n" * 10_001 + b"\n"), 502, "api_error", "lines"),
    "gzip_bomb": (
        [
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
            + f"Content-Length: {len(_BOMB)}\r\n\r\n".encode()
            + _BOMB
        ],
        502,
        "api_error",
        "larger than",
    ),
    "not_gzip": (
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"],
        502,
        "api_error",
        "",
    ),
    "body_over_the_limit": (
        _body("200 OK", "application/json", b'{"a":"' + b"x" * (3 << 20) + b'"}'),
        502,
        "api_error",
        "larger than 2 MiB",
    ),
}


@pytest.mark.statement("C4")
@pytest.mark.statement("C5")
@pytest.mark.statement("D table")
@pytest.mark.parametrize("name", BAD_ANSWERS)
@pytest.mark.usefixtures("plain_and_tls")
async def test_invalid_response(name: str) -> None:
    steps, status, kind, words = BAD_ANSWERS[name]
    response, (line,), upstream = await play(
        steps, "translated", max_retries=0, max_upstream_body_bytes=2 << 20
    )
    assert (response.status, response.error()[0]) == (status, kind)
    assert f"{upstream.base}/v1/chat/completions" in response.error()[1]
    assert words in response.error()[1]
    assert (line["outcome"], line["status"]) == ("refused", status)


#: What direct mode can tell to be no response. The rest goes on byte for byte: it is between client and upstream.
BAD_DIRECT_ANSWERS: dict[str, tuple[Sequence[Step], int, str, str]] = {
    "html": (_body("200 OK", "text/html", b"<html>Login</html>"), 502, "api_error", "a page, not"),
    "json_error": (
        _body(
            "200 OK", "application/json", b'{"type":"error","error":{"type":"api_error","message":"no luck"}}'
        ),
        502,
        "api_error",
        "an error, with status 200",
    ),
    "empty": (_body("200 OK", "text/event-stream", b""), 502, "api_error", "before finishing"),
    "html_as_a_stream": (
        _body("200 OK", "text/event-stream", b"<html>Login"),
        502,
        "api_error",
        "before finishing",
    ),
    "unfinished_frame_over_the_limit": (
        _stream(b"data: " + b"a" * (2 << 20)),
        502,
        "api_error",
        "larger than",
    ),
}


@pytest.mark.statement("C4")
@pytest.mark.statement("D table")
@pytest.mark.parametrize("name", BAD_DIRECT_ANSWERS)
@pytest.mark.usefixtures("plain_and_tls")
async def test_invalid_response_of_a_direct_upstream(name: str) -> None:
    steps, status, kind, words = BAD_DIRECT_ANSWERS[name]
    response, (line,), upstream = await play(steps, "direct", max_retries=0)
    assert (response.status, response.error()[0]) == (status, kind)
    assert words in response.error()[1]
    assert f"{upstream.base}/v1/messages" in response.error()[1]
    assert "Login" not in response.error()[1]
    assert (line["outcome"], line["status"]) == ("refused", status)


@pytest.mark.statement("D table")
@pytest.mark.parametrize("mode", MODES)
async def test_excerpt_of_an_invalid_response_is_only_logged(mode: str) -> None:
    page = b"<html>" + b"Please log in. " * 100
    upstream = RawUpstream(lambda _: _body("200 OK", "text/html", page))
    with capture_logs() as lines:
        async with upstream.running(), running_proxy([entry(upstream, mode)]) as base:
            async with RawClient.to(base) as client:
                await client.send(post(HELLO))
                response = await client.response()
    assert response.status == 502
    assert b"log in" not in response.body
    (seen,) = [line["seen"] for line in lines if line["event"] == "upstream.bad_reply"]
    assert seen == page[:200].decode()


@pytest.mark.statement("C4")
@pytest.mark.parametrize("mode", MODES)
async def test_error_body_is_truncated_at_its_limit(mode: str) -> None:
    message = "a" * 5000
    body = json.dumps({"error": {"message": message}}).encode()
    response, _, _ = await play(
        _body("500 No", "application/json", body), mode, max_error_body_bytes=1024, max_retries=0
    )
    assert response.status == 500
    if mode == "direct":
        assert response.body == body[:1024]
    else:
        assert response.error()[0] == "api_error"
        assert len(response.body) < 1500


#: The same kinds after the first text: error type and words of the error event that ends the stream.
BAD_CONTINUATIONS: dict[str, tuple[bytes, str, str]] = {
    "nonsense_json": (b"data: {nonsense\n\n", "api_error", "not JSON"),
    "not_an_object": (b"data: 7\n\n", "api_error", "something that is no event: 7"),
    "error_chunk": (_ERROR_CHUNK, "api_error", "caught fire"),
    "overloaded": (b'data: {"error":{"message":"overloaded","code":503}}\n\n', "overloaded_error", ""),
    "failed_finish": (
        b'data: {"choices":[{"delta":{},"finish_reason":"insufficient_system_resource"}]}\n\n',
        "overloaded_error",
        "",
    ),
    "frame_over_the_limit": (b"data: " + b"a" * (2 << 20), "api_error", "larger than"),
    "done_only": (b"", "api_error", "before finishing"),
}


@pytest.mark.statement("C4")
@pytest.mark.statement("D table")
@pytest.mark.parametrize("name", BAD_CONTINUATIONS)
@pytest.mark.usefixtures("plain_and_tls")
async def test_invalid_continuation_of_a_stream(name: str) -> None:
    frame, kind, words = BAD_CONTINUATIONS[name]
    chunks = [*_T[:4], frame] if frame else _T[:4]
    response, (line,), upstream = await play([CHUNKED, as_chunks(*chunks), b"0\r\n\r\n"], "translated")
    assert (response.status, response.is_whole) == (200, True)
    events = response.events()
    assert judge(events) == "error"
    assert f"{upstream.base}/v1/chat/completions" in events[-1][1]["error"]["message"]
    assert events[-1][1]["error"]["type"] == kind
    assert words in events[-1][1]["error"]["message"]
    assert "".join(data["delta"].get("text", "") for _, data in events if "delta" in data) == "I will "
    assert (line["outcome"], line["error_type"]) == ("failed", kind)


_GZIP_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
#: Of the events of a mode: what the upstream sends.
GOOD_ANSWERS: dict[str, Callable[[list[bytes]], Sequence[Step]]] = {
    "one_byte_at_a_time": lambda events: [CHUNKED, Trickle(as_chunks(*events)), b"0\r\n\r\n"],
    "head_and_all_one_byte_at_a_time": lambda events: [Trickle(CHUNKED + as_chunks(*events) + b"0\r\n\r\n")],
    "one_write": lambda events: [CHUNKED + as_chunks(b"".join(events)) + b"0\r\n\r\n"],
    "crlf": lambda events: _stream(*(each.replace(b"\n", b"\r\n") for each in events)),
    "gzip_all_the_same": lambda events: [
        _GZIP_HEAD,
        as_chunks(gzip.compress(b"".join(events))),
        b"0\r\n\r\n",
    ],
    "odd_content_type": lambda events: [
        CHUNKED.replace(b"text/event-stream", b"text/plain"),
        as_chunks(*events),
        b"0\r\n\r\n",
    ],
    "chunk_extensions_and_trailers": lambda events: [
        CHUNKED,
        b"".join(b"%x;a=b\r\n%s\r\n" % (len(each), each) for each in events),
        b"0\r\nX-Checksum: 1\r\n\r\n",
    ],
}


@pytest.mark.statement("C5")
@pytest.mark.statement("D table")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GOOD_ANSWERS)
@pytest.mark.usefixtures("plain_and_tls")
async def test_unusual_but_valid_response(name: str, mode: str) -> None:
    events = list(MODES[mode].values())
    response, (line,), upstream = await play(GOOD_ANSWERS[name](events), mode)
    assert b"accept-encoding: identity" in upstream.heads[0].lower()
    if mode == "direct":
        body = (
            gzip.decompress(response.body)
            if name.startswith("gzip")
            else response.body.replace(b"\r\n", b"\n")
        )
        assert body == b"".join(events)
    else:
        await _undisturbed(0)
        assert without_ids(response.events()) == without_ids(_reference)
    assert line["outcome"] == "ok"
    assert line["output_tokens"] == 3, "usage is read whatever the form"


_PLAIN = CHUNKED.replace(b"text/event-stream", b"Text/Plain; charset=utf-8")
#: Heads of event streams that do not say what they are, and how their first bytes come.
UNLABELLED: dict[str, tuple[bytes, Callable[[bytes], list[bytes]]]] = {
    "plain": (_PLAIN, lambda body: [body]),
    "no_type": (CHUNKED.replace(b"Content-Type: text/event-stream\r\n", b""), lambda body: [body]),
    "binary": (_PLAIN.replace(b"Text/Plain", b"application/octet-stream"), lambda body: [body]),
    "byte_by_byte": (_PLAIN, lambda body: [*(body[at : at + 1] for at in range(9)), body[9:]]),
    "a_comment_first": (_PLAIN, lambda body: [b":", b" hello\n\n", body]),
    "data_only": (_PLAIN, lambda body: [re.sub(rb"event: .*\n", b"", body)]),
    "blank_lines_and_a_mark": (_PLAIN, lambda body: [b"\xef\xbb", b"\xbf\n", b"\r\n", body]),
}


@pytest.mark.statement("D1")
@pytest.mark.parametrize("name", UNLABELLED)
async def test_direct_stream_is_recognised_by_its_first_bytes(name: str) -> None:
    """Usage is read, pings are sent, a break ends in one error event, and the bytes are the upstream's own."""
    head, cut = UNLABELLED[name]
    frames = list(DIRECT.values())
    chunks = cut(b"".join(frames))
    response, (line,), _ = await play([head, *map(as_chunks, chunks), b"0\r\n\r\n"], "direct")
    assert response.body == b"".join(chunks)
    assert response.headers.get("content-type", "").lower() in head.decode().lower() or name == "no_type"
    assert (line["outcome"], line["output_tokens"], line["stop_reason"]) == ("ok", 3, "tool_use")

    chunks = cut(b"".join(frames[:5]))
    steps = [head, *map(as_chunks, chunks), Fault.STALL]
    response, (line,), _ = await play(steps, "direct", idle_s=0.3, ping_s=0.05)
    sent = b"".join(chunks)
    assert response.body.startswith(sent)
    assert b"event: ping" in response.body[len(sent) :]
    assert (
        b'event: error\ndata: {"type":"error","error":{"type":"timeout_error"' in response.body[len(sent) :]
    )
    assert (response.is_whole, line["outcome"]) == (True, "failed")


#: Bodies with such labels that are no event stream: they pass as they came, without a ping.
NO_STREAMS = {
    "text": b"even the first word is no field",
    "json": b'{"type":"message"}',
    "short": b"dat",
    "nothing": b"",
    "blank": b"\n" * 3000,
}


@pytest.mark.parametrize("name", NO_STREAMS)
async def test_body_that_does_not_begin_as_a_stream(name: str) -> None:
    body = NO_STREAMS[name]
    steps = [_PLAIN, *([as_chunks(body)] if body else []), Pause(0.1), b"0\r\n\r\n"]
    response, (line,), _ = await play(steps, "direct", ping_s=0.02)
    assert (response.status, response.body, response.is_whole) == (200, body, True)
    assert line["outcome"] == "ok"


async def test_unrequested_stream_is_not_detected() -> None:
    steps = [_PLAIN, as_chunks(b"data: 1\n"), b"0\r\n\r\n"]
    response, (line,), _ = await play(steps, "direct", {**HELLO, "stream": False})
    assert (response.status, response.body, line["outcome"]) == (200, b"data: 1\n", "ok")


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.STALL])
@pytest.mark.usefixtures("plain_and_tls")
async def test_break_in_the_first_bytes_has_its_true_status(fault: Fault) -> None:
    response, (line,), _ = await play([_PLAIN, as_chunks(b"eve"), fault], "direct", idle_s=0.1)
    assert response.status == (502 if fault is Fault.RESET else 504)
    assert line["outcome"] == "refused"


@pytest.mark.parametrize("mode", MODES)
async def test_frame_of_a_megabyte_is_forwarded(mode: str) -> None:
    text = "ü" * 500_000
    if mode == "direct":
        frames = [*list(DIRECT.values())[:4], DIRECT["more_text"].replace(b"write it.", text.encode())]
        frames += list(DIRECT.values())[5:]
    else:
        frames = [*_T[:3], _T[3].replace(b"I will ", text.encode()), *_T[4:]]
    response, _, _ = await play(_stream(*frames), mode, max_frame_bytes=8 << 20)
    assert judge(response.events()) == "message_stop"
    assert text in "".join(data["delta"].get("text", "") for _, data in response.events() if "delta" in data)


@pytest.mark.statement("C4")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("size", [0, 1, 4097], ids=["one_chunk", "ends_apart", "many_chunks"])
async def test_lines_of_an_event_are_limited(size: int, line_end: bytes, mode: str) -> None:
    """Ten thousand are accepted, one more ends the stream, in direct mode also where the event never ends."""
    frames = list(MODES[mode].values())
    for extra in (0, 1, 2):
        lines = [b":"] * (9_999 if extra == 0 else 10_000) + [frames[4].split(b"\n")[-3]]
        odd = line_end.join(lines) + (b"" if extra == 2 else 2 * line_end)
        chunks = [odd[:2], odd[2:-1], odd[-1:]] if size == 1 else [odd]
        if size > 1:
            chunks = [odd[at : at + size] for at in range(0, len(odd), size)]
        whole = [CHUNKED, as_chunks(*frames[:4]), *map(as_chunks, chunks)]
        if extra == 2:
            if mode == "translated":
                continue  # bounded by its bytes while it is not parsed
            response, (line,), _ = await play([*whole, as_chunks(line_end + b":"), Fault.STALL], mode)
        else:
            response, (line,), _ = await play([*whole, as_chunks(*frames[5:]), b"0\r\n\r\n"], mode)
        assert response.status == 200
        if extra == 0:
            assert line["outcome"] == "ok"
        else:
            end = response.body[response.body.rindex(b"event: error\n") :]
            assert b"more than 10000 lines" in end
            assert (line["outcome"], line["error_type"]) == ("failed", "api_error")


async def test_completion_instead_of_a_stream_becomes_a_stream() -> None:
    steps = _body("200 OK", "application/json", json.dumps(_COMPLETION).encode())
    response, _, _ = await play(steps, "translated")
    assert judge(response.events()) == "message_stop"
    assert "All at once." in response.body.decode()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", MODES)
async def test_truncated_direct_body_is_truncated_for_the_client(mode: str, stream: bool) -> None:
    """Only truncation shows a client that a body with a length is incomplete; in translated mode it is a 502."""
    steps = [
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"type":',
        Fault.CLOSE,
    ]
    response, (line,), _ = await play(steps, mode, {**HELLO, "stream": stream})
    if mode == "direct":
        assert (response.status, response.is_whole) == (200, False)
        assert line["outcome"] == "failed"
    else:
        assert (response.status, response.error()[0]) == (502, "api_error")


@pytest.mark.statement("D table")
@pytest.mark.parametrize("framing", ["chunked", "gzip"])
@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.usefixtures("plain_and_tls")
async def test_break_without_streaming_has_its_true_status(name: str, framing: str) -> None:
    fault = BREAKS[name]
    if framing not in fault.framings:
        pytest.skip("this fault is of another framing")
    steps = Break("translated", framing, name, whole=5, is_inside=False).steps
    response, (line,), _ = await play(steps, "translated", {**HELLO, "stream": False})
    assert (response.status, response.error()[0]) == (fault.status, fault.kind)
    assert (line["outcome"], line["status"]) == ("refused", fault.status)


@pytest.mark.statement("D1")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["reset", "close", "stall", "bad_chunk", "clean_end", "huge_frame"])
async def test_abort_closes_the_connection(mode: str, name: str) -> None:
    case = Break(mode, "chunked", name, whole=5, is_inside=False)
    response, (line,), _ = await play(case.steps, mode, on_midstream_error="abort")
    assert (response.status, response.is_whole) == (200, False)
    assert judge(response.events()) == ""
    assert (line["outcome"], line["error_type"]) == ("failed", BREAKS[name].kind)


@pytest.mark.statement("D1")
@pytest.mark.parametrize("mode", MODES)
async def test_abort_keeps_the_status_of_a_failure_before_the_first_byte(mode: str) -> None:
    response, _, _ = await play([CHUNKED, Fault.CLOSE], mode, on_midstream_error="abort")
    assert (response.status, response.is_whole, response.error()[0]) == (502, True, "api_error")
