"""The stream transcripts of the Gemini API: whole, cut at each byte and at random; and what no transcript shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import decode_signature
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.formats import GEMINI
from proxyd.codecs.gemini.stream import GeminiStream
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from proxyd.errors import ProxyError, Refused, Truncated
from proxyd.providers.registry import PROFILES
from proxyd.proxy.retries import delay_before_retry
from tests.support import goldens_streams as goldens
from tests.support import transcript_checks as checks
from tests.support.rows import check_rows
from tests.support.sse_reader import message_of

CASES = goldens.cases(GEMINI)
STREAMS = [name for name in CASES if goldens.expected(name).refusal is None]
#: The profiles that are known to offer the API, and any other server.
OFFERING = {profile.name for profile in PROFILES.values() if GEMINI.name in profile.formats} | {"generic"}


@pytest.mark.parametrize("name", CASES)
def test_transcript(name: str) -> None:
    """Whole, cut at each byte and at random places."""
    checks.check_whole(name)
    checks.check_byte_by_byte(name)
    checks.check_random_splits(name)
    checks.check_every_offset(name)


def test_expectations_are_legal() -> None:
    check_rows(STREAMS, checks.check_expectation_is_legal)


def test_every_profile_has_transcripts_that_are_explained() -> None:
    assert {name.split("/")[1] for name in CASES} == OFFERING
    assert len(CASES) >= 100
    for profile in OFFERING:
        folder = f"{GEMINI.folder}/{profile}"
        checks.check_readme(goldens.ROOT / folder, [name for name in CASES if name.startswith(f"{folder}/")])


def chunk(*parts: Any, finish: str | None = None) -> bytes:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return f"data: {json.dumps({'candidates': [candidate]})}\r\n\r\n".encode()


def new_decoder(warnings: list[str] | None = None, **context: Any) -> ResponseDecoder:
    numbers = iter(range(1, 10_000))
    codec = GeminiStream(
        ResponseContext(model="m", upstream_model="up", **context),
        Dialect(),
        lambda prefix: f"{prefix}{next(numbers)}",
        ([] if warnings is None else warnings).append,
    )
    return ResponseDecoder(codec, max_body_bytes=1 << 24)


def play(decoder: ResponseDecoder, *chunks: bytes) -> dict[str, Any]:
    return message_of(b"".join([*map(decoder.feed, chunks), decoder.close()]))


END = chunk(finish="STOP")


def test_nothing_is_promised_before_there_is_content() -> None:
    decoder = new_decoder()
    assert decoder.feed(b'data: {"usageMetadata": {"promptTokenCount": 3}}\r\n\r\n') == b""
    assert decoder.feed(chunk({"text": ""})) == b""
    assert not decoder.has_started
    assert b"message_start" in decoder.feed(chunk({"text": "Hi"}))


def test_each_event_leaves_when_its_bytes_are_complete() -> None:
    decoder, data = new_decoder(), chunk({"text": "Hi"})
    assert decoder.feed(data[:-2]) == b""
    assert b'"text":"Hi"' in decoder.feed(data[-2:-1]), "CR alone ends a line, too"
    assert decoder.feed(data[-1:]) == b""
    decoder.feed(END)
    assert decoder.has_finish
    assert not decoder.has_ended, "more parts may follow the finish reason"
    assert b"message_stop" in decoder.close()


def test_parts_behind_the_finish_reason_count() -> None:
    message = play(new_decoder(), chunk({"text": "a"}, finish="STOP"), chunk({"text": "b"}))
    assert message["content"] == [{"type": "text", "text": "ab"}]


def test_an_empty_response_is_retried_once() -> None:
    with pytest.raises(Refused) as failure:
        play(new_decoder(retries_empty=True), END)
    assert failure.value.status == 500
    assert delay_before_retry(failure.value, 0, is_direct=False) is not None
    message = play(new_decoder(), END)
    assert (message["content"], message["stop_reason"]) == ([], "end_turn")


def test_an_empty_response_behind_an_early_start_is_an_empty_message() -> None:
    decoder = new_decoder(retries_empty=True)
    data = decoder.start() + decoder.feed(END) + decoder.close()
    assert message_of(data)["stop_reason"] == "end_turn"


@pytest.mark.parametrize("finish", ["MAX_TOKENS", "SAFETY"])
def test_what_is_empty_for_a_reason_is_not_retried(finish: str) -> None:
    message = play(new_decoder(retries_empty=True), chunk(finish=finish))
    assert message["content"] == []
    assert message["stop_reason"] in ("max_tokens", "refusal")


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"])
def test_a_failure_is_retried_while_nothing_was_given_out(reason: str) -> None:
    with pytest.raises(Refused) as failure:
        play(new_decoder(), chunk({"text": "x"}, finish=reason))
    assert delay_before_retry(failure.value, 0, is_direct=False) is not None
    assert not failure.value.body, "no parameter of the request is changed for it"
    decoder = new_decoder()
    begun = decoder.feed(chunk({"text": "x"}))
    assert b"event: error" in begun + decoder.feed(chunk(finish=reason))
    assert decoder.has_ended


def test_a_failure_behind_an_early_start_is_one_error() -> None:
    decoder = new_decoder()
    data = decoder.start() + decoder.feed(chunk(finish="MALFORMED_FUNCTION_CALL")) + decoder.close()
    assert data.count(b"event: error") == 1
    assert b"message_stop" not in data


def test_a_nameless_call_behind_an_early_start_is_one_error() -> None:
    decoder = new_decoder()
    data = (
        decoder.start() + decoder.feed(chunk({"functionCall": {"args": {}}}, finish="STOP")) + decoder.close()
    )
    assert data.count(b"event: error") == 1


def test_after_a_stop_sequence_nothing_is_read() -> None:
    decoder = new_decoder(stop_sequences=("END",))
    out = decoder.feed(chunk({"text": "a END b"}, {"functionCall": {"name": "Read"}}) + b"junk\n\n")
    message = message_of(out)
    assert decoder.has_ended
    assert message["content"] == [{"type": "text", "text": "a "}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


def test_a_hundred_calls_and_texts() -> None:
    parts: list[Any] = []
    for number in range(100):
        call = {"name": "Read", "args": {"n": number}, "id": f"i{number}"}
        parts += [{"text": f"{number}"}, {"functionCall": call}]
    message = play(new_decoder(), chunk(*parts), END)
    assert [json.loads(block["input"]) for block in message["content"] if block["type"] == "tool_use"] == [
        {"n": number} for number in range(100)
    ]
    assert len(message["content"]) == 200


@pytest.mark.parametrize("part", [{"functionCall": {"name": "Read", "id": "i"}}, {"text": "Hi"}])
def test_a_signature_of_a_megabyte_comes_back_whole(part: dict[str, Any]) -> None:
    data = "EqQB" * (1 << 18)
    message = play(new_decoder(), chunk({**part, "thoughtSignature": data}), END)
    signature = decode_signature(message["content"][0]["signature"])
    assert signature is not None
    assert data in (signature.tool_signatures.get("i"), signature.part_signatures.get("text"))


def test_warnings_name_what_was_dropped() -> None:
    warnings: list[str] = []
    play(
        new_decoder(warnings),
        chunk({"text": "a"}, {"text": "b", "thoughtSignature": "s"}, "part", {"new": 1}),
        chunk({"functionCall": {}}, {"text": "t", "thought": True}),
        END,
    )
    assert warnings == [
        "stream.text_signature_dropped",
        "stream.part_not_an_object",
        "stream.unknown_part",
        "stream.tool_call_without_name",
        "stream.reasoning_after_text",
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"data: []\n\n",
        b"data: 1\n\n",
        b'data: "text"\n\n',
        b"data: nonsense\n\n",
        b'data: {"candidates"\n\n',
        b'data: {"error":"broken"}\n\n',
        b'data: [{"error":{"message":"broken"}}]\n\n',
        b'data: {"detail":"no such model"}\n\n',
        b"event: error\n\n",
    ],
)
def test_what_is_no_chunk_fails_before_and_within_a_message(line: bytes) -> None:
    with pytest.raises(ProxyError):
        play(new_decoder(), line)
    decoder = new_decoder()
    data = decoder.feed(chunk({"text": "Hi"})) + decoder.feed(line)
    if not decoder.has_ended:
        data += decoder.close()
    assert data.count(b"event: error") == 1
    assert b"message_stop" not in data


@pytest.mark.parametrize("body", [{}, {"output": []}, [], [1], [{"x": 1}], {"choices": []}])
def test_a_body_that_is_no_response(body: Any) -> None:
    decoder = new_decoder()
    decoder.feed(jsonio.dumps(body))
    with pytest.raises(ProxyError):
        decoder.close()


def test_a_stream_without_finish_reason_is_cut() -> None:
    with pytest.raises(Truncated):
        play(new_decoder(), b'data: {"usageMetadata": {"promptTokenCount": 3}}\n\n')


def test_the_usage_is_known_while_the_stream_runs() -> None:
    decoder = new_decoder()
    decoder.feed(
        b'data: {"candidates":[{"content":{"parts":[{"text":"Hi"}]}}],'
        b'"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"candidatesTokenCount":2}}\n\n'
    )
    usage = decoder.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (10, 20, 2)
    assert not usage.is_estimated
