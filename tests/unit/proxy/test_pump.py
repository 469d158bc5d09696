"""The pump: what its task and the transport's callback forward is the same, however a stream is cut."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.anthropic.passthrough import PassthroughStream
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.decoder import Decoder
from proxyd.codecs.openai.stream import OpenAIStream
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.wire.http1_body import Body
from proxyd.errors import ProxyError
from proxyd.proxy.pump import State, StreamPump
from proxyd.proxy.upstream_reader import UpstreamReader
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.call_trace import CallTrace
from proxyd.transport.connection import ReadBuffer, UpstreamConnection
from proxyd.transport.response import Response
from proxyd.transport.timers import Timers
from tests.support.effort import examples


@dataclass
class _Client:
    """A sink that is writable for the given numbers of writes, and not writable after one write more each time."""

    writable_counts: list[int] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    is_writable: bool = True
    has_pings: bool = True

    def write(self, data: bytes) -> None:
        assert self.is_writable
        self.written.append(data)
        if self.writable_counts:
            self.writable_counts[0] -= 1
            if self.writable_counts[0] < 0:
                self.writable_counts.pop(0)
                self.is_writable = False

    async def drained(self) -> None:
        await asyncio.sleep(0)
        self.is_writable = True

    def stop_pings(self) -> None:
        self.has_pings = False


class _Call:
    """A pump whose upstream is fed by the test."""

    def __init__(self, mode: str, client: _Client, *, keeps_bodies: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.client = client
        self.protocol = UpstreamConnection(ReadBuffer())
        self.protocol.body = Body(length=None, is_chunked=True)
        transport = mock.Mock(spec=asyncio.Transport)
        transport.get_write_buffer_size.return_value = 0
        self.protocol.transport = transport
        head: Any = SimpleNamespace(status=200, reason="OK", headers={"content-type": "text/event-stream"})
        self.response = Response(self.protocol, head, mock.Mock(), 0)
        self.record = CallRecord(request_id="req", is_stream=True)
        self.trace = self.record.trace = CallTrace()
        if keeps_bodies:
            self.trace.keep_bodies(b"")
        self.trace.on_sent(("POST", "/"), {}, b"{}", route="m", mode=mode)
        self.timers = Timers(loop)
        numbers = itertools.count()
        self.decoder: Decoder
        if mode == "translated":
            codec = OpenAIStream(
                ResponseContext("asked"),
                Dialect(),
                lambda prefix: f"{prefix}{next(numbers)}",
                lambda oddity: None,
            )
            self.decoder = ResponseDecoder(codec, max_body_bytes=10_000)
        else:
            self.decoder = PassthroughStream()
        reader = UpstreamReader(self.response, self.timers, self.record, idle_s=1, address="http://upstream")
        url = "http://upstream/v1/messages"
        self.pump = StreamPump(reader, self.decoder, self.timers, self.record, url)
        self.reader = asyncio.ensure_future(self._run())

    async def _run(self) -> object:
        try:
            await self.pump.until_first_frames()
            await self.pump.run(self.client)
        except ProxyError as exc:
            return type(exc), str(exc)
        return self.pump.state, str(self.decoder.failure)

    async def seen(self) -> tuple[object, ...]:
        """All that is visible from outside, after the upstream has ended."""
        end = await asyncio.wait_for(self.reader, 30)
        self.timers.close()
        flow = self.trace.attempts[0].flow
        # What arrives after the end, or after what broke the response, may be read or not.
        has_ended = self.decoder.failure is not None or self.decoder.has_ended
        written = b"".join([*self.client.written, self.pump.last])
        if self.decoder.failure is not None:
            # A blank line more is part of the incomplete frame that is dropped, or of the whole one before it.
            written = re.sub(rb"[\r\n]+(?=event: error\ndata: .*\n\n\Z)", b"\n\n", written)
        usage = self.decoder.usage
        # The estimate of a direct stream counts pings with the deltas that arrive in the same read.
        is_exact = not (usage.is_estimated and isinstance(self.decoder, PassthroughStream))
        return (
            written,
            end,
            self.record.events,
            usage if is_exact else None,
            None if has_ended else self.client.has_pings,
            None if has_ended else (flow.size, None if flow.chunks is None else b"".join(flow.chunks)),
        )


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_texts = st.one_of(
    st.sampled_from([" word", " Wörter", "\n", '"', "\\", "{", "\u2028", "\x7f", "\ud83d", '"message_stop"']),
    st.text(max_size=6),
)


def _openai(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def _data(value: Any, *, is_ascii: bool, end: str) -> bytes:
    text = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    return b"data: " + text + end.encode()


_CALL = {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "Read", "arguments": ""}}]}
_openai_frames = st.one_of(
    st.builds(
        _data,
        st.one_of(
            st.builds(lambda text: _openai({"content": text}), _texts),
            st.builds(lambda text: _openai({"reasoning_content": text}), _texts),
            st.just(_openai(_CALL)),
            st.builds(
                lambda text, at: _openai({"tool_calls": [{"index": at, "function": {"arguments": text}}]}),
                _texts,
                st.sampled_from([0, 0, 0, 1]),
            ),
            st.builds(lambda count: _openai({}, usage={"completion_tokens": count}), st.integers(0, 9)),
            st.builds(lambda text: _openai({"content": text}, "stop"), _texts),
            st.just({"error": {"message": "no"}}),
        ),
        is_ascii=st.booleans(),
        end=st.sampled_from(["\n\n"] * 6 + ["\r\n\r\n", "\n\r\n", "\n"]),
    ),
    st.sampled_from([b": comment\n\n", b"data: [DONE]\n\n", b"\n", b"\r\n"]),
)


def _anthropic(value: dict[str, Any], *, end: str) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return b"event: %b\ndata: %b%b" % (str(value["type"]).encode(), text, end.encode())


_anthropic_frames = st.one_of(
    st.builds(
        _anthropic,
        st.one_of(
            st.builds(
                lambda text: {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": text},
                },
                _texts,
            ),
            st.just({"type": "ping"}),
            st.builds(lambda name: {"type": "content_block_delta", "error": name}, _texts),
            st.builds(lambda n: {"type": "message_delta", "usage": {"output_tokens": n}}, st.integers(0, 9)),
            st.sampled_from([{"type": "message_stop"}, {"type": "error", "error": {"type": "x"}}]),
        ),
        end=st.sampled_from(["\n\n"] * 6 + ["\r\n\r\n", "\r\r", "\n"]),
    ),
    st.sampled_from([b": comment\n\n", b"\n", b"\r\n"]),
)
_BEGIN = {
    "translated": _data(_openai({"content": "One"}), is_ascii=True, end="\n\n") * 2,
    "direct": _anthropic({"type": "message_start", "message": {"usage": {"input_tokens": 3}}}, end="\n\n"),
}


def _runs(frames: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Runs of one frame, as servers send them, interrupted by others."""
    runs = st.lists(st.tuples(frames, st.integers(1, 4)), max_size=10)
    return runs.map(lambda found: [frame for frame, times in found for _ in range(times)])


