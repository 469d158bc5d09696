"""Finish reasons: the tables, unknown values by their words, and what a reason says of a call without its end."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.openai.finish_reason import FAILURES, STOP_REASONS, FinishReason, normalized
from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.errors import ProxyError, Refused, UpstreamError, UpstreamOverloaded


def after(
    *reasons: str, choice: Any = None, sequences: tuple[str, ...] = ()
) -> tuple[FinishReason, list[str]]:
    """The state after these finish reasons, and the warnings."""
    warnings: list[str] = []
    finish = FinishReason()
    for reason in reasons:
        finish.add(
            reason,
            choice or {},
            {},
            stop_sequences=sequences,
            errors=ErrorContext(),
            warn=warnings.append,
        )
    return finish, warnings


def stop_reason(*reasons: str, has_calls: bool = False) -> tuple[str, bool]:
    """The stop reason, and whether a reason was unknown."""
    finish, warnings = after(*reasons)
    delta = finish.message_delta(has_calls=has_calls, has_cut_call=False, stop_sequences=())
    return delta["stop_reason"], bool(warnings)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "end_turn"),
        ("STOP", "end_turn"),
        ("MAX_TOKENS", "max_tokens"),
        ("FINISH_REASON_MAX_TOKENS", "max_tokens"),
        ("REASON_MAX_LEN", "max_tokens"),
        ("content-filter", "refusal"),
        ("PROHIBITED_CONTENT", "refusal"),
        ("model_context_window_exceeded", "model_context_window_exceeded"),
    ],
)
def test_known_reasons(reason: str, expected: str) -> None:
    assert stop_reason(reason) == (expected, False)
    assert stop_reason(reason, has_calls=True)[0] == ("tool_use" if expected == "end_turn" else expected)


@pytest.mark.parametrize("reason", [*FAILURES, "MALFORMED_FUNCTION_CALL", "Network-Error"])
def test_known_failures_are_raised(reason: str) -> None:
    with pytest.raises(FAILURES[normalized(reason)], match=f"finish_reason {normalized(reason)}"):
        after(reason)
    assert stop_reason("stop", reason) == ("end_turn", False)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("moonrise", "end_turn"),
        ("other", "end_turn"),
        ("output_limit", "max_tokens"),
        ("MAX_STEPS", "max_tokens"),
        ("truncated", "max_tokens"),
        ("hate_filter", "refusal"),
        ("moderation", "refusal"),
        ("context_full", "model_context_window_exceeded"),
    ],
)
def test_unknown_reasons_are_read_by_their_words(reason: str, expected: str) -> None:
    assert stop_reason(reason) == (expected, True)


@pytest.mark.parametrize(
    "reason",
    [
        "engine_error",
        "FAILED_GENERATION",
        "malformed_json",
        "request_aborted",
        "gateway_timeout",
        "rate_limit",
        "worker lost",
    ],
)
def test_unknown_failures_are_raised(reason: str) -> None:
    with pytest.raises(UpstreamError):
        after(reason)


def test_failure_with_an_error_beside_it_uses_its_text() -> None:
    with pytest.raises(Refused, match="engine crashed"):
        after("error", choice={"error": {"message": "engine crashed", "code": 500}})
    with pytest.raises(UpstreamOverloaded):
        after("insufficient_system_resource")


def test_odd_text_of_a_failure_is_not_shown() -> None:
    with pytest.raises(ProxyError) as caught:
        after("error: the prompt was <secret>")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("reason", ["", "null", "None", "not_finished", "FINISH_REASON_UNSPECIFIED"])
def test_values_that_are_no_reason(reason: str) -> None:
    finish, warnings = after(reason)
    assert (finish.is_known, warnings) == (False, [])


def test_tables_are_normalized_and_disjoint() -> None:
    assert not STOP_REASONS.keys() & FAILURES.keys()
    assert all(normalized(reason) == reason for reason in (*STOP_REASONS, *FAILURES))


@pytest.mark.parametrize(
    ("reason", "choice", "sequences", "expected"),
    [
        ("stop", {"stop_reason": "END"}, ("END", "X"), ("stop_sequence", "END")),
        ("stop", {"matched_stop": 2}, ("END",), ("stop_sequence", "END")),
        ("stop", {}, ("END", "X"), ("stop_sequence", None)),
        ("stop", {}, (), ("tool_use", None)),
        ("tool_calls", {}, ("END",), ("tool_use", None)),
        ("length", {}, (), ("max_tokens", None)),
    ],
)
def test_stop_reason_of_a_cut_call(
    reason: str, choice: dict[str, Any], sequences: tuple[str, ...], expected: tuple[str, str | None]
) -> None:
    finish, _ = after(reason, choice=choice, sequences=sequences)
    delta = finish.message_delta(has_calls=True, has_cut_call=True, stop_sequences=sequences)
    assert (delta["stop_reason"], delta["stop_sequence"]) == expected
