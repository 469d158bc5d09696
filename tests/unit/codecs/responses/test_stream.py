"""The stream transcripts of the Responses API: whole, cut at each byte and at random; and what no transcript shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd import jsonio
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.formats import RESPONSES
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.responses.stream import ResponsesStream
from proxyd.codecs.translation.dialect import Dialect
from proxyd.errors import ProxyError
from proxyd.providers.registry import PROFILES
from tests.support import goldens_streams as goldens
from tests.support import transcript_checks as checks
from tests.support.rows import check_rows
from tests.support.sse_reader import message_of

CASES = goldens.cases(RESPONSES)
STREAMS = [name for name in CASES if goldens.expected(name).refusal is None]
#: The profiles that are known to offer the API, and any other server.
OFFERING = {profile.name for profile in PROFILES.values() if RESPONSES.name in profile.formats} | {"generic"}


@pytest.mark.parametrize("name", CASES)
def test_transcript(name: str) -> None:
    """Whole, cut at each byte and at random places."""
    checks.check_whole(name)
    checks.check_byte_by_byte(name)
    checks.check_random_splits(name)


def test_expectations_are_legal() -> None:
    check_rows(STREAMS, checks.check_expectation_is_legal)


def test_every_profile_has_transcripts_that_are_explained() -> None:
    assert {name.split("/")[1] for name in CASES} == OFFERING
    assert len(CASES) >= 100
    for profile in OFFERING:
        folder = f"responses/{profile}"
        checks.check_readme(goldens.ROOT / folder, [name for name in CASES if name.startswith(f"{folder}/")])


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def new_decoder(warnings: list[str] | None = None, **context: Any) -> ResponseDecoder:
    numbers = iter(range(1, 10_000))
    codec = ResponsesStream(
        ResponseContext(model="m", upstream_model="up", **context),
        Dialect(),
        lambda prefix: f"{prefix}{next(numbers)}",
        ([] if warnings is None else warnings).append,
    )
    return ResponseDecoder(codec, max_body_bytes=1 << 24)


ADDED = event("response.output_item.added", output_index=0, item={"type": "message", "content": []})
DELTA = event("response.output_text.delta", output_index=0, delta="Hi")
END = event("response.completed", response={"status": "completed"})


def test_nothing_is_promised_before_there_is_content() -> None:
    decoder = new_decoder()
    announced = event("response.created", response={}) + event("response.in_progress", response={}) + ADDED
    assert decoder.feed(announced) == b""
    assert not decoder.has_started
    assert b"message_start" in decoder.feed(DELTA)


def test_each_event_leaves_when_its_bytes_are_complete() -> None:
    decoder = new_decoder()
    decoder.feed(ADDED)
    assert decoder.feed(DELTA[:-1]) == b""
    assert b'"text":"Hi"' in decoder.feed(DELTA[-1:])
    assert b"message_stop" in decoder.feed(END)
    assert decoder.close() == b""


def test_after_a_stop_sequence_nothing_is_read() -> None:
    decoder = new_decoder(stop_sequences=("END",))
    out = decoder.feed(
        ADDED + event("response.output_text.delta", output_index=0, delta="a END b") + b"junk\n\n"
    )
    message = message_of(out)
    assert decoder.has_ended
    assert message["content"] == [{"type": "text", "text": "a "}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


def test_an_item_that_never_ends_does_not_hold_back_the_next_one() -> None:
    decoder = new_decoder()
    decoder.feed(ADDED + DELTA)
    second = event("response.output_text.delta", output_index=1, delta="Next")
    assert b'"text":"Next"' in decoder.feed(second)


def test_a_hundred_items() -> None:
    items = [
        {
            "type": "function_call",
            "call_id": f"call_{number}",
            "name": "Read",
            "arguments": f'{{"n":{number}}}',
        }
        for number in range(100)
    ]
    stream = b"".join(
        event("response.output_item.done", output_index=number, item=item)
        for number, item in enumerate(items)
    )
    message = message_of(new_decoder().feed(stream + END))
    assert [json.loads(block["input"]) for block in message["content"]] == [{"n": n} for n in range(100)]


def test_an_encrypted_content_of_a_megabyte_comes_back_whole() -> None:
    content = "gAAA" * (1 << 18)
    item = {"type": "reasoning", "summary": [], "encrypted_content": content}
    message = message_of(
        new_decoder().feed(event("response.output_item.done", output_index=0, item=item) + DELTA + END)
    )
    assert message["content"][0]["type"] == "redacted_thinking"
    assert len(message["content"][0]["data"]) > len(content)


@pytest.mark.parametrize(
    "line",
    [
        b"data: []\n\n",
        b"data: 1\n\n",
        b'data: "text"\n\n',
        b"data: nonsense\n\n",
        b'data: {"type":"response.output_text.delta"\n\n',
        b'data: {"error":"broken"}\n\n',
        b'data: {"detail":"no such model"}\n\n',
        b"event: error\n\n",
    ],
)
def test_what_is_no_event_fails_the_response_with_an_error(line: bytes) -> None:
    decoder = new_decoder()
    with pytest.raises(ProxyError):  # noqa: PT012
        decoder.feed(line)
        decoder.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"output_index": None},
        {"output_index": "0"},
        {"item_id": 7},
        {"content_index": []},
        {"delta": None},
        {"delta": {"a": 1}},
        {"delta": 5},
    ],
)
def test_fields_of_a_wrong_type_fail_nothing(fields: dict[str, Any]) -> None:
    decoder = new_decoder()
    odd = event("response.output_text.delta", **{"output_index": 0, "delta": "Hi", **fields})
    out = decoder.feed(ADDED + odd + END)
    assert decoder.has_ended
    assert b"message_stop" in out


def test_repeated_events_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser sees the first event of a text and no other, as long as only text and number change."""
    parsed = []
    loads = jsonio.loads
    monkeypatch.setattr(jsonio, "loads", lambda data: parsed.append(data) or loads(data))
    numbered = [
        event("response.output_text.delta", sequence_number=number, output_index=0, delta=f"part {number} ")
        for number in range(9, 120)
    ]
    out = b"".join(map(new_decoder().feed, [ADDED, *numbered]))
    assert out.count(b"text_delta") == len(numbered)
    assert len(parsed) == 3  # the item, the first delta, and its text alone
