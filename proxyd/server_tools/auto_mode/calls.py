"""The calls of tools in a response, and which of them Claude Code runs without a verdict.

A call whose input is no whole JSON object is kept as unreadable: nobody can judge it, nor will Claude Code run it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from posixpath import normpath
from typing import Any

__all__ = ["ToolUse", "calls_in", "needs_no_check"]

#: Under this name the proxy and Claude Code keep arguments that are no object.
_UNPARSED = "__unparsedToolInput"

#: Tools of Claude Code that change nothing outside the session.
_PASSIVE = frozenset(
    {
        "Read",
        "Glob",
        "Grep",
        "LS",
        "NotebookRead",
        "BashOutput",
        "TaskOutput",
        "TaskList",
        "TaskGet",
        "TaskCreate",
    }
    | {"TaskUpdate", "TodoWrite", "ToolSearch", "AskUserQuestion", "EnterPlanMode", "ExitPlanMode"}
    | {"SubagentHandback"}
)
#: Tools that write one file -> the member with its path.
_WRITERS = {
    "Write": "file_path",
    "Edit": "file_path",
    "MultiEdit": "file_path",
    "NotebookEdit": "notebook_path",
}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call; `input` is None where it is unreadable."""

    id: str
    name: str
    input: Mapping[str, Any] | None


def calls_in(content: Any) -> list[ToolUse]:
    """Return the calls in the content of a whole message."""
    blocks = content if isinstance(content, list) else []
    return [
        _tool_use(block, block.get("input"))
        for block in blocks
        if isinstance(block, Mapping) and block.get("type") == "tool_use"
    ]


def _tool_use(block: Mapping[str, Any], value: Any) -> ToolUse:
    is_readable = isinstance(value, Mapping) and _UNPARSED not in value
    return ToolUse(str(block.get("id")), str(block.get("name")), value if is_readable else None)


def needs_no_check(call: ToolUse, context: Mapping[str, Any]) -> bool:
    """Whether Claude Code runs a call without a verdict: it only reads, or writes a file of the working folder."""
    if call.name in _PASSIVE:
        return True
    path = (call.input or {}).get(_WRITERS.get(call.name, ""))
    if not isinstance(path, str) or not path.startswith("/") or normpath(path) != path:
        return False
    return not _is_hidden(path) and any(path.startswith(f"{folder}/") for folder in _folders(context))


def _is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot: such files steer git, editors and Claude Code itself."""
    return "/." in path


def _folders(context: Mapping[str, Any]) -> Sequence[str]:
    trusted = context.get("trusted_directories")
    primary = trusted.get("primary") if isinstance(trusted, Mapping) else None
    path = primary.get("path") if isinstance(primary, Mapping) else None
    return [path] if isinstance(path, str) and path.startswith("/") and len(path) > 1 else []
