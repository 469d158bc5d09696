"""What has been made of tool lists, which a client sends again with each request.

Claude Code's tools are two fifths of a first request, and the same for a whole conversation: translated, written down,
counted and hashed once, they need only be recognised afterwards. A list is told by its content, so one that differs in
a single character is another one.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["ToolList", "recognised", "share_tools"]

_T = TypeVar("_T")

#: Lists that are remembered: a conversation has one, its subagents and other conversations have theirs.
_MAX_LISTS = 8
#: Larger ones, in bytes of their content, are made anew each time.
_MAX_BYTES = 1 << 20
#: The interpreter's own form of parsed JSON, made several times as fast as JSON. From version 3 on it depends on which
#: of the objects are the same.
_MARSHAL = 2


class ToolList:
    """One list, and what has been made of it. Nobody changes either.

    Attributes:
        tools: as they were parsed when they came for the first time.
    """

    __slots__ = ("_made", "tools")

    def __init__(self, tools: list[Any]) -> None:
        self.tools = tools
        self._made: dict[Hashable, Any] = {}

    def once(self, what: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, made when it is asked for the first time."""
        if what not in self._made:
            self._made[what] = make()
        made: _T = self._made[what]
        return made


_known: OrderedDict[bytes, ToolList] = OrderedDict()


def share_tools(payload: dict[str, Any]) -> None:
    """Have a request that was just parsed hold the tools of those before it in place of its own, which are the same."""
    tools = payload.get("tools")
    if isinstance(tools, list) and tools:
        payload["tools"] = recognised(tools).tools


def recognised(tools: list[Any]) -> ToolList:
    """What is known of this list."""
    for found in _known.values():
        if found.tools is tools:  # it is shared
            return found
    content = marshal.dumps(tools, _MARSHAL)
    found = _known.pop(content) if content in _known else ToolList(tools)
    if len(content) <= _MAX_BYTES:
        _known[content] = found
        if len(_known) > _MAX_LISTS:
            _known.popitem(last=False)
    return found
