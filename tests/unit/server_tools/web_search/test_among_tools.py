"""Anthropic's web search as a function, and the history of searches as calls of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from proxyd.server_tools.web_search.among_tools import OfferedSearch, error_block, result_block, use_block
from proxyd.server_tools.web_search.blocks import result_blocks, results_in, text_of
from proxyd.server_tools.web_search.engines import Result

SEARCH = {"type": "web_search_20250305", "name": "web_search"}
NOTE = {"name": "note", "input_schema": {"type": "object"}}
RESULTS = [
    Result("One", "https://a.example", "A <b>text</b> of ünicode", "2026"),
    Result("Two", "https://b.example"),
]


def offered(**fields: Any) -> OfferedSearch:
    found = OfferedSearch.among_tools({"tools": [{**SEARCH, **fields}, NOTE]})
    assert found is not None
    return found


@pytest.mark.parametrize("tools", [None, [], [SEARCH], [NOTE], [SEARCH, SEARCH], "x"])
def test_a_search_alone_and_none_are_not_among_tools(tools: Any) -> None:
    assert OfferedSearch.among_tools({"tools": tools}) is None


@pytest.mark.parametrize(
    ("given", "expected"), [(None, 8), (3, 3), (0, 0), (-1, 8), (True, 8), ("x", 8), (1000, 20)]
)
def test_max_uses(given: Any, expected: int) -> None:
    assert offered(max_uses=given).max_uses == expected


def test_domains_hold_for_each_search() -> None:
    wanted = offered(allowed_domains=["a.example"], max_uses=0).wanted("q")
    assert (wanted.query, wanted.allowed, wanted.is_exhausted) == ("q", ("a.example",), False)


def request(messages: list[Any], content: Any = (), *, uses_left: int = 1, **fields: Any) -> dict[str, Any]:
    payload = {"model": "x", "tools": [SEARCH, NOTE], "messages": messages, **fields}
    before = copy.deepcopy(payload)
    search = OfferedSearch.among_tools(payload)
    assert search is not None
    made = search.request(payload, "m", content, uses_left=uses_left)
    assert payload == before
    return made


def test_the_function_stands_in_place_of_the_tool() -> None:
    made = request([])
    assert [tool["name"] for tool in made["tools"]] == ["web_search", "note"]
    assert made["tools"][0]["input_schema"]["required"] == ["query"]
    assert (made["model"], made["stream"]) == ("m", True)
    assert [tool["name"] for tool in request([], uses_left=0)["tools"]] == ["note"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "web_search"}])
def test_a_forced_choice_holds_for_the_first_round(choice: dict[str, Any]) -> None:
    choice = {**choice, "disable_parallel_tool_use": True}
    assert request([], tool_choice=choice)["tool_choice"] == choice
    later = request([], [{"type": "text", "text": "x"}], tool_choice=choice)
    assert later["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def history() -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": "Look."},
        {**use_block("c:1"), "input": {"query": "q"}},
        {**use_block("c2"), "input": {"query": "r"}},
        result_block("c:1", result_blocks(RESULTS, keeps_texts=True)),
        error_block("c2", "too_many_requests"),
        {"type": "text", "text": "So."},
    ]


def test_searches_of_the_history_become_calls_and_results() -> None:
    user = {"role": "user", "content": "?"}
    _, call, results, rest, last = request([user, {"role": "assistant", "content": history()}, user])[
        "messages"
    ]
    assert call["content"] == [
        {"type": "text", "text": "Look."},
        {"type": "tool_use", "id": "srvtoolu_c_1", "name": "web_search", "input": {"query": "q"}},
        {"type": "tool_use", "id": "srvtoolu_c2", "name": "web_search", "input": {"query": "r"}},
    ]
    found, failed = results["content"]
    assert found["tool_use_id"] == "srvtoolu_c_1"
    assert found["content"] == text_of("q", RESULTS).replace("<b>", "").replace("</b>", "")
    assert "too_many_requests" in failed["content"]
    assert failed["is_error"] is True
    assert rest == {"role": "assistant", "content": [{"type": "text", "text": "So."}]}
    assert last == user


def test_a_search_without_a_result_and_other_blocks_stay() -> None:
    message = {"role": "assistant", "content": [use_block("c"), {"type": "text", "text": "x"}, 3, None]}
    assert request([message])["messages"] == [message]
    assert request(["x", {"role": "assistant", "content": "t"}])["messages"][0] == "x"


def test_snippets_survive_the_way_to_the_client_and_back() -> None:
    (one, two) = results_in(result_blocks(RESULTS, keeps_texts=True))
    assert one == Result("One", "https://a.example", "A text of ünicode", "2026")
    assert two == Result("Two", "https://b.example")


@pytest.mark.parametrize("data", ["", None, 3, "not base64!", "EqgfCioIARgB", "dGV4dDr/"])
def test_data_of_another_server_are_no_snippet(data: Any) -> None:
    (found,) = results_in([{"title": "T", "url": "u", "encrypted_content": data}])
    assert found.text == ""
