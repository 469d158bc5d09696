"""A large event of an upstream is decoded in a thread: each of these would block the event loop for up to a second.

What is small is decoded in the loop, and both are the same to the client (docs/spec/operations.md#a8).
"""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from proxyd.codecs.anthropic.passthrough import PassthroughStream
from proxyd.codecs.decoder import LARGE_BYTES
from proxyd.codecs.response_decoder import ResponseDecoder
from tests.support.faults import MODES
from tests.support.harness import running_proxy
from tests.support.raw_sockets import RawClient, RawResponse, RawUpstream, post
from tests.support.streams import CHUNKED, HELLO, as_chunks, judge

SIZE = 1 << 20


def chunk(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def arguments(text: str) -> dict[str, Any]:
    call = {"name": "Write", "arguments": json.dumps({"path": text})}
    return {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": call}]}


#: Events of a Chat Completions stream, and whether the client gets what they hold.
EVENTS = {
    "text": (chunk(content="a" * SIZE), True),
    "line ends": (chunk(content="\n" * (SIZE // 2)), True),
    "reasoning": (chunk(reasoning_content="<think>" * (SIZE // 7)), True),
    "arguments": (chunk(**arguments("\n" * (SIZE // 3))), True),
    "members": (
        b'data: {"unknown": {' + b",".join(b'"member-%d":0' % n for n in range(45_000)) + b"}}\n\n",
        False,
    ),
    "lines": (b"data: x\n" * (SIZE // 8) + b"\n", False),
    "lines that are no fields": (b"x\n" * (SIZE // 2) + b"\n", False),
    "junk": (b"data: " + b"{" * SIZE + b"\n\n", False),
}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Of each call of a decoder: whether it held a large part, and whether it was in the loop's thread."""
    seen: list[tuple[bool, bool]] = []
    loop_thread = threading.get_ident()

    def watched(call: Any) -> Any:
        def watching(self: Any, *given: bytes) -> bytes:
            seen.append((self.is_large, threading.get_ident() == loop_thread))
            result: bytes = call(self, *given)
            return result

        return watching

    for kind in (ResponseDecoder, PassthroughStream):
        for name in ("feed", "close"):
            monkeypatch.setattr(kind, name, watched(getattr(kind, name)))
    return seen


async def ask(mode: str, *frames: bytes, head: bytes = CHUNKED, stream: bool = True) -> RawResponse:
    upstream = RawUpstream(lambda _: [head, as_chunks(*frames), b"0\r\n\r\n"])
    async with upstream.running():
        entry = {"model_id": "m", "api_base": upstream.base, "direct": mode == "direct"}
        async with running_proxy([entry], max_retries=0) as base, RawClient.to(base) as client:
            await client.send(post({**HELLO, "stream": stream}))
            return await client.response(60)


def check(threads: list[tuple[bool, bool]]) -> None:
    assert (True, False) in threads, "a large part was decoded"
    assert (True, True) not in threads, "and none in the loop"
    assert (False, True) in threads, "small ones were"
    assert (False, False) not in threads


@pytest.mark.statement("A8")
@pytest.mark.parametrize("what", EVENTS)
async def test_large_event_is_decoded_in_a_thread(what: str, threads: list[tuple[bool, bool]]) -> None:
    event, has_content = EVENTS[what]
    first, *rest = MODES["translated"].values()
    response = await ask("translated", first, event, *rest)
    assert response.status == 200 or not has_content
    if has_content:
        assert judge(response.events()) == "message_stop"
        assert len(response.body) > SIZE // 3
    check(threads)


@pytest.mark.statement("A8")
async def test_large_event_of_a_direct_stream_passes_unchanged(threads: list[tuple[bool, bool]]) -> None:
    frames = list(MODES["direct"].values())
    large = frames[4].replace(b"write it.", b"a" * SIZE)
    assert len(large) > SIZE
    response = await ask("direct", *frames[:4], large, *frames[5:])
    assert response.body == b"".join([*frames[:4], large, *frames[5:]])
    check(threads)


@pytest.mark.statement("A8")
async def test_large_completion_is_decoded_in_a_thread(threads: list[tuple[bool, bool]]) -> None:
    message = {"role": "assistant", "content": "a" * SIZE}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    head = CHUNKED.replace(b"text/event-stream", b"application/json")
    half = LARGE_BYTES // 2
    response = await ask("translated", body[:half], body[half:], head=head, stream=False)
    assert json.loads(response.body)["content"][0]["text"] == "a" * SIZE
    check(threads)
