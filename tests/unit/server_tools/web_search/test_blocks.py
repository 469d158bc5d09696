"""The response to a WebSearch call: legal events, bounded texts, and results that Claude Code can read."""

from __future__ import annotations

import pytest

from proxyd.codecs.anthropic.events import StreamEvent
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.server_tools.web_search.blocks import beginning, ending_with_error, ending_with_results
from proxyd.server_tools.web_search.engines import Result

RESULTS = [
    Result("Rust &amp; <strong>more</strong>", "https://a.example/1", "The\n <b>news</b>", "May 2026"),
    Result("Second", "https://b.example/2"),
]


def message_of(ending: list[StreamEvent], query: str = "rust") -> list[dict[str, object]]:
    events = [*beginning("msg_1", "m", query), *ending]
    grammar = Grammar()
    for event in events:
        grammar.accept(event)
    assert grammar.has_ended
    collector = MessageCollector()
    collector.add_all(events)
    return list(collector.message()["content"])


def test_results_become_the_pair_and_a_numbered_text() -> None:
    use, result, text = message_of(ending_with_results("msg_1", "rust", RESULTS))
    assert (use["type"], use["input"]) == ("server_tool_use", {"query": "rust"})
    assert result["tool_use_id"] == use["id"]
    assert [(each["title"], each["url"], each["page_age"]) for each in result["content"]] == [
        ("Rust & more", "https://a.example/1", "May 2026"),
        ("Second", "https://b.example/2", None),
    ]
    assert text["text"] == (
        "1. Rust & more (May 2026)\nhttps://a.example/1\nThe news\n\n2. Second\nhttps://b.example/2"
    )


def test_an_error_names_its_code_and_says_what_to_do() -> None:
    _, result, text = message_of(ending_with_error("msg_1", "too_many_requests", "No search: set it up."))
    assert result["content"] == {
        "type": "web_search_tool_result_error",
        "error_code": "too_many_requests",
    }
    assert text["text"] == "No search: set it up."


def test_no_result_is_said_in_words() -> None:
    _, result, text = message_of(ending_with_results("msg_1", "rust", []))
    assert result["content"] == []
    assert "found nothing" in str(text["text"])


@pytest.mark.parametrize("long", ["t", "ü", "𝕏"])
def test_texts_are_bounded(long: str) -> None:
    many = [Result(long * 9000, f"https://a.example/{n}", long * 9000) for n in range(20)]
    many.append(Result("x", "https://a.example/" + "u" * 9000))
    _, result, text = message_of(ending_with_results("msg_1", "rust", many))
    assert len(str(text["text"]).encode()) <= 8000
    assert len(result["content"]) == 20
    assert max(len(each["title"]) for each in result["content"]) <= 2000
