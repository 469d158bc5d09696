"""Token counts are identified by the words around them."""

from __future__ import annotations

import pytest

from proxyd.codecs.upstream_errors.overflow_numbers import Counts, read_counts


@pytest.mark.parametrize(
    ("text", "limit", "used", "output"),
    [
        (
            "The input has 31430 tokens, but the context length only supports 30000 tokens.",
            30000,
            31430,
            None,
        ),
        ("Input does not fit in context length. 31430 tokens > 30000 tokens", 30000, 31430, None),
        ("Prompt token count exceeds max token count (5910 / 4095).", 4095, 5910, None),
        (
            "Prompt has 5,958,968 tokens, but the configured context size is 256,000 tokens",
            256000,
            5958968,
            None,
        ),
        ("Not enough space for 5000 prompt tokens in a context length of 4096.", 4096, 5000, None),
        ("Too many input tokens. Max input tokens: 8192, request input token count: 9279", 8192, 9279, None),
        ("上下文长度超出限制: 请求 150000 tokens，最大 128000 tokens", 128000, 150000, None),
        (
            "The sum of prompt length (9351.0), query length (0) should not exceed max_num_tokens (8192)",
            8192,
            9351,
            None,
        ),
        (
            "context window of 8192 exceeded: requested 9000 tokens, 8000 in the prompt, 1000 for the completion",
            8192,
            8000,
            1000,
        ),
        (
            "The prompt exceeds the model's maximum context length of 32768. Request id: 021772413947",
            32768,
            None,
            None,
        ),
        ("gpt-4 exceeded the context length on 2024-05-13", None, None, None),
        # Inconsistent numbers are ignored.
        ("the prompt of 1000 tokens exceeds the context length of 8000 tokens", None, None, None),
    ],
)
def test_counts(text: str, limit: int | None, used: int | None, output: int | None) -> None:
    assert read_counts(text) == Counts(limit=limit, input=used, output=output)
