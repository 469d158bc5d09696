"""Clearing old results of tools and old thinking: what is cleared, what never is, and when the prompt changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.token_estimate import estimate_input_tokens
from proxyd.server_tools.context_edits import CLEARED, Edited, apply_edits

TOOLS = {"type": "clear_tool_uses_20250919"}
THINKING = {"type": "clear_thinking_20251015"}


def tokens(value: int) -> dict[str, Any]:
    return {"type": "input_tokens", "value": value}


def uses(value: int) -> dict[str, Any]:
    return {"type": "tool_uses", "value": value}


def call(number: int, name: str = "Read", **given_input: Any) -> dict[str, Any]:
    use = {"type": "tool_use", "id": f"t{number}", "name": name, "input": given_input or {"path": "x" * 400}}
    return {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm" * 100, "signature": "s"}, use],
    }


def result(number: int, size: int = 4000, **more: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": f"t{number}", "content": f"{number} " + "r" * size, **more}
    return {"role": "user", "content": [block]}


def conversation(count: int, **more: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Read them all"}]
    for number in range(count):
        messages += [call(number), result(number, **more)]
    return messages


def edit(messages: list[dict[str, Any]], *edits: dict[str, Any], **fields: Any) -> Edited:
    payload = {"model": "m", "messages": messages, "context_management": {"edits": list(edits)}, **fields}
    before = copy.deepcopy(payload)
    edited = apply_edits(payload, ToolInputs())
    assert payload == before
    return edited


def cleared_in(edited: Edited) -> list[str]:
    return [
        block["tool_use_id"]
        for message in edited.payload["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block.get("content") == CLEARED
    ]


def test_below_the_trigger_nothing_is_cleared() -> None:
    messages = conversation(20)
    edited = edit(messages, TOOLS)
    assert edited.payload == {"model": "m", "messages": messages}
    assert (edited.applied, edited.notes) == ([], ())


def test_beyond_the_trigger_all_but_the_last_results_are_cleared() -> None:
    """At the ninth result, of some 1 150 tokens each; the tenth goes below the trigger again."""
    wanted = {**TOOLS, "trigger": tokens(10_000), "keep": uses(4)}
    assert cleared_in(edit(conversation(8), wanted)) == []
    edited = edit(conversation(10), wanted)
    assert cleared_in(edited) == ["t0", "t1", "t2", "t3", "t4"]
    (applied,) = edited.applied
    assert applied["type"] == TOOLS["type"]
    assert applied["cleared_tool_uses"] == 5
    (note,) = edited.notes
    assert (note.path, note.what) == ("messages", "results of 5 tool uses cleared")


def test_the_reported_tokens_are_those_that_the_estimate_lost() -> None:
    for more in ({}, {"clear_tool_inputs": True}):
        messages = conversation(12)
        edited = edit(messages, {**TOOLS, "trigger": tokens(8_000), **more})
        lost = estimate_input_tokens({"messages": messages}) - estimate_input_tokens(edited.payload)
        (applied,) = edited.applied
        assert abs(lost - applied["cleared_input_tokens"]) <= applied["cleared_tool_uses"] * 3


def test_tool_uses_can_be_the_trigger() -> None:
    assert cleared_in(edit(conversation(6), {**TOOLS, "trigger": uses(6)})) == []
    assert cleared_in(edit(conversation(7), {**TOOLS, "trigger": uses(6)})) == ["t0", "t1", "t2", "t3"]


def test_less_than_clear_at_least_is_not_cleared() -> None:
    wanted = {**TOOLS, "trigger": tokens(5_000), "keep": uses(2)}
    assert cleared_in(edit(conversation(5), wanted))
    assert cleared_in(edit(conversation(5), {**wanted, "clear_at_least": tokens(50_000)})) == []


def test_excluded_tools_stay_and_inputs_are_cleared_where_asked() -> None:
    messages = conversation(3)
    messages[1] = call(0, "web_search", q="x" * 400)
    wanted = {**TOOLS, "trigger": tokens(100), "keep": uses(0)}
    assert cleared_in(edit(messages, {**wanted, "exclude_tools": ["web_search"]})) == ["t1", "t2"]
    for inputs, expected in (
        (False, [False] * 3),
        (True, [True] * 3),
        (["web_search"], [True, False, False]),
    ):
        edited = edit(messages, {**wanted, "clear_tool_inputs": inputs})
        calls = [message["content"][1] for message in edited.payload["messages"][1::2]]
        assert [each["input"] == {} for each in calls] == expected


def test_what_the_user_said_in_a_result_stays() -> None:
    messages = conversation(4)
    messages[1] = call(0, "AskUserQuestion", question="x" * 400)
    messages[3] = call(1, "ExitPlanMode", plan="x" * 400)
    messages[6] = result(2, is_error=True)
    assert cleared_in(edit(messages, {**TOOLS, "trigger": tokens(100), "keep": uses(0)})) == ["t3"]


def test_a_result_without_its_call_stays() -> None:
    messages = conversation(3)
    messages[1]["content"][1]["id"] = "other"
    assert cleared_in(edit(messages, {**TOOLS, "trigger": tokens(100), "keep": uses(0)})) == ["t1", "t2"]


def thinking_in(edited: Edited) -> list[int]:
    return [
        number
        for number, message in enumerate(edited.payload["messages"])
        if message["role"] == "assistant" and message["content"][0]["type"] == "thinking"
    ]


def test_thinking_of_old_turns_is_cleared_and_that_of_one_turn_kept_together() -> None:
    messages = conversation(2)
    messages += [{"role": "assistant", "content": [{"type": "text", "text": "Done"}]}]
    for first in (2, 4):
        messages += [{"role": "user", "content": "More"}, *conversation(6)[1 + 2 * first : 5 + 2 * first]]
    for kept, places in ((1, [12, 14]), (2, [7, 9, 12, 14]), (3, [1, 3, 7, 9, 12, 14])):
        edited = edit(messages, {**THINKING, "keep": {"type": "thinking_turns", "value": kept}})
        assert thinking_in(edited) == places
        assert [each["cleared_thinking_turns"] for each in edited.applied] == [3 - kept] * (kept < 3)


@pytest.mark.parametrize("keep", [{}, {"keep": "all"}, {"keep": {"type": "all"}}])
def test_all_thinking_is_kept_by_default(keep: dict[str, Any]) -> None:
    messages = conversation(9)
    edited = edit(messages, {**THINKING, **keep})
    assert edited.payload == {"model": "m", "messages": messages}


def test_an_edit_that_is_not_known_stays_in_the_request() -> None:
    compact = {"type": "compact_20260112"}
    edited = edit(conversation(1), compact, {**THINKING, "keep": "all"})
    assert edited.payload["context_management"] == {"edits": [compact]}
    payload = {"messages": [], "context_management": {"edits": [compact]}}
    assert apply_edits(payload, ToolInputs()).payload is payload


@pytest.mark.parametrize(
    "config", [None, 3, {}, {"edits": None}, {"edits": [None, 3, {}]}, {"edits": [{"type": ["x"]}]}]
)
def test_malformed_edits_change_nothing(config: Any) -> None:
    payload = {"messages": conversation(2), "context_management": config}
    assert apply_edits(payload, ToolInputs()).payload is payload


@pytest.mark.parametrize("bad", [None, "x", [], {"value": "x"}, {"value": -1}, {"value": True}])
def test_malformed_values_are_the_defaults(bad: Any) -> None:
    messages = conversation(150)
    plain = edit(messages, TOOLS)
    assert cleared_in(plain)
    assert edit(messages, {**TOOLS, "trigger": bad, "keep": bad, "clear_at_least": bad}) == plain


# -- properties

WORDS = st.text(alphabet="abc ", min_size=1, max_size=200)
TURN = st.tuples(
    st.lists(
        st.tuples(st.sampled_from(["Read", "Bash", "AskUserQuestion"]), st.integers(0, 6000)), max_size=3
    ),
    st.integers(0, 300),
    st.none() | WORDS,
    st.booleans(),
)
EDITS = st.tuples(
    st.fixed_dictionaries(
        {"type": st.just(TOOLS["type"])},
        optional={
            "trigger": st.one_of(st.integers(0, 8000).map(tokens), st.integers(0, 6).map(uses)),
            "keep": st.integers(0, 5).map(uses),
            "clear_at_least": st.integers(0, 3000).map(tokens),
            "exclude_tools": st.lists(st.sampled_from(["Read", "Bash"]), max_size=1),
            "clear_tool_inputs": st.booleans() | st.just(["Bash"]),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just(THINKING["type"])},
        optional={
            "keep": st.just("all") | st.integers(1, 3).map(lambda n: {"type": "thinking_turns", "value": n})
        },
    ),
)


def grown(turns: list[Any]) -> list[list[dict[str, Any]]]:
    """Return the messages of each call of one growing conversation."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Begin"}]
    calls, number = [list(messages)], 0
    for tools, thinking, words, is_error in turns:
        content: list[Any] = (
            [{"type": "thinking", "thinking": "t" * thinking, "signature": "s"}] if thinking else []
        )
        results: list[Any] = []
        for name, size in tools:
            number += 1
            content.append(
                {"type": "tool_use", "id": f"t{number}", "name": name, "input": {"a": "x" * (size // 9)}}
            )
            answer = {"type": "tool_result", "tool_use_id": f"t{number}", "content": "r" * size}
            results.append({**answer, "is_error": True} if is_error else answer)
        if words is not None or not results:
            results.append({"type": "text", "text": words or "on"})
        messages += [
            {"role": "assistant", "content": content or [{"type": "text", "text": "ok"}]},
            {"role": "user", "content": results},
        ]
        calls.append(list(messages))
    return calls


def texts_of(messages: list[dict[str, Any]]) -> list[Any]:
    """Return the user's words: texts, answers to questions, and what failed results hold."""
    asking = {
        block["id"]
        for message in messages
        if message["role"] == "assistant"
        for block in message["content"]
        if block.get("name") == "AskUserQuestion"
    }
    found: list[Any] = []
    for message in messages:
        if message["role"] != "user":
            continue
        for block in message["content"] if isinstance(message["content"], list) else [message["content"]]:
            if isinstance(block, str) or block["type"] == "text":
                found.append(block)
            elif block.get("is_error") or block["tool_use_id"] in asking:
                found.append(block["content"])
    return found


def pairs_of(messages: list[dict[str, Any]]) -> list[Any]:
    return [
        (number, block["type"], block.get("id") or block.get("tool_use_id"), block.get("name"))
        for number, message in enumerate(messages)
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] in ("tool_use", "tool_result")
    ]


@given(st.lists(TURN, max_size=12), EDITS)
def test_words_and_pairs_survive_and_the_prompt_keeps_its_beginning(turns: list[Any], edits: Any) -> None:
    before: list[dict[str, Any]] | None = None
    applied_before: list[dict[str, Any]] = []
    for messages in grown(turns):
        edited = edit(messages, *edits)
        sent = edited.payload["messages"]
        assert texts_of(sent) == texts_of(messages)
        assert pairs_of(sent) == pairs_of(messages)
        assert len(sent) == len(messages)
        assert edit(messages, *edits) == edited
        if before is not None and edited.applied == applied_before:
            assert sent[: len(before)] == before
        if before is not None:  # what was cleared stays cleared
            for old, new in zip(before, sent, strict=False):
                if isinstance(old["content"], list):
                    was = {b["tool_use_id"] for b in old["content"] if b.get("content") == CLEARED}
                    still = {b["tool_use_id"] for b in new["content"] if b.get("content") == CLEARED}
                    assert was <= still
        before, applied_before = sent, edited.applied


@given(st.lists(st.integers(200, 4000), min_size=1, max_size=60), st.integers(2_000, 8_000))
def test_results_are_cleared_seldom_and_many_at_once(sizes: list[int], trigger: int) -> None:
    wanted = {**TOOLS, "trigger": tokens(trigger), "keep": uses(2)}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Begin"}]
    cleared = changes = 0
    for number, size in enumerate(sizes):
        messages += [call(number), result(number, size)]
        applied = edit(messages, wanted).applied
        now = applied[0]["cleared_input_tokens"] if applied else 0
        if now != cleared:
            changes += 1
            assert now - cleared >= trigger // 20
        cleared = now
    total = estimate_input_tokens({"messages": messages})
    assert changes <= total // (trigger // 20) + 1
