"""WebSearch on a route without a search: recognised by its tools, answered by a legal stream that says so."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.events import BlockStart, JsonDelta, encode_events
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.server_tools.web_search import is_search_call, unavailable

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


def test_the_events_are_legal_and_name_the_query_and_the_error() -> None:
    events = unavailable(request(), "kimi", "msg_1")
    grammar = Grammar()
    for event in events:
        grammar.accept(event)
    assert grammar.has_ended
    assert JsonDelta(0, '{"query":"rust 2026"}') in events
    blocks = [event.block for event in events if isinstance(event, BlockStart)]
    assert [block["type"] for block in blocks] == ["server_tool_use", "web_search_tool_result", "text"]
    assert blocks[1]["tool_use_id"] == blocks[0]["id"]
    assert blocks[1]["content"] == {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    assert b"'kimi'" in encode_events(events)


def test_the_whole_message_holds_the_same_blocks() -> None:
    collector = MessageCollector()
    collector.add_all(unavailable(request(), "kimi", "msg_1"))
    message = collector.message()
    assert [block["type"] for block in message["content"]] == [
        "server_tool_use",
        "web_search_tool_result",
        "text",
    ]
    assert message["content"][0]["input"] == {"query": "rust 2026"}
    assert message["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("messages", "query"),
    [
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Perform a web search for the query: a b"}],
                }
            ],
            "a b",
        ),
        ([{"role": "user", "content": "weather in Oslo"}], "weather in Oslo"),
        ([{"role": "user", "content": [{"type": "image"}, 3]}], ""),
        ([{"role": "user", "content": "x" * 10_000}], "x" * 2000),
    ],
)
def test_the_query_is_found_in_any_form_of_the_message(messages: Any, query: str) -> None:
    events = unavailable(request(messages=messages), "m", "msg_1")
    assert JsonDelta(0, f'{{"query":"{query}"}}') in events
