"""The tables of wordings; the wordings themselves are data, tests/transcripts/errors."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.upstream_errors.context_overflow import (
    OUTPUT_LIMITS,
    WORDINGS,
    OutputLimit,
    Overflow,
    Wording,
    find_output_limit,
    find_overflow,
    is_evident,
    output_limit_message,
    overflow_message,
)
from proxyd.codecs.upstream_errors.error_envelopes import parse_error_body
from tests.support.error_cases import CASES, RECOVERABLE, read_case

TEXTS = [parse_error_body(read_case(path)["body"].encode()).message for path in CASES]


@pytest.mark.parametrize("wording", [*WORDINGS, *OUTPUT_LIMITS], ids=lambda each: each.pattern.pattern[:60])
def test_each_wording_has_a_case(wording: Wording) -> None:
    table = WORDINGS if wording in WORDINGS else OUTPUT_LIMITS
    winners = [next((each for each in table if each.pattern.search(text)), None) for text in TEXTS]
    assert wording in winners
    assert wording.source


@pytest.mark.parametrize(
    "text",
    [
        "Rate limit reached: maximum context length is 100 tokens",
        "429 Too Many Requests: token limit exceeded",
        "maximum context length is 100 tokens per minute",
        "the context of this sentence has a length",
        "model not found",
        "Field required [type=missing, input_value={'text': 'the prompt is too long for the context window'}]",
        "{'msg': 'Field required', 'input': {'content': 'the prompt exceeds the context length of 9 tokens'}}",
        "",
    ],
)
def test_texts_that_are_no_overflows(text: str) -> None:
    assert find_overflow(text) is None


def test_codes() -> None:
    assert find_overflow("no", ("Context_Length_Exceeded",)) == Overflow()
    assert find_overflow("rate limit", ("context_length_exceeded",)) is None
    assert find_overflow("no", ("invalid_request_error",)) is None


@pytest.mark.parametrize("count", ["131072", "131,072", "131_072"])
def test_count_formats(count: str) -> None:
    assert find_overflow(f"maximum context length of {count} tokens.") == Overflow(limit=131072)


@pytest.mark.parametrize(
    ("limit", "window"),
    [(None, None), (1, None), (512, None), (4096, 4096), (2_000_000, 2_000_000), (10**9, None)],
)
def test_plausible_windows(limit: int | None, window: int | None) -> None:
    assert Overflow(limit=limit).window == window


@pytest.mark.parametrize(
    ("estimate", "known", "certainty", "evident"),
    [
        (None, {"window": 100}, 0.5, False),
        (49, {"window": 100}, 0.5, False),
        (50, {"window": 100}, 0.5, True),
        (89, {"window": 100}, 0.9, False),
        (90, {"window": 100}, 0.9, True),
        (90, {"window": 100, "largest_accepted": 90}, 0.9, False),
        (91, {"window": 100, "largest_accepted": 90}, 0.9, True),
        (8191, {"window": None}, 0.5, False),
        (8192, {"window": None}, 0.5, True),
        (8192, {"window": None, "largest_accepted": 8191}, 0.5, True),
        (8192, {"window": None, "largest_accepted": 9000}, 0.5, False),
        (10**6, {"window": None}, 0.9, False),
    ],
)
def test_is_evident(estimate: int | None, known: dict[str, Any], certainty: float, evident: bool) -> None:
    assert is_evident(estimate, **known, certainty=certainty) is evident


def test_limit_of_zero_is_ignored() -> None:
    assert find_output_limit("max_tokens must be less than or equal to 0") is None


@pytest.mark.parametrize(
    ("overflow", "known", "message"),
    [
        (
            Overflow(limit=100, input=60, output=50),
            {},
            "input length and `max_tokens` exceed context limit: 60 + 50 > 100",
        ),
        (Overflow(limit=100, input=100, output=50), {}, "prompt is too long: 101 tokens > 100 maximum"),
        (Overflow(limit=100, input=60, output=40), {}, "prompt is too long: 101 tokens > 100 maximum"),
        (Overflow(limit=100, input=140), {"window": 90}, "prompt is too long: 140 tokens > 100 maximum"),
        (Overflow(input=140), {"window": 90}, "prompt is too long: 140 tokens > 90 maximum"),
        (
            Overflow(),
            {"window": 90, "estimated_input_tokens": 95},
            "prompt is too long: 95 tokens > 90 maximum",
        ),
        (
            Overflow(limit=100, total=120),
            {"max_tokens": 30},
            "input length and `max_tokens` exceed context limit: 90 + 30 > 100",
        ),
        (Overflow(limit=100, total=120), {}, "prompt is too long: 120 tokens > 100 maximum"),
        (Overflow(limit=100, total=120), {"max_tokens": 500}, "prompt is too long: 120 tokens > 100 maximum"),
        (Overflow(excess=7), {"window": 90}, "prompt is too long: 97 tokens > 90 maximum"),
        (Overflow(excess=7), {"estimated_input_tokens": 90}, "prompt is too long: 90 tokens > 83 maximum"),
    ],
)
def test_message(overflow: Overflow, known: dict[str, Any], message: str) -> None:
    assert overflow_message(overflow, **known) == message


def test_unknown_window_is_not_invented() -> None:
    assert not re.search(r"> \d", overflow_message(Overflow(input=140)))


def test_requested_output_is_always_above_the_limit() -> None:
    assert output_limit_message(OutputLimit(10), model="m", max_tokens=3).startswith("max_tokens: 11 > 10,")


COUNTS = st.none() | st.integers(0, 10**12)


@given(
    st.builds(Overflow, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans(), COUNTS),
    COUNTS,
    COUNTS,
    COUNTS,
)
def test_claude_code_recovers_from_every_message(
    overflow: Overflow, window: int | None, estimate: int | None, asked: int | None
) -> None:
    text = overflow_message(overflow, window=window, estimated_input_tokens=estimate, max_tokens=asked)
    assert RECOVERABLE.fullmatch(text)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if "+" in text:
        assert numbers[0] < numbers[2] < numbers[0] + numbers[1]
    elif ">" in text:
        assert numbers[0] > numbers[1]


@pytest.mark.parametrize(
    "text",
    [
        "maximum context length is 1 tokens. however, you requested " * 500,
        "1," * 50_000,
        "max_tokens " * 20_000,
        "prompt contains 12 tokens " * 5_000,
        " " * 100_000,
        "exceeds the available context size" * 4_000,
        "输入长度" * 30_000,
        "上下文" * 40_000,
        "输入" + "的" * 8_000 + "长度",
        "must be less than over the " * 9_000,
        "max input tokens: 9000 > " * 5_000,
        "maximum number of prompt tokens " * 5_000,
        "aA" * 50_000,
        "a.\n " * 50_000,
        "http://" * 20_000,
    ],
)
def test_matching_is_linear(text: str) -> None:
    began = time.process_time()
    find_overflow(text)
    find_output_limit(text)
    # Some milliseconds here; backtracking without a bound would take minutes.
    assert time.process_time() - began < 2