_streams = st.one_of(
    st.tuples(st.just("translated"), _runs(_openai_frames)),
    st.tuples(st.just("direct"), _runs(_anthropic_frames)),
)


@given(
    stream=_streams,
    sizes=st.lists(st.sampled_from([1, 1, 1, 1, 2, 3]), max_size=20),
    cuts=st.lists(st.integers(0, 4000), max_size=4),
    turns=st.lists(st.integers(0, 3), max_size=20),
    writable_counts=st.lists(st.integers(0, 6), max_size=4),
    keeps_bodies=st.booleans(),
)
@settings(max_examples=examples(300), deadline=None)
def test_callback_and_task_forward_the_same(
    stream: tuple[str, list[bytes]],
    sizes: list[int],
    cuts: list[int],
    turns: list[int],
    writable_counts: list[int],
    keeps_bodies: bool,
) -> None:
    mode, frames = stream
    left, chunks, start = iter(sizes), [_chunked(_BEGIN[mode])], 0
    while start < len(frames):
        count = next(left, 1)
        chunks.append(_chunked(b"".join(frames[start : start + count])))
        start += count
    chunks.append(b"0\r\n\r\n")
    # Mostly one HTTP chunk a read; some are cut, and where they are, joined with what is next.
    edges = {0, *itertools.accumulate(map(len, chunks))}
    whole = b"".join(chunks)
    edges ^= {cut % len(whole) for cut in cuts} - {0}
    edges.add(len(whole))
    reads = [whole[one:other] for one, other in itertools.pairwise(sorted(edges))]

    async def play(*, is_within_callback: bool) -> tuple[object, ...]:
        call = _Call(mode, _Client(list(writable_counts)), keeps_bodies=keeps_bodies)
        await asyncio.sleep(0)
        pauses = iter(turns)
        wait = UpstreamReader.wait
        by_task = wait if is_within_callback else lambda self, on_arrival=None: wait(self)
        with mock.patch.object(UpstreamReader, "wait", by_task):
            for read in reads:
                if call.reader.done():
                    break
                call.protocol.data_received(read)
                for _ in range(next(pauses, 3)):
                    await asyncio.sleep(0)
            return await call.seen()

    assert asyncio.run(play(is_within_callback=True)) == asyncio.run(play(is_within_callback=False))


