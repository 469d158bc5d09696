"""Cache breaks: which block of a session's prompt changed first when its cache reads fell.

Upstreams cache prompts by prefix. A conversation grows at its end, so each call should read nearly all of the call
before from the cache; where it does not, an earlier block has changed, and everything after it is billed again. The
changed block is found by a checksum of each block of the tools, the system prompt and the messages, in the order in
which upstreams concatenate them. Only checksums are kept, in memory, of the last call of each conversation. They cost a
tenth of a millisecond, so they are not computed where the upstream has never reported cached tokens.
"""

from __future__ import annotations

import zlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache.tools import tool_list_for
from proxyd.telemetry.call_record import CallRecord

__all__ = ["CacheBreaks", "checksums"]

#: Conversations kept, a few KiB each; the least recently used one is evicted first.
_MAX_CONVERSATIONS = 256
#: Reads below this share of what was cached are a break, if enough was cached: upstreams cache by 128 to 1024 tokens.
_SHARE, _MIN_TOKENS = 0.1, 1024
#: Left out: both differ between calls that are otherwise equal, and neither reaches a translated upstream.
_ATTRIBUTION, _PLACEHOLDER = "x-anthropic-billing-header", "DeferredToolPlaceholder"

#: One integer for each block, since an open stream keeps hundreds: its section, its index there, and its checksum.
Blocks = Sequence[int]
_SECTIONS = ("tools", "system", "messages")
_SECTION_BITS, _INDEX_BITS = 60, 32
#: All bits but the index: a placeholder that moves shifts the tools behind it, which are unchanged.
_CONTENT = 7 << _SECTION_BITS | (1 << _INDEX_BITS) - 1


def checksums(payload: dict[str, Any]) -> Blocks:
    """Compute the checksums of all blocks of a Messages request.

    Cache markers are left out: Claude Code moves them with each call.
    """
    tools = _list(payload.get("tools"))
    found = array("Q", tool_list_for(tools).cached("checksums", lambda: _of_tools(tools)))
    for index, block in enumerate(_blocks(payload.get("system"))):
        if not (isinstance(block, dict) and str(block.get("text")).startswith(_ATTRIBUTION)):
            found.append(_block(1, index, _checksum(block)))
    for index, message in enumerate(_list(payload.get("messages"))):
        checksum = 0
        if isinstance(message, dict):
            checksum = zlib.crc32(str(message.get("role")).encode("utf-8", "replace"))
            for part in _blocks(message.get("content")):
                checksum = _checksum(part, checksum)
        found.append(_block(2, index, checksum))
    return found


def _of_tools(tools: list[Any]) -> Blocks:
    return array(
        "Q",
        [
            _block(0, index, _checksum(tool))
            for index, tool in enumerate(tools)
            if not (isinstance(tool, dict) and tool.get("name") == _PLACEHOLDER)
        ],
    )


def _block(section: int, index: int, checksum: int) -> int:
    return section << _SECTION_BITS | index << _INDEX_BITS | checksum


def _name(block: int) -> str:
    section, rest = divmod(block, 1 << _SECTION_BITS)
    return f"{_SECTIONS[section]}[{rest >> _INDEX_BITS}]"


def _checksum(block: Any, before: int = 0) -> int:
    if isinstance(block, dict) and "cache_control" in block:
        block = {name: value for name, value in block.items() if name != "cache_control"}
    return zlib.crc32(jsonio.content_key(block), before)


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else _list(content)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class _Last:
    """The last call of a conversation."""

    blocks: Blocks
    route: str
    cached_tokens: int  # read or written: what the next call can read
    ended_at: float


class CacheBreaks:
    """Finds cache breaks among the calls that it is notified of."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], _Last] = OrderedDict()

    def find(self, record: CallRecord) -> str | None:
        """Return why the cache reads of a call that has ended fell; None if they did not."""
        if record.outcome != "ok" or record.session_id is None or not record.prompt_blocks:
            return None
        if record.kind not in ("main", "subagent"):
            return None
        key = (record.session_id, record.agent_id or "")
        before, usage = self._last.pop(key, None), record.usage
        now = record.started_at + record.duration_s
        cached = usage.cache_read_tokens + usage.cache_write_tokens
        self._last[key] = _Last(record.prompt_blocks, record.route, cached, now)
        if len(self._last) > _MAX_CONVERSATIONS:
            self._last.popitem(last=False)
        if (
            before is not None
            and before.cached_tokens >= _MIN_TOKENS
            and usage.cache_read_tokens < before.cached_tokens * _SHARE
        ):
            return _reason(before, record)
        return None


def _reason(before: _Last, record: CallRecord) -> str:
    if before.route != record.route:
        return f"another model served: {before.route} before"
    now = record.prompt_blocks
    for old, new in zip(before.blocks, now, strict=False):
        if (old ^ new) & _CONTENT:
            name, new_name = _name(old), _name(new)
            return f"{name if name == new_name else f'{name} or {new_name}'} changed"
    if len(now) < len(before.blocks):
        return f"{_name(before.blocks[len(now)])} and what follows are gone"
    minutes = max(0.0, record.started_at - before.ended_at) / 60
    return f"nothing changed; the upstream no longer had it, {minutes:.0f} min after the call before"
