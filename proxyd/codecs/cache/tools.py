"""LRU cache of tool lists and system prompts, which a client repeats in each request, and of values derived from them.

Claude Code's tools are two fifths of a first request and stay the same for a whole conversation, so they are
translated, encoded, counted and hashed once. The cache key is the content of the list: a list that differs in one
character is another entry.

From its third request on a list is found by its raw bytes and not parsed any more (`proxyd.prompt_cache.parser`). The
bytes are located when a list comes for the second time, since it is then likely to come again. The same holds for the
system prompt that came with the list both times, if it stands directly before the tools, where Claude Code writes it:
another tenth of a request. It contains neither the conversation nor the user's environment, which are in the messages
(docs/spec/claude-code.md#surroundings).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from proxyd import jsonio
from proxyd.codecs.wire.json_patch import span_of

__all__ = ["SystemPrompt", "ToolList", "find_tool_list", "share_tools", "shared_system", "tool_list_for"]

_T = TypeVar("_T")

#: Cached lists: each conversation has one, and so have subagents.
_MAX_LISTS = 8
#: Size limit of one entry, in bytes of its content; larger lists are not cached.
_MAX_BYTES = 1 << 20
#: A list is searched for by its last bytes, and only near the end of a request, where Claude Code writes its tools: a
#: search through the whole request would take longer than parsing a small list.
_TAIL_BYTES, _NEAR_END_BYTES = 32, 4096


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


class ToolList:
    """One tool list and values derived from it. Immutable by convention.

    Attributes:
        tools: the parsed list.
        raw: its bytes in a request; empty if unusable, None if not located yet.
        system: the system prompt of the last request with this list.
    """

    __slots__ = ("_derived", "raw", "system", "tools")

    def __init__(self, tools: list[Any]) -> None:
        self.tools = tools
        self.raw: bytes | None = None
        self.system: SystemPrompt | None = None
        self._derived: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, build: Callable[[], _T]) -> _T:
        """Return the derived value of that key; call `build` for it the first time."""
        if key not in self._derived:
            self._derived[key] = build()
        value: _T = self._derived[key]
        return value


_known: OrderedDict[bytes, ToolList] = OrderedDict()


def share_tools(payload: dict[str, Any], body: bytes) -> None:
    """Replace tools and system prompt of a parsed request by the equal objects of earlier requests, and cache them.

    Args:
        body: the bytes of `payload`.
    """
    tools = payload.get("tools")
    if isinstance(tools, list) and tools:
        found = tool_list_for(tools)
        if found.tools is not tools and found.raw is None:
            found.raw = _raw_of(tools, body)
        payload["tools"] = found.tools
        system = payload.get("system")
        if system and (found.system is None or found.system.value is not system):
            payload["system"] = _shared(system, found, body)


def _shared(system: Any, found: ToolList, body: bytes) -> Any:
    """Return `system`, or the equal value of the last request with the same tools."""
    content = jsonio.content_key(system)
    if len(content) > _MAX_BYTES:
        return system
    known = found.system
    if known is None or known.content != content:
        known = found.system = SystemPrompt(system, content)
    elif known.raw is None and found.raw:
        known.raw = _raw_system_of(found.raw, system, body)
    return known.value


def shared_system(payload: dict[str, Any]) -> SystemPrompt | None:
    """Return the cache entry of a request's system prompt, if `share_tools` has put it there."""
    tools, system = payload.get("tools"), payload.get("system")
    known = tool_list_for(tools).system if system and isinstance(tools, list) and tools else None
    return known if known is not None and known.value is system else None


def find_tool_list(body: bytes) -> tuple[ToolList, int] | None:
    """Return the list whose bytes occur near the end of `body`, and their offset.

    They are a complete JSON value; whether `body` has them as a value, and where, must be checked by a parser.
    """
    for content, found in tuple(reversed(_known.items())):
        raw = found.raw
        if not raw:
            continue
        tail = raw[-_TAIL_BYTES:]
        at = body.rfind(tail, -_NEAR_END_BYTES) + len(tail) - len(raw)
        if at >= 0 and body.startswith(raw, at):
            _known[content] = _known.pop(content, found)  # the last one is the last to be evicted
            return found, at
    return None


def _raw_of(tools: list[Any], body: bytes) -> bytes:
    """Return the bytes of the tools in a request; empty if too long to cache, or not equal to the parsed list."""
    start, end = span_of(body, "tools")
    raw = body[start:end]
    if len(raw) > _MAX_BYTES or not _is_equal(raw, tools):
        return b""
    return raw


def _raw_system_of(tools: bytes, system: Any, body: bytes) -> bytes:
    """Return the bytes from the system prompt in a request to `tools`; empty as in `_raw_of`."""
    start, end = span_of(body, "system")
    at, _ = span_of(body, "tools")
    raw = body[start:at]
    if (
        raw[end - start :] != b',"tools":'
        or not body.startswith(tools, at)
        or len(raw) > _MAX_BYTES
        or not _is_equal(body[start:end], system)
    ):
        return b""
    return raw


def _is_equal(raw: bytes, value: Any) -> bool:
    """Return whether `raw`, a part of a request that was parsed before, is the JSON text of `value`."""
    return jsonio.content_key(jsonio.loads(raw, is_ours=True)) == jsonio.content_key(value)


def tool_list_for(tools: list[Any]) -> ToolList:
    """Return the cache entry of this list; create it if there is none.

    A large request is translated in a thread of its own, so the entries may change between two steps.
    """
    for found in tuple(reversed(_known.values())):
        if found.tools is tools:  # shared by `share_tools`
            return found
    content = jsonio.content_key(tools)
    found = _known.pop(content, ToolList(tools))
    if len(content) <= _MAX_BYTES:
        _known[content] = found
        if len(_known) > _MAX_LISTS:
            _known.popitem(last=False)
    return found
