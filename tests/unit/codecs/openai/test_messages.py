"""What of the history the transcripts do not show."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.openai.content_blocks import arguments_of
from proxyd.codecs.openai.dialect import Dialect
from proxyd.codecs.openai.request import RequestOptions, Translated, to_openai_request, translation


def translate(messages: list[Any], dialect: Dialect | None = None, **fields: Any) -> Translated:
    return to_openai_request(
        {"messages": messages, **fields}, dialect or Dialect(), RequestOptions("m", True)
    )


def sent(messages: list[Any], dialect: Dialect | None = None, **fields: Any) -> list[dict[str, Any]]:
    return translate(messages, dialect, **fields).body["messages"]


def thinking(
    text: str, field: str | None = "reasoning_content", model: str = "m", **data: Any
) -> dict[str, Any]:
    signature = encode_signature(model, field, data.get("details"), data.get("signatures"))
    return {"type": "thinking", "thinking": text, "signature": signature}


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"a": "日本/x"}, '{"a":"日本/x"}'),
        (None, "{}"),
        ([1], '{"input":[1]}'),
        ("text", '{"input":"text"}'),
        ({"a": [float("nan"), {"b": float("inf")}], "c": 1.5}, '{"a":[null,{"b":null}],"c":1.5}'),
    ],
)
def test_arguments_are_the_json_of_an_object(given: Any, arguments: str) -> None:
    assert arguments_of(given) == arguments


def test_a_result_in_an_assistant_message_becomes_its_text() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
    assert (
        sent([{"role": "assistant", "content": [result]}])[0]["content"]
        == "Result of an earlier tool call:\n\nx"
    )


def test_an_image_in_an_assistant_message_is_dropped_and_told() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    message = {"role": "assistant", "content": [{"type": "text", "text": "see"}, image]}
    translated = translate([message])
    assert translated.body["messages"] == [{"role": "assistant", "content": "see"}]
    assert [note.what for note in translated.notes] == ["dropped"]


def test_strings_and_oddities_among_the_blocks() -> None:
    assert sent([{"role": "user", "content": ["a string", 7, None, {"type": "text", "text": 8}]}]) == [
        {"role": "user", "content": "a string"}
    ]
    assert sent([{"role": "user", "content": None}]) == [{"role": "user", "content": "(no content)"}]


def test_alternation_begins_with_the_user() -> None:
    messages = [{"role": "assistant", "content": "hello"}]
    assert [message["role"] for message in sent(messages)] == ["assistant"]
    strict = sent(messages, Dialect(strict_alternation=True), system="s")
    assert [message["role"] for message in strict] == ["system", "user", "assistant"]


def test_alternation_keeps_answers_apart_when_the_user_said_nothing() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": " "},
        {"role": "assistant", "content": "c"},
    ]
    roles = [message["role"] for message in sent(messages, Dialect(strict_alternation=True))]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_what_the_user_says_joins_a_tool_message_with_an_image() -> None:
    dialect = Dialect(text_after_tool_joins_it=True, images_in_tool_results=True, leading_system_only=True)
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    messages = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "T", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [image]},
                {"type": "text", "text": "so?"},
            ],
        },
    ]
    assert sent(messages, dialect)[-1] == {
        "role": "tool",
        "tool_call_id": "t1",
        "content": [
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            {"type": "text", "text": "so?"},
        ],
    }


def test_an_error_that_is_an_image_stays_an_image() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    messages = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "T", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [image], "is_error": True}],
        },
    ]
    assert sent(messages, Dialect(images_in_tool_results=True))[-1]["content"][0]["type"] == "image_url"
    assert sent(messages)[1]["content"] == "Error: (shown below)"


CACHED = {"type": "ephemeral"}


def test_cache_control_goes_along_where_it_is_understood() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": CACHED}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "T", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "r", "cache_control": CACHED}
            ],
        },
    ]
    cached = sent(messages, Dialect(cache_control=True))
    assert cached[0]["content"] == [{"type": "text", "text": "a", "cache_control": CACHED}]
    assert cached[2]["content"] == [{"type": "text", "text": "r", "cache_control": CACHED}]
    assert "cache_control" not in str(sent(messages))


# -- reasoning


def answer(*blocks: dict[str, Any], **text: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [*blocks, {"type": "text", "text": "done", **text}]}]


def test_thoughts_of_one_turn_are_joined_as_they_came() -> None:
    message = sent(answer(thinking("Lo"), thinking("ok")))[0]
    assert message["reasoning_content"] == "Look"


def test_reasoning_from_two_fields_goes_to_neither() -> None:
    message = sent(answer(thinking("a"), thinking("b", "reasoning")))[0]
    assert message.keys() == {"role", "content"}


@pytest.mark.parametrize("field", [None, "", "content", "tool_calls", "thinking"])
def test_a_field_that_is_not_for_reasoning_is_never_written(field: str | None) -> None:
    assert sent(answer(thinking("a", field))) == [{"role": "assistant", "content": "done"}]


def test_details_come_back_where_they_were_received() -> None:
    details = [{"type": "reasoning.text", "text": "a"}]
    message = sent(answer(thinking("a", "reasoning_details", details=details)))[0]
    assert message["reasoning_details"] == details


def test_tags_before_parts() -> None:
    dialect = Dialect(reasoning_return="tags", think_tags=("thought",), cache_control=True)
    message = sent(answer(thinking("a"), cache_control=CACHED), dialect)[0]
    assert message["content"][0] == {"type": "text", "text": "<thought>a</thought>\n"}
    assert len(message["content"]) == 2


def test_none_is_sent_where_none_is_taken() -> None:
    translated = translate(answer(thinking("a")), Dialect(reasoning_return="none"))
    assert translated.body["messages"] == [{"role": "assistant", "content": "done"}]
    assert [note.path for note in translated.notes] == ["messages[].content[].thinking"]


def test_thought_signatures_of_another_model_are_replaced() -> None:
    dialect = Dialect(thought_signatures=True, thought_signature_placeholder="skip", reasoning_return="none")
    calls = [{"type": "tool_use", "id": name, "name": "T", "input": {}} for name in ("a", "b")]

    def signatures(block: dict[str, Any]) -> list[Any]:
        content = [block, *calls]
        message = sent([{"role": "assistant", "content": content}], dialect)[0]
        return [
            call.get("extra_content", {}).get("google", {}).get("thought_signature")
            for call in message["tool_calls"]
        ]

    assert signatures(thinking("", None, "m", signatures={"a": "1", "b": "2"})) == ["1", "2"]
    assert signatures(thinking("", None, "m", signatures={"b": "2"})) == [None, "2"]
    assert signatures(thinking("", None, "other", signatures={"a": "1"})) == ["skip", None]


# -- thinking


@pytest.mark.parametrize(
    ("fields", "dialect", "expected"),
    [
        ({"thinking": {"type": "disabled"}}, {"effort_path": None}, {}),
        ({"thinking": {"type": "between_tools"}}, {}, {"reasoning_effort": "minimal"}),
        ({"thinking": {"type": "odd"}}, {}, {}),
        ({"thinking": "on"}, {}, {}),
        ({"thinking": {"type": "enabled"}}, {}, {}),
        ({"output_config": {"effort": "odd"}}, {}, {}),
        ({"output_config": {"effort": "high"}}, {"effort_path": None}, {}),
        (
            {"output_config": {"effort": "low"}},
            {"efforts": {"high": "h", "max": "m"}},
            {"reasoning_effort": "h"},
        ),
        ({"output_config": {"effort": "high"}}, {"efforts": {}}, {}),
        ({"output_config": {"effort": "high"}}, {"client_effort": False}, {}),
        (
            {"thinking": {"type": "adaptive"}},
            {"thinking_path": "a.b", "thinking_on": {"c": 1}},
            {"a": {"b": {"c": 1}}},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9}},
            {"efforts": {}, "budget_path": "b"},
            {"b": 1024},
        ),
    ],
)
def test_thinking(fields: dict[str, Any], dialect: dict[str, Any], expected: dict[str, Any]) -> None:
    body = translate([{"role": "user", "content": "hi"}], Dialect(**dialect), **fields).body
    for known in ("model", "messages", "stream", "stream_options"):
        body.pop(known)
    assert body == expected


def test_a_budget_and_an_effort_can_be_told_at_once() -> None:
    dialect = Dialect(budget_path="thinking_budget")
    body = translate(
        [{"role": "user", "content": "hi"}], dialect, thinking={"type": "enabled", "budget_tokens": 5000}
    ).body
    assert (body["reasoning_effort"], body["thinking_budget"]) == ("medium", 5000)


TOOL = {"name": "T", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("thinking", "default", "choice"),
    [
        (None, False, "required"),
        (None, True, "auto"),
        ("disabled", True, "required"),
        ("adaptive", False, "auto"),
    ],
)
def test_a_tool_is_not_forced_on_a_thinking_model(thinking: str | None, default: bool, choice: str) -> None:
    dialect = Dialect(
        forced_choice_while_thinking=False,
        thinks_by_default=default,
        thinking_path="thinking",
        thinking_on=True,
        thinking_off=False,
    )
    fields = {"thinking": {"type": thinking}} if thinking else {}
    body = translate(
        [{"role": "user", "content": "hi"}], dialect, tools=[TOOL], tool_choice={"type": "any"}, **fields
    ).body
    assert body["tool_choice"] == choice


# -- tools on the way


def test_a_removed_tool_can_come_back() -> None:
    def change(kind: str) -> dict[str, Any]:
        block = {"type": kind, "tool": {"type": "tool_reference", "name": "T"}}
        return {"role": "system", "content": [block, "odd", {"type": kind, "tool": {"type": "mcp_toolset"}}]}

    hello = {"role": "user", "content": "hi"}
    assert "tools" not in translate([hello, change("tool_removal")], tools=[TOOL]).body
    assert translate([hello, change("tool_removal"), change("tool_addition")], tools=[TOOL]).body["tools"]


def test_long_names_lead_back_to_the_clients() -> None:
    name = "mcp__server__" + "x" * 70
    translated = translate([{"role": "user", "content": "hi"}], tools=[{**TOOL, "name": name}, TOOL])
    shortened = translated.body["tools"][0]["function"]["name"]
    assert len(shortened) == 64
    assert translated.tool_names == {shortened: name}


def test_a_long_history_is_translated_in_steps() -> None:
    """So that others have a turn in between (docs/spec/operations.md#a8)."""
    turn = [
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": [{"type": "text", "text": "So."}]},
    ]
    payload = {"model": "m", "max_tokens": 5, "messages": turn * 1000}
    steps = translation(payload, Dialect(), RequestOptions("m", True))
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            translated = end.value
            break
        count += 1
    assert count >= 5
    assert translated.body == to_openai_request(payload, Dialect(), RequestOptions("m", True)).body
