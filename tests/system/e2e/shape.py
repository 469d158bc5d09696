"""Outlines of requests for reports: kinds, names and lengths, never a text. Malformed requests are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["shape_of"]

#: Fields whose value is shown, because it holds no text of a user.
SHOWN = frozenset({"model", "tool_choice", "reasoning_effort", "stream_options"})


def shape_of(body: Mapping[str, Any]) -> str:
    """Return the outline of a request in either dialect, a line per message."""
    fields = [
        f"{key}={value!r}" if key in SHOWN or isinstance(value, (bool, int, float)) else key
        for key, value in body.items()
        if key not in ("messages", "tools", "system")
    ]
    lines = [" ".join(fields)]
    if "system" in body:
        lines.append(f"    (system)   {_content(body['system'])}")
    lines += [f"    {_message(message)}" for message in _dicts(body.get("messages"))]
    names = [str((tool.get("function") or tool).get("name", "?")) for tool in _dicts(body.get("tools"))]
    lines.append(f"    ({len(names)} tools) {', '.join(names)}")
    return "\n".join(lines)


def _message(message: Mapping[str, Any]) -> str:
    parts = [_content(message.get("content"))]
    if "tool_call_id" in message:
        parts.append(f"answers {message['tool_call_id']}")
    parts += [f"{key} {len(str(message[key]))}" for key in message if key.startswith("reasoning")]
    for call in _dicts(message.get("tool_calls")):
        parts.append(f"call {(call.get('function') or {}).get('name')} {call.get('id')}")
    return f"{message.get('role', '?'):10} " + ", ".join(parts)


def _content(content: Any) -> str:
    if content is None:
        return "nothing"
    if isinstance(content, str):
        return f"text {len(content)}"
    outlines = []
    for part in _dicts(content):
        kind = str(part.get("type", "?"))
        outlines.append(
            f"{kind} {part.get('name') or part.get('tool_use_id') or len(str(part.get(kind, '')))}"
        )
    return ", ".join(outlines)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
