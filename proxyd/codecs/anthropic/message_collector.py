"""Collect the events of a stream into the message that a client gets which does not stream.

Whole responses and streams pass the same state machines, so that a response that is not streamed equals the streamed
one (docs/spec/chat-to-messages.md#whole).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    JsonDelta,
    MessageDelta,
    MessageStart,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    Unknown,
)
from proxyd.codecs.anthropic.passthrough import split_frames

__all__ = ["MessageCollector"]


class MessageCollector:
    """Collect the events of one stream into the message that a client gets which does not stream."""

    __slots__ = ("_block", "_blocks", "_message", "_parts")

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: list[dict[str, Any]] = []
        self._block: dict[str, Any] = {}
        self._parts: list[str] = []

    def add(self, event: StreamEvent) -> None:
        match event:
            case TextDelta(_, part) | ThinkingDelta(_, part) | JsonDelta(_, part):
                self._parts.append(part)
            case SignatureDelta(_, signature):
                self._block["signature"] = signature
            case BlockStart(_, block):
                self._block = dict(block)
                self._parts = []
            case BlockStop():
                self._end_block()
            case MessageStart(message):
                self._message = dict(message)
            case MessageDelta(delta, usage, edits):
                self._message.update(delta)
                if edits is not None:
                    self._message["context_management"] = edits
                self._message["usage"] = {**self._message.get("usage", {}), **usage}
            case Unknown(
                {"type": "message_delta", "delta": dict(delta)} as data
            ):  # with more fields than ours
                self._message.update(delta)
                self._message["usage"] = {**self._message.get("usage", {}), **(data.get("usage") or {})}

    def add_all(self, events: Iterable[StreamEvent]) -> None:
        for event in events:
            self.add(event)

    def add_frames(self, frames: bytes) -> None:
        """Add the events of whole frames."""
        for _, event in split_frames(frames):
            if event is not None:
                self.add(event)

    def message(self) -> dict[str, Any]:
        """Return the message as far as it was received; it is complete after ``message_stop``."""
        return {**self._message, "content": self._blocks}

    def message_so_far(self) -> dict[str, Any]:
        """Return the message with what was received of a text or thinking block that has not ended."""
        kind = str(self._block.get("type"))
        is_open = kind in ("text", "thinking") and not any(block is self._block for block in self._blocks)
        part: list[dict[str, Any]] = [{**self._block, kind: "".join(self._parts)}] if is_open else []
        return {**self._message, "content": [*self._blocks, *part]}

    def _end_block(self) -> None:
        block, text = self._block, "".join(self._parts)
        if block["type"] in ("tool_use", "server_tool_use"):
            block["input"] = _tool_input(text)
        elif block["type"] in ("text", "thinking"):
            block[block["type"]] = text
        self._blocks.append(block)


def _tool_input(text: str) -> dict[str, Any]:
    """Return arguments as the object that the API requires.

    Other values are put under the key that Claude Code itself uses for such input: the tool refuses it, and the model
    gets an error that it can act on (docs/spec/claude-code.md#invalid-input).
    """
    try:
        value = jsonio.loads(text)
    except jsonio.JSONError:
        value = None
    return value if isinstance(value, dict) else {"__unparsedToolInput": {"raw": text, "len": len(text)}}
