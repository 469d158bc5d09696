"""Calls collected from a stream equal those of the whole message."""

from __future__ import annotations

import pytest

from proxyd.codecs.anthropic.events import BlockStart, BlockStop, JsonDelta, TextDelta
from proxyd.server_tools.auto_mode.calls import CallCollector, ToolUse, calls_in, needs_no_check

CONTEXT = {"trusted_directories": {"primary": {"path": "/home/me/p"}, "additional": []}}


def tool(name: str, tool_id: str) -> dict[str, object]:
    return {"type": "tool_use", "id": tool_id, "name": name, "input": {}}


def test_calls_are_collected_in_order_of_their_ends() -> None:
    collector = CallCollector()
    collector.add_all([BlockStart(0, {"type": "text", "text": ""}), TextDelta(0, "I run it."), BlockStop(0)])
    collector.add_all([BlockStart(1, tool("Bash", "a")), JsonDelta(1, '{"command":'), JsonDelta(1, '"ls"}')])
    collector.add_all([BlockStop(1), BlockStart(2, tool("Now", "b")), BlockStop(2)])
    collector.add_all([BlockStart(3, tool("Bash", "c")), JsonDelta(3, '{"comm'), BlockStop(3)])
    collector.add_all([BlockStart(4, tool("Bash", "d")), JsonDelta(4, "[1]"), BlockStop(4)])
    collector.add_all([BlockStart(5, tool("Bash", "e")), JsonDelta(5, '{"command":"never en')])
    assert collector.calls() == [
        ToolUse("a", "Bash", {"command": "ls"}),
        ToolUse("b", "Now", {}),
        ToolUse("c", "Bash", None),
        ToolUse("d", "Bash", None),
        ToolUse("e", "Bash", None),
    ]


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
