"""The wire form: what asks for the check, and the summary of results."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.server_tools.auto_mode.safeguards import (
    SKIPPED,
    UNSUPPORTED,
    available,
    classifier_context,
    evaluated,
    no_verdict,
    summary_of,
    unavailable,
)


@pytest.mark.parametrize(
    ("safeguards", "expected"),
    [
        ([{"type": "dangerous_tool_use", "classifier_context": {"v": 1}}], {"v": 1}),
        ([{"type": "other"}, {"type": "dangerous_tool_use"}], {}),
        ([{"type": "dangerous_tool_use", "classifier_context": "x"}], {}),
        ([{"type": "other"}], None),
        ([], None),
        (None, None),
        ("dangerous_tool_use", None),
        (["dangerous_tool_use"], None),
    ],
)
def test_a_request_asks_for_the_check(safeguards: Any, expected: Any) -> None:
    assert classifier_context({"safeguards": safeguards}) == expected


def test_the_forms_of_results() -> None:
    verdicts = {"a": evaluated(is_flagged=True, explanation="x" * 900), "b": evaluated(is_flagged=False)}
    (entry,) = available(verdicts)
    assert entry["type"] == "dangerous_tool_use"
    assert entry["status"]["tool_uses"]["b"] == {"type": "evaluated", "outcome": "not_flagged"}
    assert len(entry["status"]["tool_uses"]["a"]["explanation"]) == 500


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (UNSUPPORTED, "unsupported"),
        (unavailable("rate_limited"), "unavailable: rate_limited"),
        (available({}), ""),
        (
            available(
                {
                    "a": evaluated(is_flagged=False),
                    "b": evaluated(is_flagged=False),
                    "c": evaluated(is_flagged=True),
                    "d": SKIPPED,
                    "e": no_verdict("timeout"),
                }
            ),
            "2 allowed, 1 blocked, 1 not checked, 1 without verdict (timeout)",
        ),
        (None, ""),
        ([{"type": "other"}], ""),
        ([{"type": "dangerous_tool_use", "status": 3}], ""),
        (
            [{"type": "dangerous_tool_use", "status": {"type": "available", "tool_uses": {"a": 1}}}],
            "1 unreadable",
        ),
    ],
)
def test_results_in_a_few_words(results: Any, expected: str) -> None:
    assert summary_of(results) == expected
