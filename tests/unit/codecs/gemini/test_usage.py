"""Usage of the Gemini API beyond the transcripts."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.gemini.usage import usage_from_gemini


@pytest.mark.parametrize(
    "usage", [None, [], "x", {}, {"totalTokenCount": 5}, {"promptTokenCount": -1}, {"promptTokenCount": True}]
)
def test_what_has_no_counts(usage: Any) -> None:
    assert usage_from_gemini(usage) is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"promptTokenCount": 10}, (10, 0, 0, None)),
        ({"candidatesTokenCount": 4}, (0, 0, 4, None)),
        ({"promptTokenCount": 10, "cachedContentTokenCount": 30}, (0, 10, 0, None)),
        (
            {"promptTokenCount": 10, "cachedContentTokenCount": 4, "toolUsePromptTokenCount": 3},
            (9, 4, 0, None),
        ),
        ({"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 6}, (10, 0, 10, 6)),
        (
            {
                "promptTokenCount": 10,
                "candidatesTokenCount": 4,
                "thoughtsTokenCount": 6,
                "totalTokenCount": 20,
            },
            (10, 0, 10, 6),
        ),
        (
            {
                "promptTokenCount": 10,
                "candidatesTokenCount": 9,
                "thoughtsTokenCount": 6,
                "totalTokenCount": 19,
            },
            (10, 0, 9, 6),
        ),
        ({"promptTokenCount": 10, "thoughtsTokenCount": 6, "totalTokenCount": 20}, (10, 0, 10, 6)),
        ({"promptTokenCount": 10, "candidatesTokenCount": None, "totalTokenCount": 4}, (10, 0, 0, None)),
        ({"promptTokenCount": 1.5, "candidatesTokenCount": "7"}, (0, 0, 7, None)),
    ],
)
def test_counts(usage: dict[str, Any], expected: tuple[int, int, int, int | None]) -> None:
    read = usage_from_gemini(usage)
    assert read is not None
    assert (read.input_tokens, read.cache_read_tokens, read.output_tokens, read.reasoning_tokens) == expected
