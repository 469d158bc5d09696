"""Names of models that upstreams report: in each protocol, and what is taken for none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from proxyd.codecs.anthropic.opaque_body import OpaqueBody
from proxyd.codecs.anthropic.passthrough import PassthroughStream
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.decoder import Decoder
from proxyd.codecs.formats import FORMATS
from proxyd.codecs.model_name import model_name
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from tests.support.rows import check_rows

NAME = "vendor/Model-4.1:free"
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
MESSAGE = {
    "type": "message",
    "role": "assistant",
    "model": NAME,
    "content": [],
    "usage": {"output_tokens": 1},
}
COMPLETION = {
    "model": NAME,
    "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
CHUNK = {
    **COMPLETION,
    "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}],
}
RESPONSE = {
    "model": NAME,
    "status": "completed",
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
GEMINI = {
    "modelVersion": NAME,
    "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1},
}


def frames(*events: Mapping[str, Any]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (str(each.get("type", "message")).encode(), json.dumps(each).encode())
        for each in events
    )


def translating(name: str) -> Decoder:
    def no_id(prefix: str) -> str:
        return prefix + "1"

    codec = FORMATS[name].codec(ResponseContext("asked"), Dialect(), no_id, lambda _: None)
    return ResponseDecoder(codec, max_body_bytes=1 << 20)


def test_each_protocol() -> None:
    rows: list[tuple[Decoder, bytes]] = [
        (
            PassthroughStream(),
            frames({"type": "message_start", "message": MESSAGE}, {"type": "message_stop"}),
        ),
        (OpaqueBody("application/json"), json.dumps(MESSAGE).encode()),
        (translating("openai-chat"), frames(CHUNK)),
        (translating("openai-chat"), json.dumps(COMPLETION).encode()),
        (translating("openai-responses"), frames({"type": "response.completed", "response": RESPONSE})),
        (translating("openai-responses"), json.dumps(RESPONSE).encode()),
        (translating("gemini"), frames(GEMINI)),
        (translating("gemini"), json.dumps(GEMINI).encode()),
    ]

    def check(row: tuple[Decoder, bytes]) -> None:
        decoder, body = row
        assert decoder.response_model is None
        decoder.feed(body)
        decoder.close()
        assert decoder.response_model == NAME

    check_rows(rows, check)


def test_what_is_no_name() -> None:
    assert model_name("x" * 128) == "x" * 128
    for value in (None, 5, "", "two words", "line\n", "x" * 129, "-dash", {"name": "x"}):
        assert model_name(value) is None
