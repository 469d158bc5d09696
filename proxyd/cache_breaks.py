"""Why a session's cache reads fell: which block of its prompt changed first.

Upstreams cache a prompt by its beginning. A conversation only grows at its end, so each call should read nearly all of
the one before from the cache; where it does not, something further up has changed, and everything behind it is paid for
again. What changed is told from a checksum of each block, of the tools, the system prompt and the messages in this
order, as upstreams lay them out. Checksums are kept in memory, of the last call of each conversation; no text is.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.calls import CallRecord

__all__ = ["CacheBreaks", "checksums"]

#: Conversations that are remembered, the least recent forgotten first; of a few KiB each.
_MAX_CONVERSATIONS = 256
#: Reads below this share of what could be read are a break, if that was enough: upstreams cache by 128 to 1024 tokens.
_SHARE, _MIN_TOKENS = 0.1, 1024
#: Left out: both differ between calls that are otherwise alike, and neither reaches a translated upstream.
_ATTRIBUTION, _PLACEHOLDER = "x-anthropic-billing-header", "DeferredToolPlaceholder"

Blocks = tuple[tuple[str, int], ...]


def checksums(payload: dict[str, Any]) -> Blocks:
    """A name and a checksum for each block of a Messages request; no name says more than a place.

    Cache markers do not count: Claude Code moves them on with each call.
    """
    system = payload.get("system")
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else _list(system)
    found = [
        (f"tools[{place}]", _checksum(tool))
        for place, tool in enumerate(_list(payload.get("tools")))
        if not (isinstance(tool, dict) and tool.get("name") == _PLACEHOLDER)
    ]
    found += [
        (f"system[{place}]", _checksum(block))
        for place, block in enumerate(blocks)
        if not (isinstance(block, dict) and str(block.get("text")).startswith(_ATTRIBUTION))
    ]
    for place, message in enumerate(_list(payload.get("messages"))):
        checksum = 0
        if isinstance(message, dict):
            content = message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else _list(content)
            checksum = zlib.crc32(str(message.get("role")).encode("utf-8", "replace"))
            for part in parts:
                checksum = zlib.crc32(_checksum(part).to_bytes(4, "big"), checksum)
        found.append((f"messages[{place}]", checksum))
    return tuple(found)


def _checksum(block: Any) -> int:
    if isinstance(block, dict) and "cache_control" in block:
        block = {name: value for name, value in block.items() if name != "cache_control"}
    try:
        return zlib.crc32(jsonio.dumps(block))
    except jsonio.JSONError:  # a number that JSON has no form for
        return zlib.crc32(repr(block).encode("utf-8", "replace"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class _Last:
    """What is remembered of a conversation's last call."""

    blocks: Blocks
    route: str
    cached_tokens: int  # read or written: what the next call can read
    ended_at: float


class CacheBreaks:
    """Remembers conversations and explains breaks. `observe` is to be told of a call before those who keep it."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], _Last] = OrderedDict()

    def observe(self, record: CallRecord) -> None:
        """Put an explanation into `record` if its cache reads fell."""
        if record.outcome != "ok" or record.session_id is None or not record.prompt_blocks:
            return
        if record.kind not in ("main", "subagent"):
            return
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
            record.cache_break = _reason(before, record)


def _reason(before: _Last, record: CallRecord) -> str:
    if before.route != record.route:
        return f"another model served: {before.route} before"
    for (name, old), (new_name, new) in zip(before.blocks, record.prompt_blocks, strict=False):
        if (name, old) != (new_name, new):
            return f"{name if name == new_name else f'{name} or {new_name}'} changed"
    if len(record.prompt_blocks) < len(before.blocks):
        return f"{before.blocks[len(record.prompt_blocks)][0]} and what follows are gone"
    minutes = max(0.0, record.started_at - before.ended_at) / 60
    return f"nothing changed; the upstream no longer had it, {minutes:.0f} min after the call before"
