"""Whole messages: a completion -> events, events -> one message.

Both directions go through the one state machine of `openai_stream`, so that a non-streamed answer is what its stream
would have been (docs/spec/chat-to-messages.md#whole).
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
)

__all__ = ["MessageCollector", "completion_to_chunk"]


def completion_to_chunk(completion: dict[str, Any]) -> dict[str, Any]:
    """A whole completion as one chunk that holds everything.

    The calls of a completion are told apart by their place, whatever index they carry.
    """
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return completion
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("tool_calls"), list):
        return completion
    calls = [
        {**call, "index": place} for place, call in enumerate(message["tool_calls"]) if isinstance(call, dict)
    ]
    return {**completion, "choices": [{**choice, "message": {**message, "tool_calls": calls}}]}


class MessageCollector:
    """Gathers the events of one stream into the message that a non-streaming client gets."""

    __slots__ = ("_block", "_blocks", "_message", "_pieces")

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: list[dict[str, Any]] = []
        self._block: dict[str, Any] = {}
        self._pieces: list[str] = []

    def add(self, event: StreamEvent) -> None:
        match event:
            case TextDelta(_, piece) | ThinkingDelta(_, piece) | JsonDelta(_, piece):
                self._pieces.append(piece)
            case SignatureDelta(_, signature):
                self._block["signature"] = signature
            case BlockStart(_, block):
                self._block = dict(block)
                self._pieces = []
            case BlockStop():
                self._end_block()
            case MessageStart(message):
                self._message = dict(message)
            case MessageDelta(delta, usage):
                self._message.update(delta)
                self._message["usage"] = {**self._message.get("usage", {}), **usage}

    def add_all(self, events: Iterable[StreamEvent]) -> None:
        for event in events:
            self.add(event)

    def message(self) -> dict[str, Any]:
        """The message as far as it has come; whole after ``message_stop``."""
        return {**self._message, "content": self._blocks}

    def _end_block(self) -> None:
        block, text = self._block, "".join(self._pieces)
        if block["type"] in ("tool_use", "server_tool_use"):
            block["input"] = _tool_input(text)
        elif block["type"] in ("text", "thinking"):
            block[block["type"]] = text
        self._blocks.append(block)


def _tool_input(text: str) -> dict[str, Any]:
    """Arguments as the object that the API demands.

    What is not one object is handed on under the key that Claude Code itself uses for such input, so that its tool
    refuses it and the model hears why (docs/spec/claude-code.md#invalid-input).
    """
    try:
        value = jsonio.loads(text)
    except jsonio.JSONError:
        value = None
    return value if isinstance(value, dict) else {"__unparsedToolInput": {"raw": text, "len": len(text)}}
