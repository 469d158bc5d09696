"""What has been made of tool lists and system prompts, which a client sends again with each request.

Claude Code's tools are two fifths of a first request, and the same for a whole conversation: translated, written down,
counted and hashed once, they need only be recognised afterwards. A list is told by its content, so one that differs in
a single character is another one.

From its third coming on a list is known by its bytes, so that it need not even be parsed
(`proxyd.prompt_cache.parser`): one that comes twice is likely to come again, and only then is it worth looking for
where it stands. So is the system prompt that came with it both times, if it stands where Claude Code writes it,
right ahead of the tools: another tenth of a request. The conversation is not in it, nor are the user's
surroundings: they are in the messages (docs/spec/claude-code.md#surroundings).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from proxyd import jsonio
from proxyd.codecs.wire.json_patch import span_of

__all__ = ["SystemPrompt", "ToolList", "find_tool_list", "share_tools", "shared_system", "tool_list_for"]

_T = TypeVar("_T")

#: Lists that are remembered: a conversation has one, its subagents and other conversations have theirs.
_MAX_LISTS = 8
#: Larger ones, in bytes of their content, are made anew each time.
_MAX_BYTES = 1 << 20
#: A list in bytes is looked for by so many of its last bytes, and only this near the end of a request, where Claude
#: Code writes its tools: a search through all of it takes longer than some lists take to parse.
_TAIL_BYTES, _NEAR_END_BYTES = 32, 4096


class SystemPrompt:
    """What came as ``system`` with a list of tools the last time. Nobody changes it.

    Attributes:
        value: as it was parsed when it came for the first time.
        content: what tells it from others.
        ahead: its bytes and those between it and the bytes of the tools; empty where those are not to be had, None
            while nobody has looked for them.
    """

    __slots__ = ("_literal", "_text", "ahead", "content", "value")

    def __init__(self, value: Any, content: bytes) -> None:
        self.value = value
        self.content = content
        self.ahead: bytes | None = None
        self._text = ""
        self._literal = b'""'

    def literal(self, text: str) -> bytes:
        """The text that was made of it, as JSON in ASCII: written once, as long as the same is made of it."""
        if self._text != text:
            self._text, self._literal = text, jsonio.dump_ascii(text)
        return self._literal


class ToolList:
    """One list, and what has been made of it. Nobody changes either.

    Attributes:
        tools: as they were parsed when they came for the first time.
        raw: their bytes in a request; empty where those are not to be had, None while nobody has looked for them.
        system: the system prompt that they came with.
    """

    __slots__ = ("_made", "raw", "system", "tools")

    def __init__(self, tools: list[Any]) -> None:
        self.tools = tools
        self.raw: bytes | None = None
        self.system: SystemPrompt | None = None
        self._made: dict[Hashable, Any] = {}

    def cached(self, what: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, made when it is asked for the first time."""
        if what not in self._made:
            self._made[what] = make()
        made: _T = self._made[what]
        return made


_known: OrderedDict[bytes, ToolList] = OrderedDict()


def share_tools(payload: dict[str, Any], body: bytes) -> None:
    """Have a request that was just parsed hold the tools and the system prompt of those before it in place of its own,
    which are the same.

    Args:
        body: what `payload` was parsed from.
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
    """`system`, or the equal one that came with the same tools the last time."""
    content = jsonio.content_key(system)
    if len(content) > _MAX_BYTES:
        return system
    known = found.system
    if known is None or known.content != content:
        known = found.system = SystemPrompt(system, content)
    elif known.ahead is None and found.raw:
        known.ahead = _ahead_of(found.raw, system, body)
    return known.value


def shared_system(payload: dict[str, Any]) -> SystemPrompt | None:
    """What is known of the system prompt of a request, if `share_tools` has found any."""
    tools, system = payload.get("tools"), payload.get("system")
    known = tool_list_for(tools).system if system and isinstance(tools, list) and tools else None
    return known if known is not None and known.value is system else None


def find_tool_list(body: bytes) -> tuple[ToolList, int] | None:
    """The list whose bytes stand near the end of `body`, and where they begin.

    They are a JSON value by themselves; whether they are one in `body`, and whose, is for a parser to say.
    """
    for content, found in reversed(_known.items()):
        raw = found.raw
        if not raw:
            continue
        tail = raw[-_TAIL_BYTES:]
        at = body.rfind(tail, -_NEAR_END_BYTES) + len(tail) - len(raw)
        if at >= 0 and body.startswith(raw, at):
            _known.move_to_end(content)
            return found, at
    return None


def _raw_of(tools: list[Any], body: bytes) -> bytes:
    """The bytes of the tools in a request; empty where they are too many to keep, or not what we think."""
    start, end = span_of(body, "tools")
    raw = body[start:end]
    if len(raw) > _MAX_BYTES or jsonio.content_key(jsonio.loads(raw)) != jsonio.content_key(tools):
        return b""
    return raw


def _ahead_of(tools: bytes, system: Any, body: bytes) -> bytes:
    """The bytes of the system prompt in a request, and those between it and `tools`; empty as in `_raw_of`."""
    start, end = span_of(body, "system")
    at, _ = span_of(body, "tools")
    ahead = body[start:at]
    if (
        ahead[end - start :] != b',"tools":'
        or not body.startswith(tools, at)
        or len(ahead) > _MAX_BYTES
        or jsonio.content_key(jsonio.loads(body[start:end])) != jsonio.content_key(system)
    ):
        return b""
    return ahead


def tool_list_for(tools: list[Any]) -> ToolList:
    """What is known of this list."""
    for found in reversed(_known.values()):
        if found.tools is tools:  # it is shared
            return found
    content = jsonio.content_key(tools)
    found = _known.pop(content) if content in _known else ToolList(tools)
    if len(content) <= _MAX_BYTES:
        _known[content] = found
        if len(_known) > _MAX_LISTS:
            _known.popitem(last=False)
    return found
