"""WebSearch's own call: recognised by its tools, with the query and the domains that it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.server_tools.web_search.side_call import SearchCall, is_search_call

SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
OTHER = {"name": "Read", "input_schema": {"type": "object"}}


def request(text: Any = "Perform a web search for the query: rust 2026", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "tools": [SEARCH], **more}


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([SEARCH], True),
        ([{"type": "web_search_20260318", "name": "web_search"}], True),
        ([SEARCH, OTHER], False),
        ([OTHER], False),
        ([{"name": "WebSearch", "input_schema": {}}], False),
        ([], False),
        (None, False),
        (["web_search_20250305"], False),
        ([{"type": None}], False),
    ],
)
def test_only_a_request_that_offers_nothing_but_the_search_is_one(tools: Any, expected: bool) -> None:
    assert is_search_call(request(tools=tools)) is expected


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Perform a web search for the query: rust 2026", "rust 2026"),
        ([{"type": "text", "text": "Perform a web search for the query:  a\n b"}], "a b"),
        ("what is new?", "what is new?"),
        ([{"type": "image"}, {"type": "text", "text": "x"}], "x"),
        (None, ""),
        (7, ""),
        ("q" * 5000, "q" * 2000),
    ],
)
def test_the_query_is_read_from_the_message(text: Any, query: str) -> None:
    assert SearchCall.of(request(text)).query == query


@pytest.mark.parametrize(
    ("lists", "url", "expected"),
    [
        ({}, "https://a.example/", True),
        ({"allowed_domains": ["example.com"]}, "https://example.com/x", True),
        ({"allowed_domains": ["example.com"]}, "https://docs.EXAMPLE.com/x", True),
        ({"allowed_domains": ["example.com"]}, "https://badexample.com/", False),
        ({"allowed_domains": ["https://example.com/"]}, "https://example.com/", True),
        ({"allowed_domains": ["example.com/docs"]}, "https://example.com/docs/a", True),
        ({"allowed_domains": ["example.com/docs"]}, "https://example.com/docsy", False),
        ({"blocked_domains": ["example.com"]}, "https://www.example.com/", False),
        ({"blocked_domains": ["example.com"]}, "https://example.org/", True),
        ({"blocked_domains": [7, "", None]}, "https://example.org/", True),
        ({"blocked_domains": "example.org"}, "https://example.org/", True),
        ({}, "https://[broken/", False),
    ],
)
def test_results_outside_the_domains_are_left_out(lists: dict[str, Any], url: str, expected: bool) -> None:
    assert SearchCall.of(request(tools=[{**SEARCH, **lists}])).allows(url) is expected


def test_no_use_at_all_is_noticed() -> None:
    assert SearchCall.of(request(tools=[{**SEARCH, "max_uses": 0}])).is_exhausted
    assert not SearchCall.of(request()).is_exhausted
