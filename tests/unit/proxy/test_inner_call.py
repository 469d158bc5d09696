"""The response of a call of the proxy's own: bounded, and a message or an error."""

from __future__ import annotations

import asyncio

import pytest

from proxyd.codecs.anthropic.events import TextDelta, encode_event
from proxyd.errors import BadReply
from proxyd.proxy.inner_call import MAX_BYTES, BodyWriter, EventWriter, InnerRequest, VerdictWatch


async def test_a_message_is_collected_from_its_writes() -> None:
    writer, sent = BodyWriter(), list[bytes]()
    writer.on_sent = sent.append
    writer.set_head(200, (), is_stream=False)
    writer.write(b'{"content":')
    await writer.finish(b"[]}")
    assert writer.message() == {"content": []}
    assert b"".join(sent) == b'{"content":[]}'
    assert writer.is_committed
    assert writer.is_writable


@pytest.mark.parametrize("body", [b"", b"text", b"[]", b'{"content":1}', b'{"type":"error"}'])
async def test_anything_else_is_no_message(body: bytes) -> None:
    writer = BodyWriter()
    await writer.finish(body)
    with pytest.raises(BadReply, match="no message"):
        writer.message()


async def test_a_large_response_is_refused() -> None:
    writer = BodyWriter()
    writer.write(b"x" * MAX_BYTES)
    with pytest.raises(BadReply, match="larger than 1 MiB"):
        writer.write(b"x")


def test_the_request_has_a_path_and_headers() -> None:
    request = InnerRequest({"Content-Type": "application/json"})
    assert request.headers["content-type"] == "application/json"
    assert request.raw_path == "/v1/messages"
    assert request.get("anything") is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (('{"verdicts"', ":[]}"), False),
        (('{"verdicts":[]}', "\n```"), False),
        (('{"verdicts":[]}', " and here is why I think so"), True),
        (("I would say", " that"), True),
        (("",), False),
    ],
)
def test_the_rest_of_a_response_is_not_needed_after_the_object(
    texts: tuple[str, ...], expected: bool
) -> None:
    watch = VerdictWatch()
    assert [watch(encode_event(TextDelta(0, text))) for text in texts][-1] is expected


def frame(text: str) -> bytes:
    return encode_event(TextDelta(0, text))


async def test_events_are_given_as_they_arrive_and_none_at_the_end() -> None:
    writer = EventWriter()
    taking = asyncio.create_task(writer.take())
    await asyncio.sleep(0)
    writer.write(frame("a") + frame("b"))
    assert await taking == [TextDelta(0, "a"), TextDelta(0, "b")]
    await writer.finish(frame("c"))
    writer.close()
    assert await writer.take() == [TextDelta(0, "c")]
    assert await writer.take() is None
    assert await writer.take() is None


async def test_waiting_for_events_has_a_timeout() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await EventWriter().take(0.01)


async def test_reading_from_the_upstream_pauses_until_events_are_taken() -> None:
    writer = EventWriter()
    while writer.is_writable:
        writer.write(frame("x"))
    waiting = asyncio.create_task(writer.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(await writer.take() or ()) > 100
    await asyncio.wait_for(waiting, 30)
