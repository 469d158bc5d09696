"""The comparison of two versions of Claude Code: each kind of difference is found, and what varies by itself is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.client_diff.calls import Call, Calls
from tests.client_diff.compare import report

HEADERS = {
    "user-agent": "claude-cli/2.1.330 (external, cli)",
    "x-claude-code-session-id": "0b54a0a2-41b3-4a51-8a53-0d9d0d6e6f10",
    "anthropic-beta": "claude-code-20250219,effort-2025-11-24",
    "content-length": "1234",
}
BODY: dict[str, Any] = {
    "model": "some-model",
    "max_tokens": 32000,
    "stream": True,
    "metadata": {"user_id": "somebody"},
    "system": [
        {"type": "text", "text": "You work in /tmp/client-diff-abc/project.\nBe brief."},
        {"type": "text", "text": "Today is 2026-11-29.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {"role": "user", "content": "Say hello."},
        {"role": "system", "content": [{"type": "text", "text": "Agents: one."}]},
    ],
    "tools": [
        {"name": "Bash", "description": "Run.", "input_schema": {"type": "object", "required": ["a", "b"]}}
    ],
}


def calls_of(version: str, *calls: Call) -> Calls:
    return Calls(version, list(calls))


def call(
    headers: dict[str, str] | None = None,
    *,
    conversation: str = "first_turns",
    kind: str = "main",
    **fields: Any,
) -> Call:
    body = {**copy.deepcopy(BODY), **fields}
    body = {name: value for name, value in body.items() if value is not None}
    return Call(conversation, kind, "/v1/messages", {**HEADERS, **(headers or {})}, body)


def sections(old: Calls, new: Calls) -> dict[str, list[str]]:
    """Parse a report: section -> lines."""
    found: dict[str, list[str]] = {}
    for block in report(old, new).split("\n\n")[1:]:
        name, *lines = block.splitlines()
        found[name] = [line.removeprefix("  ") for line in lines]
    return found


def changed(*new: Call, before: Call | None = None) -> dict[str, list[str]]:
    found = sections(calls_of("2.1.330", before or call()), calls_of("2.1.331", *new))
    return {
        name: lines
        for name, lines in found.items()
        if lines != ["no change"] and not name.endswith("all of it")
    }


def test_what_varies_by_itself_is_no_difference() -> None:
    system = copy.deepcopy(BODY["system"])
    system[0]["text"] = "You work in /tmp/client-diff-xyz/project.\nBe brief."
    system[1]["text"] = "Today is 2026-12-01."
    other = call(
        {
            "user-agent": "claude-cli/2.1.331 (external, cli)",
            "x-claude-code-session-id": "5d6f1a9e-9d2c-4d2b-9a38-5a1f8d1b6a77",
            "content-length": "1300",
        },
        system=system,
        metadata={"user_id": "another"},
        messages=[{**BODY["messages"][0], "content": "Say good-bye."}, BODY["messages"][1]],
    )
    assert changed(other) == {}


@pytest.mark.parametrize(
    ("new", "section", "lines"),
    [
        (call({"x-new": "a"}), "headers", ["+ x-new: a  (main)"]),
        (
            call({"user-agent": "claude/2.1.331"}),
            "headers",
            [
                "+ user-agent: claude/2.1.331  (main)",
                "- user-agent: claude-cli/<version> (external, cli)  (main)",
            ],
        ),
        (
            call({"anthropic-beta": "claude-code-20250219,effort-2026-01-01"}),
            "betas",
            ["- effort-2025-11-24  (main)", "+ effort-2026-01-01  (main)"],
        ),
        (
            call(max_tokens=64000),
            "fields",
            ["- max_tokens = 32000  (main)", "+ max_tokens = 64000  (main)"],
        ),
        (
            call(thinking={"type": "adaptive"}),
            "fields",
            ["+ thinking.type = adaptive  (main)"],
        ),
        (
            call(tools=[{**BODY["tools"][0], "input_schema": {"type": "object", "required": ["a"]}}]),
            "tools",
            ['~ Bash.input_schema.required[1]: "b" -> (nothing)'],
        ),
        (
            call(tools=[*BODY["tools"], {"name": "New", "input_schema": {}}]),
            "tools",
            ["+ New", "+ offered in main calls: New"],
        ),
        (
            call(
                system=[{"type": "text", "text": "You work in /tmp/client-diff-abc/project.\nBe thorough."}]
            ),
            "system blocks",
            [
                "~ main of first_turns",
                "    - Be brief.",
                "    - (block 1 {'type': 'text', 'cache_control': {'type': 'ephemeral'}})",
                "    - Today is <date>.",
                "    + Be thorough.",
            ],
        ),
        (
            call(messages=[BODY["messages"][0], {"role": "system", "content": "Agents: two."}]),
            "system messages",
            ["~ main of first_turns", "    - Agents: one.", "    + Agents: two."],
        ),
    ],
)
def test_difference_is_reported(new: Call, section: str, lines: list[str]) -> None:
    assert sorted(changed(new)[section]) == sorted(lines)


def test_new_side_call_is_reported_with_what_is_in_it() -> None:
    title = call({"x-title": "1"}, kind="title", tools=None)
    found = changed(call(), title)
    assert found["side calls"] == ["~ first_turns: 1 main -> 1 main, 1 title"]
    assert "+ x-title: 1  (title)" in found["headers"]
    assert "~ max_tokens = 32000  (main -> main, title)" in found["fields"]


def test_what_translation_drops_is_reported() -> None:
    found = changed(call(novelty={"a": 1}))
    assert found["what translation drops or alters"] == ["+ novelty: dropped (unknown field)  (main)"]
    everything = sections(calls_of("1", call()), calls_of("2", call(novelty=1)))
    assert (
        "novelty: dropped (unknown field)" in everything["what translation drops or alters of 2, all of it"]
    )


def test_unknown_endpoints_and_failures_are_reported() -> None:
    old, new = calls_of("1", call()), calls_of("2", call())
    old.refused, new.refused = {"GET /v1/old"}, {"POST /v1/new"}
    new.failures.append("2 tools: Claude Code failed")
    found = sections(old, new)
    assert found["requests that the proxy has no endpoint for"] == ["- GET /v1/old", "+ POST /v1/new"]
    assert report(old, new).endswith("! 2 tools: Claude Code failed\n")


def test_conversation_that_one_version_lacks_is_left_out() -> None:
    old, new = calls_of("1", call()), calls_of("2", call(), call(conversation="tools", max_tokens=1))
    assert sections(old, new)["fields"] == ["no change"]
