"""Messages fitted to templates: one call for each message, contents, names of results, no system role."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from proxyd.codecs.openai.message_shape import called_names, joined
from proxyd.codecs.openai.request import to_openai_request
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions


def use(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"id_{name}", "name": name, "input": {}}


def result(name: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": f"id_{name}", "content": f"of {name}"}


TWO_CALLS: list[dict[str, Any]] = [
    {"role": "user", "content": "go"},
    {"role": "assistant", "content": [{"type": "text", "text": "Look."}, use("A"), use("B")]},
    {"role": "user", "content": [result("B"), result("A"), {"type": "text", "text": "on"}]},
    {"role": "assistant", "content": [use("A2")]},
]


def body(
    messages: list[dict[str, Any]], *, fields: dict[str, Any] | None = None, **quirks: Any
) -> dict[str, Any]:
    payload = {"messages": messages, "system": "Be brief.", **(fields or {})}
    return to_openai_request(payload, Dialect(**quirks), RequestOptions("m", True)).body


def test_one_call_for_each_message() -> None:
    messages = body(TWO_CALLS, one_call_per_message=True)["messages"]
    assert [(m["role"], len(m.get("tool_calls", ())), m["content"]) for m in messages[2:]] == [
        ("assistant", 1, "Look."),
        ("tool", 0, "of A"),
        ("assistant", 1, None),
        ("tool", 0, "of B"),
        ("user", 0, "on"),
        ("assistant", 1, None),
        ("tool", 0, "(no result: interrupted)"),
    ]
    for message, response in itertools.pairwise(messages):
        for call in message.get("tool_calls", ()):
            assert response["tool_call_id"] == call["id"]


@pytest.mark.parametrize("content", ["", "."])
def test_content_of_messages_that_only_call(content: str) -> None:
    assert body(TWO_CALLS)["messages"][-2]["content"] is None
    assert body(TWO_CALLS, empty_content=content)["messages"][-2]["content"] == content


def test_results_name_their_tools() -> None:
    messages = body(TWO_CALLS, tool_message_names=True)["messages"]
    named = [(message["name"], message["content"]) for message in messages if message["role"] == "tool"]
    assert named == [("B", "of B"), ("A", "of A"), ("A2", "(no result: interrupted)")]


def test_no_system_role() -> None:
    messages = body([*TWO_CALLS, {"role": "system", "content": "Later."}], system_role="user")["messages"]
    assert {message["role"] for message in messages} == {"user", "assistant", "tool"}
    assert messages[0]["content"] == "Be brief.\n\ngo"
    assert messages[-1]["content"] == "Later."


def test_called_tools_are_declared_where_none_is_offered() -> None:
    assert "tools" not in body(TWO_CALLS)
    sent = body(TWO_CALLS, declares_called_tools=True)
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["A", "B", "A2"]
    assert sent["tool_choice"] == "none"
    assert called_names(sent["messages"]) == ["A", "B", "A2"]
    assert "tools" not in body(TWO_CALLS[:1], declares_called_tools=True)


def test_long_descriptions_go_into_the_system_message() -> None:
    long = "word " * 50
    tools = [
        {"name": "Long", "description": long, "input_schema": {"type": "object"}},
        {"name": "Short", "description": "short", "input_schema": {"type": "object"}},
    ]
    sent = body(TWO_CALLS, fields={"tools": tools}, max_description=20)
    assert [tool["function"]["description"] for tool in sent["tools"]] == [long[:20], "short"]
    assert sent["messages"][0]["content"] == f"Be brief.\n\n# Tool Long\n\n{long}"


def test_contents_are_joined() -> None:
    assert joined("a", "b") == "a\n\nb"
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    assert joined([image], "b") == [image, {"type": "text", "text": "b"}]
