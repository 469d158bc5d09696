# ruff: noqa: E501 - the words of servers are not wrapped
"""Output limits."""

from __future__ import annotations

from tests.support.vendors.reports import OURS, Report, limit

__all__ = ["REPORTS"]

REPORTS: tuple[Report, ...] = tuple(
    Report(OURS, limit("max_tokens", 8192), words)
    for words in (
        "max_tokens must be at most 8192",
        "max_tokens (32000) exceeds the maximum of 8192 for this model",
        "max_tokens: Input should be less than or equal to 8192",
        "The maximum allowed value for max_tokens is 8192",
        "Requested max_tokens 32000 exceeds model limit 8192",
        "Field max_tokens invalid, should be in [1, 8192]",
        "max_tokens参数错误，取值范围为[1, 8192]",
        "max_tokens should be between 1 and 8192",
        "max_completion_tokens cannot exceed 8192",
        "Unable to submit request because it has a maxOutputTokens value of 32000 but the supported range is from 1 (inclusive) to 8193 (exclusive). Update the value and try again.",
        "The max_tokens you requested (32,000) is larger than the maximum number of output tokens (8,192)",
        "max_tokens 超出范围，最大值为 8192",
        "Invalid value for 'max_tokens': integer above maximum value. Expected a value <= 8192, but got 32000 instead.",
    )
)
