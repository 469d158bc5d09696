"""Refusals of a `max_tokens` that is too small."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxyd.codecs.upstream_errors.output_minimum import is_too_few_tokens

UNFINISHED = (
    "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher "
    "max_tokens."
)
BELOW = "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead."


def body(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", **more}}).encode()


@pytest.mark.parametrize(
    "refusal",
    [
        body(UNFINISHED),
        body(BELOW, param="max_output_tokens", code="integer_below_min_value"),
        body("max_tokens must be at least 16"),
        body("max_completion_tokens must be greater than 1"),
        # OpenRouter's form of an upstream's error.
        body("Provider returned error", code=400, metadata={"raw": body(BELOW).decode()}),
    ],
)
def test_wordings(refusal: bytes) -> None:
    assert is_too_few_tokens(400, refusal, 1)
    assert is_too_few_tokens(422, refusal, 16)


@pytest.mark.parametrize(
    ("status", "refusal", "max_tokens"),
    [
        (500, body(UNFINISHED), 1),
        (400, body(UNFINISHED), 32_000),
        (400, body(UNFINISHED), None),
        (400, body(UNFINISHED), True),
        (400, body("max_tokens is too large: 1"), 1),
        (400, body("Unsupported parameter: 'max_tokens' is not supported with this model."), 1),
        (400, body("top_k must be at least 1"), 1),
        (400, b"", 1),
        (400, b"<html>", 1),
    ],
)
def test_other_refusals(status: int, refusal: bytes, max_tokens: object) -> None:
    assert not is_too_few_tokens(status, refusal, max_tokens)
