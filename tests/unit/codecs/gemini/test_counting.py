"""Requests and responses of ``countTokens``."""

from __future__ import annotations

import pytest

from proxyd.codecs.gemini.counting import counted_tokens, counting_body

BODY = {
    "systemInstruction": {"parts": [{"text": "s"}]},
    "tools": [{"functionDeclarations": []}],
    "toolConfig": {},
    "generationConfig": {"maxOutputTokens": 5},
    "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
}
COUNTED = {name: BODY[name] for name in ("systemInstruction", "tools", "contents")}


def test_only_what_is_input_is_counted() -> None:
    assert counting_body("models/gemini-3", BODY) == {
        "generateContentRequest": {"model": "models/gemini-3", **COUNTED}
    }
    assert counting_body("publishers/google/models/gemini-3", BODY) == COUNTED


@pytest.mark.parametrize(
    ("response", "tokens"),
    [
        (b'{"totalTokens":31,"promptTokensDetails":[]}', 31),
        (b'{"totalTokens":0}', None),
        (b'{"totalTokens":true}', None),
        (b'{"totalTokens":"31"}', None),
        (b'{"error":{}}', None),
        (b"[31]", None),
        (b"", None),
    ],
)
def test_the_number_is_taken_from_a_response(response: bytes, tokens: int | None) -> None:
    assert counted_tokens(response) == tokens
