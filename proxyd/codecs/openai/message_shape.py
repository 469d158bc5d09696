"""Fit messages to the upstream's template, after they were translated: order, neighbours, empty contents.

Each function changes a list of messages that belongs to one request, and returns it or another one.
"""

from __future__ import annotations

from typing import Any

from proxyd.codecs.translation.content_blocks import Part, collapse
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["Message", "called_names", "fitted", "joined"]

#: One Chat Completions message.
Message = dict[str, Any]

_SYSTEM = ("system", "developer")


def fitted(messages: list[Message], dialect: Dialect, notes: Notes) -> list[Message]:
    """Return the messages of a conversation as the upstream's template takes them."""
    first = next((n for n, m in enumerate(messages) if m["role"] not in _SYSTEM), None)
    if first is None:
        notes.add("messages", "got a user message", "no message has any content")
        messages.append({"role": "user", "content": "(no content)"})
    elif dialect.strict_alternation and messages[first]["role"] != "user":
        notes.add("messages", "got a user message at the start", "the upstream's template wants one")
        messages.insert(first, {"role": "user", "content": "(the conversation goes on)"})
    if dialect.strict_alternation or dialect.system_role == "user":
        messages = _alternating(messages)
    if dialect.one_call_per_message:
        messages = _with_single_calls(messages)
    if dialect.empty_content is not None:
        for message in messages:
            if message["content"] is None:
                message["content"] = dialect.empty_content
    last = messages[-1]
    if last["role"] == "assistant" and dialect.prefill_message:
        last.update(dialect.prefill_message)
    return messages


def _alternating(messages: list[Message]) -> list[Message]:
    """Merge neighbouring user messages, and put a user message between neighbouring assistant messages, where the
    user's own was blank."""
    result: list[Message] = []
    for message in messages:
        before: Message = result[-1] if result else {"role": ""}
        if message["role"] == before["role"] == "user":
            before["content"] = joined(before["content"], message["content"])
            continue
        if message["role"] == before["role"] == "assistant":
            result.append({"role": "user", "content": "(no content)"})
        result.append(message)
    return result


def _with_single_calls(messages: list[Message]) -> list[Message]:
    """Spread a message with several tool calls over one message for each call, followed by its result."""
    result: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            result.append(message)
            continue
        answers = {each["tool_call_id"]: each for each in messages[at : at + len(calls)]}
        at += len(calls)
        for number, call in enumerate(calls):
            if number:
                result.append({"role": "assistant", "content": None, "tool_calls": [call]})
            else:
                result.append({**message, "tool_calls": [call]})
            result.append(answers[call["id"]])
    return result


def called_names(messages: list[Message]) -> list[str]:
    """Return the names of the tools that the history calls, each once."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    return list(dict.fromkeys(call["function"]["name"] for call in calls))


def joined(first: str | list[Part], second: str | list[Part]) -> str | list[Part]:
    """Return the content of two messages as that of one."""
    return collapse(_as_parts(first) + _as_parts(second))


def _as_parts(content: str | list[Part]) -> list[Part]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
