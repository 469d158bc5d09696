"""The calls of a message, and those that Claude Code does not ask about."""

from __future__ import annotations

import pytest

from proxyd.server_tools.auto_mode.calls import ToolUse, calls_in, needs_no_check

CONTEXT = {"trusted_directories": {"primary": {"path": "/home/me/p"}, "additional": []}}


def tool(name: str, tool_id: str) -> dict[str, object]:
    return {"type": "tool_use", "id": tool_id, "name": name, "input": {}}


def test_calls_of_a_whole_message() -> None:
    content = [
        {"type": "text", "text": "x"},
        {**tool("Bash", "a"), "input": {"command": "ls"}},
        {**tool("Bash", "b"), "input": {"__unparsedToolInput": {"raw": "{", "len": 1}}},
        "junk",
    ]
    assert calls_in(content) == [ToolUse("a", "Bash", {"command": "ls"}), ToolUse("b", "Bash", None)]
    assert calls_in("text") == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Read", {"file_path": "/etc/passwd"}, True),
        ("Write", {"file_path": "/home/me/p/a.py"}, True),
        ("Edit", {"file_path": "/home/me/p/src/a.py"}, True),
        ("Write", {"file_path": "/home/me/p/../x"}, False),
        ("Write", {"file_path": "/home/me/p/.claude/settings.json"}, False),
        ("Write", {"file_path": "/home/me/pp/a"}, False),
        ("Write", {"file_path": "a.py"}, False),
        ("Write", {"file_path": 3}, False),
        ("Write", {}, False),
        ("Bash", {"command": "ls"}, False),
        ("Agent", {"prompt": "x"}, False),
        ("mcp__x__Read", {}, False),
    ],
)
def test_calls_that_claude_code_does_not_ask_about(
    name: str, value: dict[str, object], expected: bool
) -> None:
    assert needs_no_check(ToolUse("a", name, value), CONTEXT) is expected


@pytest.mark.parametrize(
    "context", [{}, {"trusted_directories": 3}, {"trusted_directories": {"primary": {"path": "/"}}}]
)
def test_without_a_folder_every_write_is_checked(context: dict[str, object]) -> None:
    assert not needs_no_check(ToolUse("a", "Write", {"file_path": "/p/a"}), context)