def _frame(mode: str, text: str) -> bytes:
    if mode == "translated":
        return _data(_openai({"content": text}), is_ascii=False, end="\n\n")
    delta = {"type": "text_delta", "text": text}
    return _anthropic({"type": "content_block_delta", "index": 0, "delta": delta}, end="\n\n")


async def _flowing(mode: str, client: _Client | None = None) -> _Call:
    """A call whose chunks are forwarded within the transport's callback."""
    call = _Call(mode, client or _Client())
    await asyncio.sleep(0)
    call.protocol.data_received(_chunked(_BEGIN[mode]))
    for _ in range(3):
        await asyncio.sleep(0)
    call.protocol.data_received(_chunked(_frame(mode, " two")))
    return call


@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_chunk_is_written_within_data_received(mode: str) -> None:
    call = await _flowing(mode)
    for text in (" three", ' "four"\n', " fünf"):
        before = len(call.client.written), call.record.codec_s
        call.protocol.data_received(_chunked(_frame(mode, text)))
        assert len(call.client.written) == before[0] + 1
        assert json.dumps(text, ensure_ascii=False).encode() in call.client.written[-1]
        assert call.record.codec_s > before[1]
        assert call.pump.state is State.STREAMING
    call.reader.cancel()


@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_nothing_is_read_while_the_client_does_not_read(mode: str) -> None:
    client = _Client([2, 100])  # the beginning, one write, and one that it does not take
    call = await _flowing(mode, client)
    may_go_on = asyncio.Event()
    assert call.pump.state is State.STREAMING
    with mock.patch.object(_Client, "drained", side_effect=may_go_on.wait):
        call.protocol.data_received(_chunked(_frame(mode, " three")))
        assert call.pump.state is State.PAUSED
        before = len(client.written)
        for _ in range(3):
            call.protocol.data_received(_chunked(_frame(mode, " four")))
            await asyncio.sleep(0)
        assert (len(client.written), call.response.has_more) == (before, True)
        client.is_writable = True
        may_go_on.set()
        for _ in range(5):
            await asyncio.sleep(0)
    assert client.written[-1].count(b" four") == 3
    assert call.pump.state is State.STREAMING
    call.reader.cancel()


@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_exception_within_the_callback_is_raised_in_the_task(mode: str) -> None:
    call = await _flowing(mode)
    with mock.patch.object(_Client, "write", side_effect=RuntimeError("a bug of ours")):
        call.protocol.data_received(_chunked(_frame(mode, " three")))
    with pytest.raises(RuntimeError, match="a bug of ours"):
        await asyncio.wait_for(call.reader, 30)


@pytest.mark.parametrize("mode", ["translated", "direct"])
async def test_chunks_within_the_callback_postpone_the_idle_timeout(mode: str) -> None:
    call = await _flowing(mode)
    for count in range(6):  # the timeout is a second
        await asyncio.sleep(0.25)
        call.protocol.data_received(_chunked(_frame(mode, f" {count}")))
    assert not call.reader.done()
    assert await asyncio.wait_for(call.reader, 30) == (State.FAILED, "http://upstream was silent for 1 s")
    assert b"was silent for 1 s" in call.pump.last


async def test_pings_stop_with_the_last_event_of_a_direct_stream() -> None:
    call = await _flowing("direct")
    assert call.client.has_pings
    call.protocol.data_received(_chunked(_anthropic({"type": "message_stop"}, end="\n\n")))
    assert not call.client.has_pings
    assert call.pump.has_sent_last_event
    call.protocol.data_received(b"0\r\n\r\n")
    assert (await call.seen())[1] == (State.ENDING, "None")
