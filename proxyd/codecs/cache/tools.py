"""Tool lists and system prompts with the values derived from them, which a client repeats in each request.

Claude Code's tools are two fifths of a first request and stay the same for a whole conversation, so they are
translated, encoded, counted and hashed once. Where requests share the objects (`proxyd.prompt_cache`), that holds for
all of them; else for one request.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from proxyd import jsonio

__all__ = ["SystemPrompt", "ToolList", "shared_system", "tool_list_for"]

_T = TypeVar("_T")


class SystemPrompt:
    """Value of ``system`` in the last request with a tool list. Immutable by convention.

    Attributes:
        value: the parsed value.
        content: its cache key (`jsonio.content_key`).
        raw: bytes of a request from its start to the start of the tools; empty if unusable, None if not located yet.
    """

    __slots__ = ("_literal", "_text", "content", "raw", "value")

    def __init__(self, value: Any, content: bytes) -> None:
        self.value = value
        self.content = content
        self.raw: bytes | None = None
        self._text = ""
        self._literal = b'""'

    def literal(self, text: str) -> bytes:
        """Return `text`, its translation, as JSON in ASCII; encoded once as long as the translation is the same."""
        if self._text != text:
            self._text, self._literal = text, jsonio.dump_ascii(text)
        return self._literal


class ToolList(list[Any]):
    """The value of ``tools`` in a request, with values derived from it. Immutable by convention.

    Attributes:
        raw: its bytes in a request; empty if unusable, None if not located yet.
        system: the system prompt of the last request with this list.
    """

    __slots__ = ("_derived", "raw", "system")

    def __init__(self, tools: list[Any]) -> None:
        super().__init__(tools)
        self.raw: bytes | None = None
        self.system: SystemPrompt | None = None
        self._derived: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, build: Callable[[], _T]) -> _T:
        """Return the derived value of that key; call `build` for it the first time."""
        if key not in self._derived:
            self._derived[key] = build()
        value: _T = self._derived[key]
        return value


def tool_list_for(tools: list[Any]) -> ToolList:
    """Return `tools` with its derived values; a new object where a request does not share it."""
    return tools if isinstance(tools, ToolList) else ToolList(tools)


def shared_system(payload: Mapping[str, Any]) -> SystemPrompt | None:
    """Return what is kept of a request's system prompt, where requests share it."""
    tools, system = payload.get("tools"), payload.get("system")
    known = tools.system if system and isinstance(tools, ToolList) else None
    return known if known is not None and known.value is system else None
