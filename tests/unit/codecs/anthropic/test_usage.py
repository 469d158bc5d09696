"""Token usage of each dialect."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ({"prompt_tokens": 10, "total_tokens": 12}, Usage(10, 2)),
        ({"completion_tokens": 2, "total_tokens": 12}, Usage(10, 2)),
        ({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 0}, Usage(10, 2)),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 62, "cached_tokens": 50},
            Usage(10, 2, 50),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 40, "cached_tokens": 50},
            Usage(10, 2, 28),
        ),
        ({"prompt_tokens": 10, "total_tokens": 62, "cached_tokens": 50}, Usage(10, 2, 50)),
        ({"prompt_tokens": True, "completion_tokens": "many"}, None),
        ({"prompt_tokens": "10", "completion_tokens": "2"}, Usage(10, 2)),
        ({"promptTokens": 10, "completionTokens": 2, "totalTokens": 12}, Usage(10, 2)),
        (
            {
                "promptTokenCount": 10,
                "candidatesTokenCount": 2,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 15,
                "cachedContentTokenCount": 4,
            },
            Usage(6, 5, 4, reasoning_tokens=3),
        ),
        ({"inputTokens": 6, "outputTokens": 2, "totalTokens": 12, "cacheReadInputTokens": 4}, Usage(6, 2, 4)),
        ({"prompt_eval_count": 10, "eval_count": 2}, Usage(10, 2)),
        ({"prompt_n": 6, "predicted_n": 2, "cache_n": 4, "prompt_ms": 1.5}, Usage(6, 2, 4)),
        ({"prompt_tokens": 10, "completion_tokens": 2, "num_cached_tokens": 4}, Usage(6, 2, 4)),
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


def _openai(i: int, r: int, w: int, o: int) -> dict[str, Any]:
    details = {"cached_tokens": r, "cache_write_tokens": w}
    return {"prompt_tokens": i + r + w, "completion_tokens": o, "prompt_tokens_details": details}


def _portkey(i: int, r: int, w: int, o: int) -> dict[str, Any]:
    cache = {"cache_read_input_tokens": r, "cache_creation_input_tokens": w}
    return {"prompt_tokens": i, "completion_tokens": o, "total_tokens": i + r + w + o, **cache}


def _dashscope(i: int, r: int, w: int, o: int) -> dict[str, Any]:
    details = {
        "cached_tokens": r,
        "cache_creation": {"ephemeral_5m_input_tokens": w},
        "cache_creation_input_tokens": w,
    }
    return {"prompt_tokens": i + r + w, "completion_tokens": o, "prompt_tokens_details": details}


def _litellm(i: int, r: int, w: int, o: int) -> dict[str, Any]:
    details = {"cached_tokens": r, "cache_creation_tokens": w, "text_tokens": i}
    cache = {"cache_read_input_tokens": r, "cache_creation_input_tokens": w}
    return {"prompt_tokens": i + r + w, "completion_tokens": o, "prompt_tokens_details": details, **cache}


def _vllm(i: int, r: int, w: int, o: int) -> dict[str, Any]:
    details = {"cached_tokens": r, "created_cache_tokens": w}
    return {"prompt_tokens": i + r + w, "completion_tokens": o, "prompt_tokens_details": details}


def _anthropic(i: int, r: int, w: int, o: int) -> dict[str, Any]:
    return {
        "input_tokens": i,
        "output_tokens": o,
        "cache_read_input_tokens": r,
        "cache_creation_input_tokens": w,
    }


_counts = st.integers(0, 5000)


@pytest.mark.parametrize("form", [_openai, _portkey, _dashscope, _litellm, _vllm, _anthropic])
@given(_counts, _counts, _counts, _counts, st.booleans())
@settings(deadline=None)
def test_counts_of_each_form_are_read(form: Any, i: int, r: int, w: int, o: int, has_total: bool) -> None:
    usage = form(i, r, w, o)
    if has_total:
        usage["total_tokens"] = i + r + w + o
    assert usage_from_openai(usage) == Usage(i, o, r, w)


@given(_counts, _counts, _counts, st.integers(1, 5000))
@settings(deadline=None)
def test_reasoning_beside_the_completion_is_added(i: int, r: int, o: int, reasoning: int) -> None:
    usage = _openai(i, r, 0, o) | {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    usage["total_tokens"] = i + r + o + reasoning
    assert usage_from_openai(usage) == Usage(i, o + reasoning, r, reasoning_tokens=reasoning)


_details = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("cached_tokens", "cache_write_tokens", "cache_creation_tokens", "created_cache_tokens"), _counts
    ),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(
                (
                    "prompt_tokens",
                    "input_tokens",
                    "completion_tokens",
                    "output_tokens",
                    "cached_tokens",
                    "prompt_cache_hit_tokens",
                    "cache_read_input_tokens",
                    "cache_creation_input_tokens",
                    "reasoning_tokens",
                ),
                _counts,
            ),
            "total_tokens": st.integers(0, 20_000),
            "prompt_tokens_details": _details,
        },
    )
)
@settings(deadline=None)
def test_any_counts_add_up(reported: dict[str, Any]) -> None:
    usage = usage_from_openai(reported)
    if usage is None:
        assert not reported.keys() & {"prompt_tokens", "input_tokens", "completion_tokens", "output_tokens"}
        return
    figures = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens)
    assert min(figures) >= 0
    assert usage.reasoning_tokens is None or usage.reasoning_tokens <= usage.output_tokens
    prompt = reported.get("prompt_tokens", reported.get("input_tokens"))
    assert usage.total_input_tokens >= (prompt or 0)
    completion = reported.get("completion_tokens", reported.get("output_tokens"))
    assert usage.output_tokens >= (completion or 0)
    total = reported.get("total_tokens", 0)
    if total > (prompt or 0) + (completion or 0):
        assert usage.total_input_tokens + usage.output_tokens <= total
