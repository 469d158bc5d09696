"""Other forms in which servers and gateways write the same things: texts, tool calls, whole chunks.

What is not recognised would be lost without a sign, so each form that was seen is read
(docs/spec/chat-to-messages.md#forms).
"""

from __future__ import annotations

from typing import Any

__all__ = ["call_fragments", "parts_of", "text_of", "unwrapped"]

#: Members in which gateways wrap a chunk.
_WRAPPERS = ("data", "result", "response", "body")
#: Members of an object that holds a text.
_TEXTS = ("text", "content", "value", "summary")
#: Members of a call that hold arguments, beside ``arguments``.
_ARGUMENTS = ("parameters", "input", "args")
_MAX_NESTING = 4


def unwrapped(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return the chunk that `chunk` wraps, or itself."""
    if "choices" in chunk:
        return chunk
    for name in _WRAPPERS:
        inner = chunk.get(name)
        if isinstance(inner, dict) and isinstance(inner.get("choices"), list):
            return inner
    return chunk


def parts_of(content: Any) -> list[dict[str, Any]]:
    """Return the parts of a content that is no string: a list of parts or strings, or one part."""
    listed = content if isinstance(content, list) else [content]
    parts = []
    for item in listed:
        if isinstance(item, str):
            parts.append({"type": "text", "text": item})
        elif isinstance(item, dict):
            parts.append(item)
    return parts


def text_of(value: Any, depth: int = _MAX_NESTING) -> str:
    """Return the text in a value: a string, an object that holds one, or a list of these."""
    if isinstance(value, str):
        return value
    if depth == 0:
        return ""
    if isinstance(value, list):
        return "".join(text_of(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return next((text for name in _TEXTS if (text := text_of(value.get(name), depth - 1))), "")
    return ""


def call_fragments(tool_calls: Any) -> list[Any]:
    """Return the elements of ``delta.tool_calls``, each with its name and arguments in ``function``."""
    listed = (
        tool_calls if isinstance(tool_calls, list) else [tool_calls] if isinstance(tool_calls, dict) else []
    )
    return [_fragment(each) if isinstance(each, dict) else each for each in listed]


def _fragment(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict):
        if function is None and isinstance(call.get("name"), str):
            members = ("name", "arguments", *_ARGUMENTS)
            return _fragment({**call, "function": {name: call[name] for name in members if name in call}})
        return call
    if "arguments" in function:
        return call
    given = next((function[name] for name in _ARGUMENTS if isinstance(function.get(name), (dict, str))), None)
    return call if given is None else {**call, "function": {**function, "arguments": given}}
