"""What vendors refuse in the order and the contents of messages. Each function returns the vendor's words, or None."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.support.vendors.engine import Body

__all__ = [
    "alternating_roles", "leading_system", "mistral_order", "named_results", "no_parts", "no_role", "only_fields",
    "reasoning_given_back", "thought_signatures", "tool_ids",
]  # fmt: skip

Finds = Callable[[Body], "str | tuple[str, str] | None"]


def _messages(body: Body) -> list[dict[str, Any]]:
    return list(body.get("messages") or [])


def _parts(body: Body) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, message in enumerate(_messages(body)):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            yield number, part


def leading_system(words: str) -> Finds:
    """One system message, at the start."""

    def finds(body: Body) -> str | None:
        later = [message for message in _messages(body)[1:] if message["role"] in ("system", "developer")]
        return words if later else None

    return finds


def alternating_roles(words: str) -> Finds:
    """User and assistant in turns, tools aside, the user first."""

    def finds(body: Body) -> str | None:
        turns = [
            message["role"]
            for message in _messages(body)
            if message["role"] == "user" or (message["role"] == "assistant" and not message.get("tool_calls"))
        ]
        expected = itertools.cycle(("user", "assistant"))
        return words if any(role != wanted for role, wanted in zip(turns, expected, strict=False)) else None

    return finds


#: Role -> the roles that may follow it.
_MISTRAL = {
    "system": ("user", "assistant"),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def mistral_order(body: Body) -> str | None:
    """Mistral's order of roles."""
    roles = [message["role"] for message in _messages(body)]
    for before, after in itertools.pairwise(roles):
        if after not in _MISTRAL.get(before, ()):
            return f"Unexpected role '{after}' after role '{before}'"
    if roles and roles[-1] not in ("user", "tool", "assistant"):
        return (
            f"Expected last role User or Tool (or Assistant with prefix True) for serving but got {roles[-1]}"
        )
    return None


def no_role(role: str, words: str) -> Finds:
    """A role that is not known."""

    def finds(body: Body) -> str | None:
        return words if any(message["role"] == role for message in _messages(body)) else None

    return finds


def no_parts(kind: str, words: str) -> Finds:
    """Parts of a type that is not taken; `words` may hold ``{n}``, the message's number."""

    def finds(body: Body) -> str | None:
        for number, part in _parts(body):
            if part.get("type") == kind:
                return words.format(n=number)
        return None

    return finds


def only_fields(role: str, known: frozenset[str], words: str) -> Finds:
    """Fields of messages that are not known; `words` may hold ``{n}`` and ``{field}``."""

    def finds(body: Body) -> str | None:
        for number, message in enumerate(_messages(body)):
            unknown = sorted(set(message) - known) if message["role"] == role else []
            if unknown:
                return words.format(n=number, field=unknown[0])
        return None

    return finds


def tool_ids(pattern: str, words: str) -> Finds:
    """Ids of tool calls that do not match `pattern`; `words` may hold ``{id}``, ``{n}`` and ``{length}``."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        for number, message in enumerate(_messages(body)):
            for place, call in enumerate(message.get("tool_calls") or ()):
                if not re.fullmatch(pattern, call["id"]):
                    param = f"messages[{number}].tool_calls[{place}].id"
                    return words.format(id=call["id"], n=number, length=len(call["id"])), param
        return None

    return finds


def named_results(words: str) -> Finds:
    """Each tool message names its tool; `words` may hold ``{n}``."""

    def finds(body: Body) -> str | None:
        for number, message in enumerate(_messages(body)):
            if message["role"] == "tool" and not message.get("name"):
                return words.format(n=number)
        return None

    return finds


def reasoning_given_back(
    words: str, *, thinks: Callable[[Body], bool], field: str = "reasoning_content"
) -> Finds:
    """While the model thinks, each assistant message with tool calls must hold its reasoning."""

    def finds(body: Body) -> str | None:
        if not thinks(body):
            return None
        for number, message in enumerate(_messages(body)):
            if message["role"] == "assistant" and message.get("tool_calls") and field not in message:
                return words.format(n=number)
        return None

    return finds


def thought_signatures(body: Body) -> str | None:
    """Gemini: the first call of each turn carries its signature."""
    for message in _messages(body):
        for call in (message.get("tool_calls") or ())[:1]:
            google = (call.get("extra_content") or {}).get("google") or {}
            if not google.get("thought_signature"):
                name = call["function"]["name"]
                return (
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools "
                    f"to work correctly. Function call `{name}`."
                )
    return None
