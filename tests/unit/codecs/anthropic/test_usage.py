"""Token usage of each dialect."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.usage import Usage, usage_from_anthropic, usage_from_openai


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 2}, Usage(10, 2)),
        ({"input_tokens": 10, "output_tokens": 2}, Usage(10, 2)),
        ({"completion_tokens": 2}, Usage(0, 2)),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}},
            Usage(2, 2, 8),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_hit_tokens": 8}, Usage(2, 2, 8)),
        ({"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 8}, Usage(2, 2, 8)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 5},
            },
            Usage(2, 2, 3, 5),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 500}, Usage(10, 2, 500)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 9,
                "total_tokens": 19,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            Usage(10, 9, reasoning_tokens=7),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 9,
                "total_tokens": 26,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            Usage(10, 16, reasoning_tokens=7),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "reasoning_tokens": 7},
            Usage(10, 2, reasoning_tokens=2),  # a part cannot be more than the whole
        ),
        ({"prompt_tokens": True, "completion_tokens": "2"}, None),
        ({"prompt_tokens": -1, "completion_tokens": float("nan")}, None),
        ({"prompt_tokens": 10.0, "completion_tokens": 2.0}, Usage(10, 2)),
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": "many"}, Usage(10, 2)),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_usage_from_openai(reported: Any, expected: Usage | None) -> None:
    assert usage_from_openai(reported) == expected


def test_usage_for_the_client() -> None:
    assert Usage(2, 9, 3, 5, reasoning_tokens=7).to_anthropic() == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 3,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 7},
    }
    assert "output_tokens_details" not in Usage(2, 9).to_anthropic()
    assert Usage(2, 9, 3, 5).total_input_tokens == 10


def test_anthropic_totals_replace_the_fields_they_name() -> None:
    start = usage_from_anthropic({"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": 3})
    assert start == Usage(7, 1, 3)
    later = {"output_tokens": 20, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 4}}
    assert usage_from_anthropic(later, start) == Usage(7, 20, 3, reasoning_tokens=4)
    assert usage_from_anthropic("nothing", start) == start
