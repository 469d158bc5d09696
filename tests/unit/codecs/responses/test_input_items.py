"""Conversations as input items: order, reasoning, results, phases, breakpoints."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.responses.input_items import to_input_items
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import run_to_end
from proxyd.codecs.translation.translation_notes import Notes

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}


def items(
    *messages: Any, dialect: Dialect | None = None, refused: tuple[str, ...] = (), system: Any = None
) -> list[dict[str, Any]]:
    steps = to_input_items(
        {"system": system, "messages": list(messages)},
        dialect or Dialect(images_in_tool_results=True, files=True),
        model="up",
        vision=True,
        instructions=None,
        is_refused=refused.__contains__,
        notes=Notes(),
        inputs=ToolInputs(),
    )
    return run_to_end(steps).items


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def thinking(
    text: str, encrypted: str | None, *, model: str = "up", phase: str | None = None
) -> dict[str, Any]:
    fields = {name: value for name, value in (("encrypted_content", encrypted), ("phase", phase)) if value}
    signature = encode_signature(model, "summary", None, None, response_item=fields)
    if text:
        return {"type": "thinking", "thinking": text, "signature": signature}
    return {"type": "redacted_thinking", "data": signature}


def call(call_id: str = "c1") -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "Read", "input": {"a": 1}}


def result(call_id: str = "c1", content: Any = "out", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


TEXT = {"type": "text", "text": "Said."}


def shapes(made: list[dict[str, Any]]) -> list[str]:
    return [item["type"] if item["type"] != "message" else item["role"] for item in made]


def test_blocks_keep_their_order_and_have_no_ids() -> None:
    made = items(
        user("go"),
        assistant(thinking("t1", "g1"), TEXT, call("c1"), thinking("", "g2"), call("c2")),
        user([result("c1"), result("c2")]),
    )
    assert shapes(made) == [
        "user", "reasoning", "assistant", "function_call", "reasoning", "function_call",
        "function_call_output", "function_call_output",
    ]  # fmt: skip
    assert made[1] == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "t1"}],
        "encrypted_content": "g1",
    }
    assert made[4] == {"type": "reasoning", "summary": [], "encrypted_content": "g2"}
    assert made[3] == {"type": "function_call", "call_id": "c1", "name": "Read", "arguments": '{"a":1}'}
    assert not any("id" in item for item in made)


@pytest.mark.parametrize(
    "block",
    [
        thinking("t", "g", model="another"),
        thinking("t", None),
        {"type": "thinking", "thinking": "t", "signature": "Anthropic's own"},
        {"type": "thinking", "thinking": "t"},
        {"type": "redacted_thinking", "data": "Anthropic's own"},
        {"type": "redacted_thinking"},
        thinking("t", "refused"),
    ],
)
def test_reasoning_that_the_upstream_cannot_read_stays_here(block: dict[str, Any]) -> None:
    made = items(user("go"), assistant(block, TEXT), user("on"), refused=("refused",))
    assert shapes(made) == ["user", "assistant", "user"]


def test_reasoning_without_what_it_led_to_is_dropped() -> None:
    made = items(user("go"), assistant(TEXT, thinking("t", "g"), {"type": "text", "text": " \n"}), user("on"))
    assert shapes(made) == ["user", "assistant", "user"]
    only = items(user("go"), assistant(thinking("t", "g"), thinking("", "g")), user("on"))
    assert shapes(only) == ["user", "user"]


def test_reasoning_as_text_for_servers_that_encrypt_nothing() -> None:
    dialect = Dialect(reasoning_items="content", reasoning_item_ids=True)
    block = {
        "type": "thinking",
        "thinking": "plain",
        "signature": encode_signature("up", "content", None, None),
    }
    first, second = (items(user("go"), assistant(block, TEXT), dialect=dialect)[1] for _ in range(2))
    assert first["content"] == [{"type": "reasoning_text", "text": "plain"}]
    assert "encrypted_content" not in first
    assert first["id"].startswith("rs_")
    assert first == second, "the id is the same in each request"
    assert shapes(items(user("go"), assistant(thinking("", "g"), TEXT), dialect=dialect)) == [
        "user",
        "assistant",
    ]
    none = Dialect(reasoning_items="none")
    assert shapes(items(user("go"), assistant(thinking("t", "g"), TEXT), dialect=none)) == [
        "user",
        "assistant",
    ]


def test_images_and_files_stay_inside_a_result() -> None:
    made = items(user("go"), assistant(call()), user([result(content=[TEXT, PNG, PDF])]))
    assert [part["type"] for part in made[2]["output"]] == ["input_text", "input_image", "input_file"]
    assert made[2]["output"][1]["detail"] == "auto"
    assert made[2]["output"][2]["file_data"].startswith("data:application/pdf;base64,")


def test_images_follow_a_result_where_it_cannot_hold_them() -> None:
    dialect = Dialect(images_in_tool_results=False)
    made = items(user("go"), assistant(call()), user([result(content=[PNG])]), dialect=dialect)
    assert made[2]["output"] == "(shown below)"
    assert [part["type"] for part in made[3]["content"]] == ["input_text", "input_image"]


@pytest.mark.parametrize(
    ("block", "output"),
    [
        (result(content="out"), "out"),
        (result(content=[TEXT, TEXT]), "Said.\nSaid."),
        (result(content=None), "(no output)"),
        (result(content="bad", is_error=True), "Error: bad"),
        (result(content="Error: bad", is_error=True), "Error: bad"),
    ],
)
def test_results_as_text(block: dict[str, Any], output: str) -> None:
    assert items(user("go"), assistant(call()), user([block]))[2]["output"] == output


def test_an_image_that_is_an_error_says_so() -> None:
    made = items(user("go"), assistant(call()), user([result(content=[PNG], is_error=True)]))
    assert made[2]["output"][0] == {"type": "input_text", "text": "Error:"}


def test_calls_without_results_and_results_without_calls() -> None:
    made = items(user("go"), assistant(call()), user("never mind"), user([result("other")]))
    assert made[2]["output"] == "(no result: interrupted)"
    assert shapes(made)[3:] == ["user", "user"]
    assert "earlier tool call" in made[4]["content"][0]["text"]


def test_phases_by_signature_and_by_place() -> None:
    dialect = Dialect(message_phases=True)
    history = (
        user("go"),
        assistant(TEXT, call("c1"), thinking("t", "g", phase="final_answer"), TEXT, call("c2"), TEXT),
        user([result("c1"), result("c2")]),
        assistant(TEXT),
    )
    made = items(*history, dialect=dialect)
    assert [item["phase"] for item in made if item.get("role") == "assistant"] == [
        "commentary", "final_answer", "final_answer", "final_answer",
    ]  # fmt: skip
    assert "phase" not in next(item for item in made if item["type"] == "reasoning")
    assert not any("phase" in item for item in items(*history))


def test_neighbouring_texts_are_one_part_without_breakpoints() -> None:
    two = [TEXT, {"type": "text", "text": "More.", "cache_control": {"type": "ephemeral"}}]
    assert items(user(two))[0]["content"] == [{"type": "input_text", "text": "Said.\n\nMore."}]
    parts = items(user(two), dialect=Dialect(cache_control=True))[0]["content"]
    assert parts == [
        {"type": "input_text", "text": "Said."},
        {"type": "input_text", "text": "More.", "prompt_cache_breakpoint": {"mode": "explicit"}},
    ]


def test_the_last_four_breakpoints_are_kept() -> None:
    marked = {"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}
    dialect = Dialect(cache_control=True)
    made = items(
        user([marked, marked, marked]),
        assistant(call()),
        user([result(cache_control={"type": "ephemeral"}), marked]),
        dialect=dialect,
        system=[marked],
    )
    parts = [
        part
        for item in made
        for part in (item.get("content") or item.get("output") or ())
        if isinstance(part, dict)
    ]
    assert ["prompt_cache_breakpoint" in part for part in parts] == [False, False, True, True, True, True]


def test_templates_that_want_turns() -> None:
    dialect = Dialect(strict_alternation=True, leading_system_only=True)
    made = items(user("a"), {"role": "system", "content": "s"}, user("b"), dialect=dialect, system="top")
    assert shapes(made) == ["system", "user"]
    assert made[1]["content"][0]["text"].count("\n\n") == 2
    assert shapes(items(assistant(TEXT), dialect=dialect)) == ["user", "assistant"]


def test_a_conversation_without_content_has_a_message() -> None:
    assert shapes(items(user(" "))) == ["user"]
    assert shapes(items(user([]), system="s")) == ["system", "user"]


def test_summaries_and_server_tools_of_the_history() -> None:
    made = items(
        user("go"),
        assistant(
            {"type": "compaction", "content": "what was"},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            result("x"),
            PNG,
            "text",
            7,
            TEXT,
        ),
    )
    assert shapes(made)[:2] == ["user", "user"]
    assert set(shapes(made)[2:]) == {"assistant"}
