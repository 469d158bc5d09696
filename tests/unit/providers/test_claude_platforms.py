"""Addresses of Claude at clouds, and the betas that they take."""

from __future__ import annotations

import pytest

from proxyd.providers.claude_platforms import VERTEX


@pytest.mark.parametrize(
    ("model", "is_stream", "path"),
    [
        (
            "claude-opus-4-5@20251101",
            True,
            "/publishers/anthropic/models/claude-opus-4-5@20251101:streamRawPredict",
        ),
        ("claude-opus-5", False, "/publishers/anthropic/models/claude-opus-5:rawPredict"),
        ("a/../b?c#d", False, "/publishers/anthropic/models/a%2F..%2Fb%3Fc%23d:rawPredict"),
    ],
)
def test_the_address_names_the_model(model: str, is_stream: bool, path: str) -> None:
    assert VERTEX.path(model, is_stream) == path


@pytest.mark.parametrize(
    ("header", "is_message", "sent"),
    [
        ("", True, ""),
        ("effort-2025-11-24, claude-code-20250219", True, ""),
        ("context-1m-2025-08-07 ,web-search-2025-03-05", True, "context-1m-2025-08-07,web-search-2025-03-05"),
        ("context-1m-2025-08-07 ,web-search-2025-03-05", False, "context-1m-2025-08-07"),
        ("advanced-tool-use-2025-11-20,tool-search-tool-2025-10-19", True, "tool-search-tool-2025-10-19"),
    ],
)
def test_only_known_betas_are_sent(header: str, is_message: bool, sent: str) -> None:
    assert VERTEX.betas_of(header, is_message=is_message) == sent
