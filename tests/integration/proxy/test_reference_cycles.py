"""A finished call leaves no reference cycles, however it has ended: all its objects are freed at once.

A search of all objects stops every stream for a tenth of a millisecond for each call that is open
(`proxyd.daemon.gc_policy`). And a request of Claude Code's that is kept until then is a megabyte.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import pytest

from tests.support.faults import MODES
from tests.support.harness import running_proxy
from tests.support.raw_sockets import Fault, RawClient, RawUpstream, Step, post, until
from tests.support.streams import CHUNKED, HELLO, as_chunks

CALLS, WARMING = 8, 3

_NO = b'{"error": {"type": "invalid_request_error", "message": "no"}}'


def _of(status: bytes, body: bytes) -> list[Step]:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return [head % (status, len(body)) + body]


#: What the upstream does, by how the call ends; of the head of its response and the pieces of it.
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


#: The tasks of Python 3.10 keep the exception by which they were cancelled, and its frames keep the task.
KEEPS_CANCELLED = sys.version_info < (3, 11)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("mode", MODES)
async def test_call_leaves_no_reference_cycles(mode: str, end: str, stream: bool) -> None:
    if end == "client leaves" and KEEPS_CANCELLED:
        pytest.skip("a task of Python 3.10 that was cancelled is a reference cycle itself")
    head, chunks = CHUNKED, tuple(MODES[mode].values())
    if mode == "direct" and not stream:
        head = CHUNKED.replace(b"text/event-stream", b"application/json")
        chunks = (b'{"type": "message", "content": [', *([b" "] * 5), b"]}")
    response = ENDS[end](head, chunks)
    upstream = RawUpstream(lambda _: response)
    leaves = end == "client leaves"
    timeouts = {} if leaves else {"first_byte_s": 0.04, "idle_s": 0.04}
    async with upstream.running():
        entry = {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}
        async with running_proxy([entry], max_retries=0, circuit_failures=0, **timeouts) as base:

            async def call() -> None:
                async with RawClient.to(base) as client:
                    seen = len(upstream.heads)
                    await client.send(post({**HELLO, "stream": stream}))
                    if leaves:
                        await until(lambda: len(upstream.heads) > seen, 30)
                        client.reset()
                    else:
                        await client.response()

            assert not await left_by(call)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("by", ["another try", "a fallback"])
@pytest.mark.parametrize("mode", MODES)
async def test_call_whose_first_attempt_failed_leaves_no_reference_cycles(
    mode: str, by: str, stream: bool
) -> None:
    whole = _of(b"200 OK", b'{"type": "message", "content": []}')
    if mode == "translated" or stream:
        whole = [CHUNKED, as_chunks(*MODES[mode].values()), b"0\r\n\r\n"]
    failing = RawUpstream(lambda number: [Fault.RESET] if by == "a fallback" or number % 2 == 0 else whole)
    other = RawUpstream(lambda _: whole)
    async with failing.running(), other.running():
        entries = [
            {"model_id": "m", "api_base": failing.base, "direct": mode == "direct", "fallback": "other"},
            {"model_id": "other", "api_base": other.base, "direct": mode == "direct"},
        ]
        retries = 1 if by == "another try" else 0
        async with running_proxy(entries, max_retries=retries, circuit_failures=0) as base:

            async def call() -> None:
                async with RawClient.to(base) as client:
                    await client.send(post({**HELLO, "stream": stream}))
                    assert (await client.response()).status == 200

            assert not await left_by(call)
    assert len(other.heads) == (CALLS + WARMING if by == "a fallback" else 0)


async def left_by(call: Callable[[], Awaitable[None]]) -> dict[str, int]:
    """Count our objects that garbage collection finds after calls, by class."""
    for _ in range(WARMING):
        await call()
    gc.collect()
    gc.freeze()  # what is there already need not be traversed again
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    found: Counter[str] = Counter()
    try:
        for _ in range(CALLS):
            await call()
        gc.collect()
        for each in gc.garbage:
            kind = type(each)
            is_request = kind is dict and "messages" in each
            found["a request" if is_request else f"{kind.__module__}.{kind.__name__}"] += 1
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    return {name: count for name, count in found.items() if name.startswith(("proxyd.", "a request"))}
