"""Tools and ``tool_choice`` that the transcripts do not cover."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.openai.request import to_openai_request
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.tools import to_upstream_name
from proxyd.codecs.translation.translated import RequestOptions, Translated


def translate(messages: list[Any], dialect: Dialect | None = None, **fields: Any) -> Translated:
    return to_openai_request(
        {"messages": messages, **fields}, dialect or Dialect(), RequestOptions("m", True)
    )


TOOL = {"name": "T", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("thinking", "default", "choice"),
    [
        (None, False, "required"),
        (None, True, "required"),  # no `thinking` means off
        ("disabled", True, "required"),
        ("adaptive", False, "auto"),
    ],
)
def test_tool_is_not_forced_while_the_model_thinks(thinking: str | None, default: bool, choice: str) -> None:
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


def test_a_removed_tool_can_come_back() -> None:
    def change(kind: str) -> dict[str, Any]:
        block = {"type": kind, "tool": {"type": "tool_reference", "name": "T"}}
        return {"role": "system", "content": [block, "odd", {"type": kind, "tool": {"type": "mcp_toolset"}}]}

    hello = {"role": "user", "content": "hi"}
    assert "tools" not in translate([hello, change("tool_removal")], tools=[TOOL]).body
    assert translate([hello, change("tool_removal"), change("tool_addition")], tools=[TOOL]).body["tools"]


def test_shortened_names_map_back() -> None:
    name = "mcp__server__" + "x" * 70
    translated = translate([{"role": "user", "content": "hi"}], tools=[{**TOOL, "name": name}, TOOL])
    shortened = translated.body["tools"][0]["function"]["name"]
    assert len(shortened) == 64
    assert translated.tool_names == {shortened: name}


@pytest.mark.parametrize(
    ("name", "starts_with_letter", "upstream_name"),
    [
        ("Read", False, "Read"),
        ("1st", False, "1st"),
        ("1st", True, "t1st_e01ddf65"),
        ("_st", True, "t_st_ce26beb9"),
        ("a.b", False, "a_b_2e7336dc"),
        (None, False, "unknown_tool"),
    ],
)
def test_upstream_names(name: Any, starts_with_letter: bool, upstream_name: str) -> None:
    found = to_upstream_name(name, Dialect(tool_names_start_with_letter=starts_with_letter))
    assert found == upstream_name


@pytest.mark.parametrize(
    ("fields", "choice", "names"),
    [
        ({}, {"type": "function", "function": {"name": "T"}}, ["Other", "T"]),
        ({"named_tool_choice": False}, "required", ["T"]),
        ({"named_tool_choice": False, "required_word": "auto"}, "auto", ["T"]),
        (
            {"named_tool_choice": False, "forced_choice_while_thinking": False, "thinks_by_default": True},
            "auto",
            ["Other", "T"],
        ),
    ],
)
def test_named_tool(fields: dict[str, Any], choice: Any, names: list[str]) -> None:
    """Where a choice cannot name a tool, only that one is offered: the client expects no other."""
    body = translate(
        [{"role": "user", "content": "hi"}],
        Dialect(**fields),
        tools=[{**TOOL, "name": "Other"}, TOOL],
        tool_choice={"type": "tool", "name": "T"},
    ).body
    assert body["tool_choice"] == choice
    assert [tool["function"]["name"] for tool in body["tools"]] == names


def test_named_tool_that_is_not_offered() -> None:
    body = translate(
        [{"role": "user", "content": "hi"}],
        Dialect(named_tool_choice=False),
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "Gone"},
    ).body
    assert (body["tool_choice"], len(body["tools"])) == ("auto", 1)
