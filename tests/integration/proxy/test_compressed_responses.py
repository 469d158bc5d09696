"""Responses that are compressed although no client asked for that (docs/spec/operations.md#c5): long ones, and bombs.

In direct mode they pass as they came and are decompressed beside that, for their usage; with hooks over them they go on
decompressed; in translated mode they always are. None holds up the event loop, of which each step is measured
(docs/spec/operations.md#a8).
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxyd.codecs.wire.decompression import Decompressor
from proxyd.daemon.server import Daemon
from proxyd.hooks.loader import HookSet, load_hooks
from tests.support.harness import load_entries
from tests.support.hooked import write_hook
from tests.support.loop_meter import MAX_MS, Meter, attach
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, Step, post
from tests.support.streams import DIRECT, HELLO, TRANSLATED, as_chunks, judge

#: Who looks into the response, and the mode it is asked for in.
CASES = {"aside": "direct", "hooks": "direct", "translated": "translated"}


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    """Measures the steps of this thread's loop, the upstream's and the client's among them."""
    found = Meter()
    attach(found, monkeypatch.setattr)
    gc.callbacks.append(found.collects)  # those of a process that has run a thousand tests take long
    yield found
    gc.callbacks.remove(found.collects)
    found.end()


def compressed(kind: str, body: bytes) -> list[Step]:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = gzip.compress(body)
    chunks = (as_chunks(data[at : at + 16_000]) for at in range(0, len(data), 16_000))
    return [head.encode(), *chunks, b"0\r\n\r\n"]


def stream(mode: str, texts: int, middle: bytes = b"") -> bytes:
    words, frames = random.Random(5), list((DIRECT if mode == "direct" else TRANSLATED).values())
    many = (frames[4].replace(b"write it.", b"%x" % words.getrandbits(40)) for _ in range(texts))
    return b"".join([*frames[:4], *many, middle, *frames[5:]])


@asynccontextmanager
async def proxy(case: str, steps: list[Step], folder: Path) -> AsyncIterator[str]:
    hooks = HookSet()
    if case == "hooks":
        write_hook(folder, "look", "def stream_event_hook(event, ctx):\n return event\n")
        hooks = load_hooks(folder)
    upstream = RawUpstream(lambda _: steps)
    async with upstream.running():
        entry: dict[str, Any] = {
            "model_id": "m",
            "api_base": upstream.base,
            "direct": CASES[case] == "direct",
        }
        if case == "hooks":  # with a key, which is searched for in what may be an error
            entry["api_key"] = "sk-a-key-of-the-configuration"
        daemon = Daemon(replace(load_entries([entry], max_retries=0), hooks=hooks))
        await daemon.start()
        try:
            yield f"http://127.0.0.1:{daemon.addresses[0][1]}"
        finally:
            await daemon.drain()
            await daemon.close()


async def play(
    case: str, steps: list[Step], folder: Path, meter: Meter, **more: Any
) -> tuple[RawResponse, dict[str, Any]]:
    """The client's response and the log line of the call; no step of the loop has taken long."""
    with capture_logs() as lines:
        async with proxy(case, steps, folder) as base, RawClient.to(base) as client:
            meter.begin()
            await client.send(post({**HELLO, **more}))
            response = await client.response()
            meter.end()
    assert meter.callbacks > 10, "it did measure"
    assert meter.slowest[0][0] < MAX_MS, meter.slowest
    (line,) = [line for line in lines if line["event"] == "call.finished"]
    return response, line


@pytest.mark.statement("A8")
@pytest.mark.statement("C5")
@pytest.mark.parametrize("case", CASES)
async def test_long_compressed_stream_does_not_block_the_loop(
    case: str, tmp_path: Path, meter: Meter
) -> None:
    mode = CASES[case]
    body = stream(mode, texts=5000)
    steps = compressed("text/event-stream", body)
    response, line = await play(case, steps, tmp_path, meter)
    if case == "aside":
        assert response.headers["content-encoding"] == "gzip"
        assert gzip.decompress(response.body) == body
    else:
        assert "content-encoding" not in response.headers
        assert judge(response.events()) == "message_stop"
        assert response.body == body or mode == "translated"
    assert (line["outcome"], line["output_tokens"]) == ("ok", 3)


@pytest.mark.statement("A8")
@pytest.mark.statement("C5")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("what", ["comments", "a frame", "a body"])
async def test_decompression_bomb_is_not_decompressed_to_its_end(
    what: str, case: str, tmp_path: Path, meter: Meter
) -> None:
    mode = CASES[case]
    if what == "a body":
        start = b'{"padding":"' if mode == "translated" else b'{"type":"message","content":"'
        kind, body = "application/json", start + b"a" * (60 << 20) + b'"}'
    else:
        middle = (
            b":%b\n\n" % (b"a" * 60) * (1 << 20)
            if what == "comments"
            else b"data: " + b"a" * (60 << 20) + b"\n\n"
        )
        kind, body = "text/event-stream", stream(mode, 1, middle)
    steps = compressed(kind, body)
    response, line = await play(case, steps, tmp_path, meter, stream=what != "a body")
    if case == "aside":
        assert response.body == b"".join(_content(step) for step in steps[1:-1])  # type: ignore[arg-type]
        assert line["outcome"] == "ok"
        return
    if what == "a body" and case == "hooks":  # no hook wants it, so it passes decompressed, and is cut
        assert not response.is_whole
    elif response.status == 200:
        assert judge(response.events()) == "error"
    else:
        assert response.status == 502
    assert len(response.body) < 7 << 20
    assert line["error_type"] == "api_error"
    assert ("before finishing" if mode == "translated" else "decompresses to more than 100 times") in line[
        "error"
    ]


@pytest.mark.statement("A8")
@pytest.mark.parametrize("case", ["translated", "hooks"])
@pytest.mark.parametrize("is_text", [True, False])
async def test_other_tasks_run_between_two_chunks(
    case: str, is_text: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever size one read decompresses to, and whether or not it yields events."""
    mode = CASES[case]
    body = stream(mode, 20_000) if is_text else stream(mode, 1, b": nothing\n\n" * 20_000)
    taken: list[int] = []
    turns, sound_take = 0, Decompressor.take

    def take(self: Decompressor, *given: int) -> bytes:
        chunk = sound_take(self, *given)
        if chunk:
            taken.append(turns)
        return chunk

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Decompressor, "take", take)
    async with (
        proxy(case, compressed("text/event-stream", body), tmp_path) as base,
        RawClient.to(base) as client,
    ):
        beside = asyncio.ensure_future(others())
        await client.send(post(HELLO))
        assert (await client.response()).is_whole
        beside.cancel()
    assert len(taken) > 3
    assert max(Counter(taken).values()) <= 2


def _content(chunk: bytes) -> bytes:
    return chunk.partition(b"\r\n")[2][:-2]


@pytest.mark.statement("A8")
async def test_body_too_large_for_a_message_is_not_parsed(tmp_path: Path, meter: Meter) -> None:
    """Parsing it for its usage would block every stream, and no message is that long."""
    usage = {"input_tokens": 5, "output_tokens": 7}
    words = random.Random(5).randbytes(5 << 20).hex()
    message = {"type": "message", "content": words, "stop_reason": "end_turn", "usage": usage}
    body = json.dumps(message).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    response, line = await play("aside", [head, body], tmp_path, meter, stream=False)
    assert response.body == body
    assert line["output_tokens"] == 0
