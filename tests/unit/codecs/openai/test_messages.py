"""Conversations that the transcripts do not cover."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.openai.request import to_openai_request, translation
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, Translated


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


def test_a_result_in_an_assistant_message_becomes_its_text() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
    assert (
        sent([{"role": "assistant", "content": [result]}])[0]["content"]
        == "Result of an earlier tool call:\n\nx"
    )


def test_image_in_an_assistant_message_is_dropped_and_noted() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    message = {"role": "assistant", "content": [{"type": "text", "text": "see"}, image]}
    translated = translate([message])
    assert translated.body["messages"] == [{"role": "assistant", "content": "see"}]
    assert [note.what for note in translated.notes] == ["dropped"]


ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.332.abc; cch=12345;"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (ATTRIBUTION, None),
        (f"{ATTRIBUTION}\nBe brief.", "Be brief."),
        ([{"type": "text", "text": ATTRIBUTION}, {"type": "text", "text": "Be brief."}], "Be brief."),
        ("Be brief.", "Be brief."),
    ],
)
def test_attribution_is_dropped(content: Any, text: str | None) -> None:
    """In the system prompt and in later system messages: it would defeat the upstream's prefix cache."""
    hello = {"role": "user", "content": "hi"}
    expected = [] if text is None else [{"role": "system", "content": text}]
    assert sent([hello], system=content) == [*expected, hello]
    assert sent([hello, {"role": "system", "content": content}]) == [hello, *expected]


def test_malformed_blocks() -> None:
    assert sent([{"role": "user", "content": ["a string", 7, None, {"type": "text", "text": 8}]}]) == [
        {"role": "user", "content": "a string"}
    ]
    assert sent([{"role": "user", "content": None}]) == [{"role": "user", "content": "(no content)"}]


def test_alternation_starts_with_the_user() -> None:
    messages = [{"role": "assistant", "content": "hello"}]
    assert [message["role"] for message in sent(messages)] == ["assistant"]
    strict = sent(messages, Dialect(strict_alternation=True), system="s")
    assert [message["role"] for message in strict] == ["system", "user", "assistant"]


def test_alternation_separates_assistant_messages_around_a_blank_user_message() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": " "},
        {"role": "assistant", "content": "c"},
    ]
    roles = [message["role"] for message in sent(messages, Dialect(strict_alternation=True))]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_user_text_joins_a_tool_message_with_an_image() -> None:
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


def test_error_result_with_an_image_keeps_it() -> None:
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


def test_cache_control_is_sent_where_it_is_supported() -> None:
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


CALL_BLOCK = {"type": "tool_use", "id": "c", "name": "T", "input": {}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}


def text_block(text: str | None, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        ([text_block("The "), text_block("answer")], "The answer"),
        ([text_block("a"), text_block("\n\n"), text_block("b"), text_block(" ")], "a\n\nb "),
        ([text_block(" "), text_block("a"), text_block("b")], "ab"),
        ([text_block("The "), THOUGHT, {"type": "redacted_thinking", "data": "x"}, text_block("answer")], "The answer"),
        ([text_block("Look."), CALL_BLOCK, text_block("Done"), text_block("!")], "Look.\n\nDone!"),
        ([text_block("Look."), {"type": "unknown", "text": "u"}, text_block("b")], "Look.\n\n[unknown]\nu\n\nb"),
        ([text_block(None), text_block("b")], "b"),
    ],
)  # fmt: skip
def test_neighbouring_texts_of_an_answer_are_one(blocks: list[dict[str, Any]], content: str) -> None:
    (message, *_) = sent([{"role": "assistant", "content": blocks}])
    assert message["content"] == content


def test_texts_of_two_messages_are_apart() -> None:
    answers = [{"role": "assistant", "content": [text_block(text)]} for text in ("a", "b")]
    assert sent(answers)[0]["content"] == "a\n\nb"


def test_joined_text_keeps_the_last_cache_control() -> None:
    blocks = [text_block("a"), text_block("b", cache_control={"type": "ephemeral"}), text_block("\n")]
    (message,) = sent([{"role": "assistant", "content": blocks}], Dialect(cache_control=True))
    assert message["content"] == [text_block("ab\n", cache_control={"type": "ephemeral"})]


def test_thinking_blocks_of_one_turn_are_joined() -> None:
    message = sent(answer(thinking("Lo"), thinking("ok")))[0]
    assert message["reasoning_content"] == "Look"


def test_reasoning_from_two_fields_is_sent_in_neither() -> None:
    message = sent(answer(thinking("a"), thinking("b", "reasoning")))[0]
    assert message.keys() == {"role", "content"}


@pytest.mark.parametrize("field", [None, "", "content", "tool_calls", "thinking"])
def test_a_field_that_is_not_for_reasoning_is_never_written(field: str | None) -> None:
    assert sent(answer(thinking("a", field))) == [{"role": "assistant", "content": "done"}]


def test_details_are_sent_in_the_field_they_came_in() -> None:
    details = [{"type": "reasoning.text", "text": "a"}]
    message = sent(answer(thinking("a", "reasoning_details", details=details)))[0]
    assert message["reasoning_details"] == details


def test_tags_before_parts() -> None:
    dialect = Dialect(reasoning_return="tags", think_tags=("thought",), cache_control=True)
    message = sent(answer(thinking("a"), cache_control=CACHED), dialect)[0]
    assert message["content"][0] == {"type": "text", "text": "<thought>a</thought>\n"}
    assert len(message["content"]) == 2


def test_reasoning_is_dropped_where_the_upstream_takes_none() -> None:
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


def test_long_history_yields() -> None:
    """Other streams run in between (docs/spec/operations.md#a8)."""
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
