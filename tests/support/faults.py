"""The ways in which an upstream fails, as data, and one call to an upstream that fails so.

A `Break` is one point of the product: mode × framing of the body × fault × phase of the response, before an event or in
its middle. What the client must see follows from the point (`Break.is_early`, `Break.is_complete`) and the fault's row.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from tests.support.certificates import server_context
from tests.support.harness import running_proxy
from tests.support.raw_sockets import (
    Fault,
    RawClient,
    RawResponse,
    RawUpstream,
    Step,
    Trickle,
    complaints,
    no_leaks,
    post,
    until,
)
from tests.support.streams import CHUNKED, DIRECT, HELLO, TRANSLATED, as_chunks, judge

__all__ = ["BREAKS", "FRAMINGS", "MODES", "Break", "breaks", "compressed", "entry", "play", "without_ids"]

MODES = {"translated": TRANSLATED, "direct": DIRECT}
#: One retry: the second one would wait for half a second.
SETTINGS = {"max_retries": 1, "max_frame_bytes": 1 << 20}
#: For upstreams that stall; the others must not run into a clock on a slow machine.
SHORT_TIMEOUTS = {"first_byte_s": 0.2, "idle_s": 0.2}

#: Key and certificate of the upstreams of `play`; None where they speak plain HTTP. A fixture may set it.
certificate: tuple[Path, Path] | None = None

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_HUGE = b"data: " + b"a" * (2 << 20)


def _until_close(*chunks: bytes) -> list[Step]:
    return [_HEAD + b"Connection: close\r\n\r\n", *chunks]


def _chunked(*chunks: bytes) -> list[Step]:
    return [CHUNKED, *(as_chunks(chunk) for chunk in chunks if chunk)]


def _says_more(*chunks: bytes) -> list[Step]:
    return [_HEAD + b"Content-Length: %d\r\n\r\n" % (sum(map(len, chunks)) + 100), *chunks]


def _says_less(*chunks: bytes) -> list[Step]:
    """The content-length omits the last quarter, which is sent all the same."""
    size = sum(map(len, chunks))
    return [_HEAD + b"Content-Length: %d\r\n\r\n" % (size - size // 4), *chunks]


def _compressor() -> Any:
    return zlib.compressobj(level=1, wbits=31)  # the chunks of a bomb have megabytes


def _gzip(*chunks: bytes) -> list[Step]:
    compressor = _compressor()
    head = _HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [
        head,
        *(as_chunks(compressor.compress(chunk) + compressor.flush(zlib.Z_SYNC_FLUSH)) for chunk in chunks),
    ]


def compressed(data: bytes) -> bytes:
    """`data` as the beginning of a body in the framing ``gzip``."""
    compressor = _compressor()
    started: bytes = compressor.compress(data)
    return started + compressor.flush(zlib.Z_SYNC_FLUSH)


#: How the upstream marks where its body ends: what it writes for a body that comes in these chunks.
FRAMINGS: dict[str, Callable[..., list[Step]]] = {
    "chunked": _chunked,
    "until_close": _until_close,
    "says_more": _says_more,
    "says_less": _says_less,
    "gzip": _gzip,
}


@dataclass(frozen=True)
class Failure:
    """How a response breaks off.

    Attributes:
        steps: what the upstream does after the valid bytes.
        framings: the framings in which it can happen.
        tail: invalid bytes within the framing.
        status, kind: the error's status before the first byte; its type there and after it.
        is_trickled: the valid bytes are sent one at a time.
    """

    steps: Sequence[Step]
    framings: tuple[str, ...]
    status: int = 502
    kind: str = "api_error"
    tail: bytes = b""
    modes: tuple[str, ...] = ("translated", "direct")
    is_trickled: bool = False


BREAKS: dict[str, Failure] = {
    "reset": Failure((Fault.RESET,), ("chunked", "until_close", "says_more", "gzip")),
    "close": Failure((Fault.CLOSE,), ("chunked", "until_close", "says_more", "gzip")),
    "stall": Failure((Fault.STALL,), ("chunked", "until_close", "gzip"), 504, "timeout_error"),
    "bad_chunk": Failure((b"what?\r\n",), ("chunked",)),
    "status_line_in_the_body": Failure((b"HTTP/1.1 200 OK\r\n\r\n",), ("chunked",)),
    "clean_end": Failure((b"0\r\n\r\n",), ("chunked", "gzip")),
    "wrong_length": Failure((), ("says_less",)),
    "huge_frame": Failure((Fault.STALL,), ("chunked",), tail=_HUGE),
    # In direct mode the frame that this tail completes goes down with it; `test_the_lines_of_an_event_are_bounded`.
    "too_many_lines": Failure(
        (Fault.STALL,), ("chunked",), tail=b"\n\n" + b"data: a\n" * 10_001 + b"\n", modes=("translated",)
    ),
    "bomb": Failure((Fault.STALL,), ("gzip",), tail=_HUGE * 20),
    "broken_gzip": Failure((as_chunks(b"\xff" * 50), Fault.STALL), ("gzip",)),
    "trickle_then_reset": Failure((Fault.RESET,), ("chunked",), is_trickled=True),
}


@dataclass(frozen=True)
class Break:
    """One point of the product: `whole` events arrive, of the next one half if `is_inside`, then the fault."""

    mode: str
    framing: str
    fault: str
    whole: int
    is_inside: bool

    @property
    def name(self) -> str:
        names = list(MODES[self.mode])
        after = names[self.whole - 1] if self.whole else "head"
        place = f"in_{names[self.whole]}" if self.is_inside else f"after_{after}"
        return f"{self.mode}-{self.framing}-{self.fault}-{place}"

    @property
    def good(self) -> bytes:
        """The bytes that arrive before the fault."""
        events = list(MODES[self.mode].values())
        half = events[self.whole][: len(events[self.whole]) // 2] if self.is_inside else b""
        return b"".join(events[: self.whole]) + half

    @property
    def steps(self) -> list[Step]:
        fault = BREAKS[self.fault]
        steps = FRAMINGS[self.framing](self.good, fault.tail)
        if fault.is_trickled:
            steps = [Trickle(step) if isinstance(step, bytes) else step for step in steps]
        return [step for step in (*steps, *fault.steps) if step != b""]

    @property
    def arriving(self) -> bytes:
        """The part of the valid bytes that belongs to the body by its framing."""
        return self.good[: len(self.good) - len(self.good) // 4] if self.framing == "says_less" else self.good

    @property
    def arrived(self) -> int:
        """The number of complete events."""
        return self.arriving.count(b"\n\n") if self.mode == "translated" else _whole_events(self.arriving)

    @property
    def is_opaque(self) -> bool:
        """Direct mode passes a compressed body through, and can only truncate it where it was truncated."""
        return self.mode == "direct" and self.framing == "gzip"

    @property
    def is_early(self) -> bool:
        """Nothing that the client can use has arrived: in translated mode the role alone is no event."""
        if self.mode == "translated":
            return self.arrived < 2
        return not self.arriving.count(b"\n\n")

    @property
    def is_complete(self) -> bool:
        """The message is complete, whatever happened to its connection afterwards.

        See docs/spec/chat-to-messages.md#end.
        """
        needed = "finish" if self.mode == "translated" else "end"
        return self.arrived > list(MODES[self.mode]).index(needed)


def _whole_events(data: bytes) -> int:
    """How many of the direct events, each of one or more frames, `data` begins with."""
    for number, size in enumerate(itertools.accumulate(map(len, DIRECT.values()))):
        if len(data) < size:
            return number
    return len(DIRECT)


def breaks() -> Iterator[Break]:
    """All combinations; only some phases of those that are alike in several framings or wait for a timeout."""
    for mode, (fault, failure) in itertools.product(MODES, BREAKS.items()):
        if mode not in failure.modes:
            continue
        for framing, whole, is_inside in itertools.product(
            failure.framings, range(len(MODES[mode]) + 1), (False, True)
        ):
            if is_inside and whole == len(MODES[mode]):
                continue
            if fault == "wrong_length" and not (whole or is_inside):
                continue  # an empty body of length 0 is valid
            if fault == "stall" and is_inside and whole % 2:
                continue  # each of these waits for a timeout
            if framing != failure.framings[0] and fault in ("reset", "stall") and (whole % 3 or is_inside):
                continue
            if framing in ("says_more", "gzip") and whole % 3 and is_inside:
                continue
            yield Break(mode, framing, fault, whole, is_inside)


def entry(upstream: RawUpstream, mode: str) -> dict[str, Any]:
    return {"model_id": "m", "api_base": f"{upstream.base}/v1", "direct": mode == "direct"}


async def play(
    steps: Sequence[Step], mode: str, payload: dict[str, Any] | None = None, **settings: Any
) -> tuple[RawResponse, list[dict[str, Any]], RawUpstream]:
    """One call to an upstream that plays `steps` at every attempt; checks what holds for every fault:

    the upstream's connection is closed, no task and no descriptor is left, nothing crashed, and the next call, on the
    same connection if it is still open, gets its own response without a byte of the broken one.

    Returns:
        The client's response, the log line of the call, and the upstream as it was before the next call.
    """
    is_over = False

    def played(_: int) -> Iterable[Step]:
        if is_over:
            return [CHUNKED + as_chunks(b"".join(MODES[mode].values())) + b"0\r\n\r\n"]
        return steps

    upstream = RawUpstream(played, tls=server_context(*certificate) if certificate else None)
    timeouts = SHORT_TIMEOUTS if Fault.STALL in steps else {}
    if certificate is not None:
        settings["ca_file"] = str(certificate[1])
        # Both ends encrypt in this process.
        timeouts = {name: 5 * seconds for name, seconds in timeouts.items()}
    with capture_logs() as lines:
        async with no_leaks(), upstream.running():
            async with running_proxy([entry(upstream, mode)], **{**SETTINGS, **timeouts, **settings}) as base:
                async with RawClient.to(base) as client:
                    await client.send(post(payload or HELLO))
                    response = await client.response()
                    if any(isinstance(step, Fault) for step in steps):
                        await until(lambda: upstream.open_connections == 0)
                    heads = list(upstream.heads)
                    is_over = True
                    if not timeouts:  # which can expire on a busy machine
                        await _check_next(base, client if response.is_whole else None, mode)
    assert complaints(lines) == []
    upstream.heads = heads
    return response, [line for line in lines if line["event"] == "call.finished"][:1], upstream


async def _check_next(base: str, client: RawClient | None, mode: str) -> None:
    if client is None:
        async with RawClient.to(base) as other:
            await _check_next(base, other, mode)
        return
    await client.send(post(HELLO))
    response = await client.response()
    assert (response.status, response.is_whole, judge(response.events())) == (200, True, "message_stop")
    if mode == "direct":
        assert response.body == b"".join(DIRECT.values())
    else:
        deltas = [data["delta"] for _, data in response.events() if "index" in data and "delta" in data]
        assert "".join(delta.get("text", "") for delta in deltas) == "I will write it."


def without_ids(value: Any) -> Any:
    """`value` without fields that differ from call to call."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in ("id", "usage")}
    if isinstance(value, (list, tuple)):
        return [without_ids(item) for item in value]
    return value
