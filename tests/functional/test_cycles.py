"""A call that is over leaves nothing that must be searched for, however it has ended: all it held is free at once.

A search of all objects stops every stream for a tenth of a millisecond for each call that is open (`proxyd.garbage`).
And a request of Claude Code's that is kept until then is a megabyte.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from tests.functional.faults import MODES
from tests.functional.raw import Fault, RawClient, RawUpstream, Step, post, until
from tests.functional.streams import CHUNKED, HELLO, as_chunks
from tests.harness import running_proxy

CALLS = 8

_NO = b'{"error": {"type": "invalid_request_error", "message": "no"}}'


def _of(status: bytes, body: bytes) -> list[Step]:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return [head % (status, len(body)) + body]


#: What the upstream does, by how the call ends; of the head of its answer and the pieces of it.
ENDS: dict[str, Callable[[bytes, tuple[bytes, ...]], Iterable[Step]]] = {
    "whole": lambda head, pieces: [head, as_chunks(*pieces), b"0\r\n\r\n"],
    "refused": lambda *_: _of(b"400 Bad Request", _NO),
    "limited": lambda *_: _of(b"429 Too Many Requests", _NO),
    "no answer": lambda *_: [Fault.RESET],
    "no answer in time": lambda *_: [Fault.STALL],
    "nonsense": lambda *_: _of(b"200 OK", b"<html>"),
    "cut": lambda head, pieces: [head, as_chunks(*pieces[:5]), Fault.RESET],
    "silent": lambda head, pieces: [head, as_chunks(*pieces[:5]), Fault.STALL],
    "client leaves": lambda head, pieces: [head, as_chunks(*pieces[:5]), Fault.STALL],
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_call_leaves_no_cycles(mode: str, end: str, stream: bool) -> None:
    head, pieces = CHUNKED, tuple(MODES[mode].values())
    if mode == "direct" and not stream:
        head = CHUNKED.replace(b"text/event-stream", b"application/json")
        pieces = (b'{"type": "message", "content": [', *([b" "] * 5), b"]}")
    answer = ENDS[end](head, pieces)
    upstream = RawUpstream(lambda _: answer)
    leaves = end == "client leaves"
    clocks = {} if leaves else {"first_byte_s": 0.04, "idle_s": 0.04}
    found: Counter[str] = Counter()
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        async with running_proxy([entry], max_retries=0, circuit_failures=0, **clocks) as base:

            async def calls(count: int) -> None:
                for _ in range(count):
                    async with RawClient.to(base) as client:
                        seen = len(upstream.heads)
                        await client.send(post({**HELLO, "stream": stream}))
                        if leaves:
                            await until(lambda seen=seen: len(upstream.heads) > seen, 5)  # type: ignore[misc]
                            client.reset()
                        else:
                            await client.answer()

            await calls(3)
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                await calls(CALLS)
                gc.collect()
                for each in gc.garbage:
                    kind = type(each)
                    is_request = kind is dict and "messages" in each
                    found["a request" if is_request else f"{kind.__module__}.{kind.__name__}"] += 1
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
    ours = {name: count for name, count in found.items() if name.startswith(("proxyd.", "a request"))}
    assert not ours, ours
