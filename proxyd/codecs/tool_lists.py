"""What has been made of tool lists, which a client sends again with each request.

Claude Code's tools are two fifths of a first request, and the same for a whole conversation: translated, written down,
counted and hashed once, they need only be recognised afterwards. A list is told by its content, so one that differs in a
single character is another one.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["ToolList", "recognised"]

_T = TypeVar("_T")

#: Lists that are remembered: a conversation has one, its subagents and other conversations have theirs.
_MAX_LISTS = 8
#: Larger ones, in bytes of their content, are made anew each time.
_MAX_BYTES = 1 << 20
#: The interpreter's own form of parsed JSON, made several times as fast as JSON. From version 3 on it depends on which
#: of the objects are the same.
_MARSHAL = 2


class ToolList:
    """What has been made of one list. Nobody changes it."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, what: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, made when it is asked for the first time."""
        if what not in self._made:
            self._made[what] = make()
        made: _T = self._made[what]
        return made


_known: OrderedDict[bytes, ToolList] = OrderedDict()
_latest: tuple[list[Any] | None, ToolList] = (None, ToolList())


def recognised(tools: list[Any]) -> ToolList:
    """What is known of this list.

    Args:
        tools: of a request, parsed. It is not changed as long as its request is worked on.
    """
    global _latest
    if _latest[0] is tools:  # several parts of the program ask within one request
        return _latest[1]
    content = marshal.dumps(tools, _MARSHAL)
    found = _known.pop(content, None) or ToolList()
    if len(content) <= _MAX_BYTES:
        _known[content] = found
        if len(_known) > _MAX_LISTS:
            _known.popitem(last=False)
    _latest = (tools, found)
    return found
