"""The tool lists and system prompts of the last conversations, shared by their requests.

The cache key is the content of the list: a list that differs in one character is another entry. From its third request
on a list is found by its raw bytes and not parsed any more (`proxyd.prompt_cache.parser`). The bytes are located when a
list comes for the second time, since it is then likely to come again. The same holds for the system prompt that came
with the list both times, if it stands directly before the tools, where Claude Code writes it: another tenth of a
request. It contains neither the conversation nor the user's environment, which are in the messages
(docs/spec/claude-code.md#surroundings).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache.tools import SystemPrompt, ToolList
from proxyd.codecs.wire.json_patch import span_of

__all__ = ["ToolLists"]

#: Cached lists: each conversation has one, and so have subagents.
_MAX_LISTS = 8
#: Size limit of one entry, in bytes of its content; larger lists are not cached.
_MAX_BYTES = 1 << 20
#: A list is searched for by its last bytes, and only near the end of a request, where Claude Code writes its tools: a
#: search through the whole request would take longer than parsing a small list.
_TAIL_BYTES, _NEAR_END_BYTES = 32, 4096


class ToolLists:
    """LRU cache of tool lists."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, ToolList] = OrderedDict()

    def clear(self) -> None:
        self._known.clear()

    def share(self, payload: dict[str, Any], body: bytes) -> None:
        """Replace tools and system prompt of a parsed request by the equal objects of earlier requests, and keep them.

        Args:
            body: the bytes of `payload`.
        """
        tools = payload.get("tools")
        if not isinstance(tools, list) or not tools:
            return
        known = self._known_as(tools)
        if known is None:
            found = self._keep(tools)
        else:
            found = known
            if found.raw is None:
                found.raw = _raw_of(tools, body)
        payload["tools"] = found
        system = payload.get("system")
        if system and (found.system is None or found.system.value is not system):
            payload["system"] = _shared(system, found, body)

    def find(self, body: bytes) -> tuple[ToolList, int] | None:
        """Return the list whose bytes occur near the end of `body`, and their offset.

        They are a complete JSON value; whether `body` has them as a value, and where, must be checked by a parser.
        """
        for content, found in reversed(self._known.items()):
            raw = found.raw
            if not raw:
                continue
            tail = raw[-_TAIL_BYTES:]
            at = body.rfind(tail, -_NEAR_END_BYTES) + len(tail) - len(raw)
            if at >= 0 and body.startswith(raw, at):
                self._known.move_to_end(content)
                return found, at
        return None

    def _known_as(self, tools: list[Any]) -> ToolList | None:
        """Return the cache entry of a list, and note its use; None if there is none."""
        for found in self._known.values():
            if found is tools:  # put there by the parser, which has noted the use
                return found
        content = jsonio.content_key(tools)
        if content in self._known:
            self._known.move_to_end(content)
        return self._known.get(content)

    def _keep(self, tools: list[Any]) -> ToolList:
        """Return a new entry."""
        found, content = ToolList(tools), jsonio.content_key(tools)
        if len(content) <= _MAX_BYTES:
            self._known[content] = found
            if len(self._known) > _MAX_LISTS:
                self._known.popitem(last=False)
        return found


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


def _raw_of(tools: list[Any], body: bytes) -> bytes:
    """Return the bytes of the tools in a request; empty if too long to cache, or not equal to the parsed list."""
    start, end = span_of(body, "tools")
    raw = body[start:end]
    if len(raw) > _MAX_BYTES or jsonio.content_key(jsonio.loads(raw)) != jsonio.content_key(tools):
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
        or jsonio.content_key(jsonio.loads(body[start:end])) != jsonio.content_key(system)
    ):
        return b""
    return raw
