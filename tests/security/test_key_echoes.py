"""What an upstream repeats of a key reaches nobody else, and nothing foreign holds up the others (attacks on keys)."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proxyd.telemetry.call_record import CallRecord
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, Step, post
from tests.support.streams import CHUNKED, DIRECT, HELLO, as_chunks

KEY = "CONFIGURED+key/0123456789=="
SPELT = KEY.replace("/", "\\/")


def error(key: str = KEY) -> bytes:
    message = f"Incorrect API key provided: {key}"
    return b'{"type":"error","error":{"type":"authentication_error","message":"%b"}}' % message.encode()


def whole(
    body: bytes, status: bytes = b"401 X", headers: bytes = b"", kind: bytes = b"application/json"
) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
        status, kind, headers, len(body), body,
    )  # fmt: skip


GZIP, DEFLATE = b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n"
EVENT = b"event: error\ndata: %b\n\n"
FRAMES = list(DIRECT.values())[:3]
MESSAGE = b'{"type":"message","role":"assistant","content":[]}'

#: What the upstream says; the body is a stream where it was asked for one.
ECHOES: dict[str, Sequence[Step]] = {
    "error status": [whole(error())],
    "error status, JSON escapes": [whole(error(SPELT))],
    "error status, compressed": [whole(gzip.compress(error()), headers=GZIP)],
    "error status, deflated": [whole(zlib.compress(error(SPELT)), headers=DEFLATE)],
    "error status, compressed unreadably": [whole(error(), headers=b"Content-Encoding: br\r\n")],
    "error with status 200": [whole(error(), b"200 OK")],
    "error with status 200, compressed": [whole(gzip.compress(error()), b"200 OK", GZIP)],
    "error with status 200, cut in the key": [
        (data := whole(error(), b"200 OK"))[: (at := data.index(KEY.encode()) + 7)],
        data[at:],
    ],
    "page with status 200": [whole(b"<html>" + KEY.encode(), b"200 OK", kind=b"text/html")],
    "header": [whole(MESSAGE, b"200 OK", b"x-debug: %b\r\n" % KEY.encode())],
    "header of an error": [whole(b"{}", headers=b"x-debug: Bearer %b\r\n" % KEY.encode())],
    "reason phrase": [whole(error("x"), b"401 " + KEY.encode())],
}
STREAMED: dict[str, Sequence[Step]] = {
    "error event": [CHUNKED, as_chunks(*FRAMES, EVENT % error()), b"0\r\n\r\n"],
    "error event, JSON escapes": [CHUNKED, as_chunks(*FRAMES, EVENT % error(SPELT)), b"0\r\n\r\n"],
    "error event in two chunks": [
        CHUNKED,
        as_chunks(*FRAMES, (event := EVENT % error())[:90]),
        as_chunks(event[90:]),
        b"0\r\n\r\n",
    ],
    "event without a type": [
        CHUNKED,
        as_chunks(*FRAMES, b'data: {"message":"bad key %b"}\n\n' % KEY.encode(), *list(DIRECT.values())[3:]),
        b"0\r\n\r\n",
    ],
    "comment": [
        CHUNKED,
        as_chunks(*FRAMES, b": %b\n\n" % KEY.encode(), *list(DIRECT.values())[3:]),
        b"0\r\n\r\n",
    ],
}


async def ask(base: str, request: bytes) -> tuple[bytes, RawResponse]:
    """The head as it came, too."""
    async with RawClient.to(base) as client:
        await client.send(request)
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 30)
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return head, await client.rest(int(first.split()[1]), headers)


def direct(upstream: RawUpstream, **more: Any) -> dict[str, Any]:
    return {"model_id": "m", "api_base": upstream.base, "direct": True, **more}


@pytest.mark.statement("E7")
@pytest.mark.parametrize("where", [*ECHOES, *STREAMED])
async def test_a_configured_key_that_is_repeated_does_not_reach_the_client(where: str) -> None:
    steps = ECHOES.get(where) or STREAMED[where]
    async with RawUpstream(lambda _: tuple(steps)).running() as upstream:
        entries = [direct(upstream, api_key=KEY)]
        async with running_proxy(entries, max_retries=0, circuit_failures=0) as base:
            head, response = await ask(base, post({**HELLO, "stream": where in STREAMED}, "X-Api-Key: any"))
    body = response.body
    if response.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    elif response.headers.get("content-encoding") == "deflate":
        body = zlib.decompress(body)
    assert KEY.encode() in upstream.heads[0], "the upstream had it"
    assert response.is_whole
    for data in (head, body, body.replace(b"\\/", b"/")):
        assert b"0123456789" not in data
    if b"authentication_error" in b"".join(step for step in steps if isinstance(step, bytes)):
        assert json.loads(body[body.index(b'{"type":"error"') :].split(b"\n")[0])["type"] == "error"


@pytest.mark.statement("E7")
@pytest.mark.parametrize("is_stream", [True, False])
async def test_the_words_of_a_model_are_not_touched(is_stream: bool) -> None:
    """A model that edits a file with the key in it must write it as it is."""
    frames = [
        frame.replace(b'"text_delta","text":"', b'"text_delta","text":"%b ' % KEY.encode())
        for frame in DIRECT.values()
    ]
    message = json.dumps({"type": "message", "role": "assistant", "content": [{"type": "text", "text": KEY}]})
    steps: tuple[Step, ...] = (whole(message.encode(), b"200 OK"),)
    if is_stream:
        steps = (CHUNKED, as_chunks(*frames), b"0\r\n\r\n")
    async with RawUpstream(lambda _: steps).running() as upstream:
        async with running_proxy([direct(upstream, api_key=KEY)]) as base:
            _, response = await ask(base, post({**HELLO, "stream": is_stream}))
    assert response.body == (b"".join(frames) if is_stream else message.encode())


@pytest.mark.statement("E7")
@pytest.mark.parametrize("word", ["overloaded_error", '"error":{', '{"type":"error","error":'])
@pytest.mark.parametrize("is_direct", [True, False])
async def test_what_another_client_sends_as_its_key_is_not_cut_out(word: str, is_direct: bool) -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"overloaded_error"}}'
    async with RawUpstream(lambda _: (whole(body, b"529 X"),)).running() as upstream:
        silent = RawUpstream(lambda _: (b"",))
        async with silent.running():
            entry = {"api_base": f"{upstream.base}/v1", "direct": is_direct}
            entries = [{"model_id": "m", **entry}, {"model_id": "silent", "api_base": f"{silent.base}/v1"}]
            async with running_proxy(entries, max_retries=0, circuit_failures=0) as base:
                async with RawClient.to(base) as other:
                    await other.send(post({**HELLO, "model": "silent"}, f"X-Api-Key: {word}"))
                    while not silent.heads:
                        await asyncio.sleep(0.01)
                    _, response = await ask(
                        base, post({**HELLO, "stream": False}, "X-Api-Key: the-victims-key")
                    )
    kind, message = response.error()
    assert kind == "overloaded_error"
    assert message.partition(" (")[0] == "overloaded_error", "nothing is masked in it"


@pytest.mark.statement("E7")
async def test_a_clients_own_key_is_masked_whole_in_its_own_error(capfd: pytest.CaptureFixture[str]) -> None:
    key = "-".join(("sk", "abc1/SECRETSECRETSECRET+key=="))
    async with RawUpstream(lambda _: (whole(error(key)),)).running() as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1"}
        async with running_proxy([entry], max_retries=0) as base:
            _, response = await ask(base, post({**HELLO, "stream": False}, f"X-Api-Key: {key}"))
            async with RawClient.to(base) as client:
                await client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                feed = await asyncio.wait_for(client.reader.readuntil(b"event: active"), 30)
    assert response.error()[1].partition(" (")[0] == "Incorrect API key provided: ***"
    assert b"Incorrect API key provided: ***" in feed
    assert "SECRETSECRET" not in feed.decode() + "".join(capfd.readouterr())


async def test_a_control_character_in_a_reason_phrase_is_no_crash() -> None:
    async with RawUpstream(lambda _: (whole(error("x"), b"401 a\x07b"),)).running() as upstream:
        async with running_proxy([direct(upstream)], max_retries=0) as base:
            _, response = await ask(base, post({**HELLO, "stream": False}))
    assert response.status in (401, 502)
    assert "internal error" not in response.error()[1]


# -- what would hold up the others


def test_a_record_holds_the_beginning_of_a_models_name() -> None:
    assert CallRecord("r", model="m" * 100_000).model == "m" * 200


@pytest.mark.parametrize("size", [10_000, 500_000])
async def test_a_model_of_any_length_finds_its_entry_by_a_glob(size: int, tmp_path: Path) -> None:
    reply = whole(MESSAGE, b"200 OK")
    async with RawUpstream(lambda _: (reply,)).running() as upstream:
        async with running_proxy([direct(upstream, aliases=["claude-*-end"])], state_folder=tmp_path) as base:
            model = "claude-" + "eyJ-" * (size // 4) + "-end"
            _, response = await ask(base, post({**HELLO, "model": model, "stream": False}))
            assert response.status == 200
            async with RawClient.to(base) as client:
                await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await client.response()).status == 200


def _stored(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


KEY_LIKE = "-".join(("sk", "plantedmodel0123456789"))


@pytest.mark.statement("E7")
@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_key_in_a_word_that_is_remembered_is_masked(is_direct: bool, tmp_path: Path) -> None:
    """As the name of a model, the type of an error and an id, in the ledger and the feed."""
    said = json.dumps(
        {"type": "error", "error": {"type": KEY_LIKE, "code": KEY_LIKE, "message": "no"}}
    ).encode()
    reply = whole(said, b"400 X", b"request-id: %b\r\n" % KEY_LIKE.encode())
    async with RawUpstream(lambda _: (reply,)).running() as upstream:
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": is_direct, "aliases": ["*"]}
        async with running_proxy([entry], state_folder=tmp_path, max_retries=0) as base:
            session = f"X-Claude-Code-Session-Id: {KEY_LIKE}"
            await ask(
                base,
                post({**HELLO, "model": KEY_LIKE, "stream": False}, session, f"X-Request-Id: {KEY_LIKE}"),
            )
            async with RawClient.to(base) as client:
                await client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                feed = await asyncio.wait_for(client.reader.readuntil(b"event: active"), 30)
    assert b'"model":"***"' in feed
    for data in (feed, *_stored(tmp_path)):
        assert KEY_LIKE.encode() not in data


@pytest.mark.statement("E7")
async def test_bodies_that_are_kept_hold_no_key_in_any_spelling(tmp_path: Path) -> None:
    spelt = [
        KEY,
        SPELT,
        KEY.replace("/", "%2F").replace("+", "%2B"),
        "".join(f"\\u{ord(c):04x}" for c in KEY),
    ]
    reply = whole(error(" ".join(spelt)), b"400 X")
    async with RawUpstream(lambda _: (reply,)).running() as upstream:
        entries = [direct(upstream, api_key=KEY)]
        async with running_proxy(entries, state_folder=tmp_path, max_retries=0, record_bodies=True) as base:
            prompt = {"role": "user", "content": " ".join(spelt)}
            await ask(base, post({**HELLO, "messages": [prompt], "stream": False}))
    stored = _stored(tmp_path)
    assert any(b"Incorrect API key provided" in data for data in stored), "the record is there"
    for data in stored:
        for each in spelt:
            assert each.encode() not in data
