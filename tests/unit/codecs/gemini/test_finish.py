"""Every reason that Google's SDK lists has a meaning."""

from __future__ import annotations

import pytest
from google.genai import types

from proxyd.codecs.gemini.finish import FAILED, REASONS, failure_of, refusal_details, stop_reason_of
from proxyd.errors import error_response


def test_every_finish_reason_of_the_sdk_is_in_the_table() -> None:
    assert {each.value for each in types.FinishReason} - {"FINISH_REASON_UNSPECIFIED"} <= set(REASONS)


@pytest.mark.parametrize("reason", [None, 3, [], "", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED"])
def test_what_is_no_reason(reason: object) -> None:
    assert stop_reason_of(reason) is None


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("STOP", "end_turn"),
        ("stop", "end_turn"),
        ("Max-Tokens", "max_tokens"),
        ("FINISH_REASON_SAFETY", "refusal"),
        ("NEW_POLICY_FILTER", "refusal"),
        ("NEW_LENGTH_LIMIT", "max_tokens"),
        ("NEW_BACKEND_ERROR", FAILED),
        ("SOMETHING", "end_turn"),
    ],
)
def test_meaning(reason: str, meaning: str) -> None:
    assert stop_reason_of(reason) == meaning


def test_texts_show_names_of_reasons_alone() -> None:
    failure = failure_of("MALFORMED_FUNCTION_CALL")
    assert error_response(failure) == (500, "api_error")
    assert "MALFORMED_FUNCTION_CALL" in failure.message
    assert "secret" not in failure_of("a secret /path").message
    assert len(str(refusal_details("prompt", "SAFETY", "w" * 9000)["explanation"])) < 600
