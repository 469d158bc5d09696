"""What vendors refuse in a body beside schemas and messages. Each function returns the vendor's words, or None."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from tests.support.strict_openai import validate
from tests.support.vendors.engine import Body

__all__ = [
    "at_path", "chat_completions", "count_of_tools", "effort_with_tools", "forced_choice", "no_field", "only_fields",
    "only_values", "stop_sequences", "whole_number",
]  # fmt: skip

Finds = Callable[[Body], "str | tuple[str, str] | None"]


def at_path(body: Body, path: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def chat_completions(*, other_fields: bool) -> Finds:
    """What is no Chat Completions request at all."""

    def finds(body: Body) -> str | None:
        violations = validate(dict(body), other_fields=other_fields)
        if other_fields:  # vendors have words of their own for these
            own = ("reasoning_effort:", "tool_choice: not none")
            violations = [words for words in violations if not words.startswith(own)]
        return f"Invalid request: {violations[0]}" if violations else None

    return finds


def no_field(path: str, words: str) -> Finds:
    """A field that may not be there; `words` may hold ``{value}``."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        value = at_path(body, path)
        return None if value is None else (words.format(value=value), path)

    return finds


def only_fields(known: Collection[str], words: str) -> Finds:
    """Fields at the top that are not known; `words` may hold ``{field}``."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        unknown = sorted(set(body) - set(known))
        return (words.format(field=unknown[0]), unknown[0]) if unknown else None

    return finds


def only_values(path: str, allowed: Collection[Any], words: str) -> Finds:
    """A field whose values are few; absent it is fine. `words` may hold ``{value}`` and ``{allowed}``."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        value = at_path(body, path)
        if value is None or value in allowed:
            return None
        return words.format(value=value, allowed=", ".join(f"'{each}'" for each in allowed)), path

    return finds


def whole_number(path: str, low: int, high: int, words: str) -> Finds:
    """A number with bounds; `words` may hold ``{value}``."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        value = at_path(body, path)
        if value is None or (isinstance(value, int) and low <= value <= high):
            return None
        return words.format(value=value), path

    return finds


def stop_sequences(limit: int, words: str) -> Finds:
    """More entries of ``stop`` than `limit`."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        stop = body.get("stop") or []
        return (words, "stop") if len([stop] if isinstance(stop, str) else stop) > limit else None

    return finds


def count_of_tools(limit: int, words: str) -> Finds:
    """More tools than `limit`; `words` may hold ``{count}``."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        count = len(body.get("tools") or [])
        return (words.format(count=count), "tools") if count > limit else None

    return finds


def effort_with_tools(allowed: Collection[str | None], words: str) -> Finds:
    """Efforts that may go with tools, None for an absent field; `words` may hold ``{model}``."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        if not body.get("tools") or body.get("reasoning_effort") in allowed:
            return None
        return words.format(model=body["model"]), "reasoning_effort"

    return finds


def forced_choice(
    words: str, *, when: Callable[[Body], bool] = lambda body: True, named_only: bool = False
) -> Finds:
    """A tool that must be called."""

    def finds(body: Body) -> str | tuple[str, str] | None:
        choice = body.get("tool_choice")
        is_forced = isinstance(choice, dict) or (not named_only and choice in ("required", "any"))
        return (words, "tool_choice") if is_forced and when(body) else None

    return finds
