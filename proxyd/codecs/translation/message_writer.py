"""Write the events of one message: its start, its blocks one after the other, its end.

It knows nothing of the upstream's protocol. A codec decides which block is open and what goes into it.
"""

from __future__ import annotations

from typing import Any

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    MessageDelta,
    MessageStop,
    SignatureDelta,
    StreamEvent,
    delta_of,
    message_start,
)
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.codec import NewId, ResponseContext
from proxyd.codecs.translation.tool_ids import to_client_id

__all__ = ["MessageWriter"]


class MessageWriter:
    """The events of one message, from ``message_start`` to ``message_stop``.

    Attributes:
        block: type of the open block: "", "thinking", "text" or "tool_use".
        index: of the block that was opened last; -1 before the first.
        initial_usage: reported in ``message_start``.
        emitted_chars: of all texts, names and arguments written so far.
    """

    __slots__ = (
        "_context",
        "_events",
        "_new_id",
        "_used_ids",
        "block",
        "emitted_chars",
        "has_started",
        "index",
        "initial_usage",
    )

    def __init__(self, context: ResponseContext, new_id: NewId, initial_usage: Usage) -> None:
        self._context = context
        self._new_id = new_id
        self._events: list[StreamEvent] = []
        self._used_ids: set[str] = set()  # by this message
        self.block = ""
        self.index = -1
        self.initial_usage = initial_usage
        self.emitted_chars = 0
        self.has_started = False

    def take_events(self) -> list[StreamEvent]:
        """Return the events written since the last call."""
        events, self._events = self._events, []
        return events

    def start(self) -> None:
        """Write ``message_start``, once."""
        if self.has_started:
            return
        self.has_started = True
        usage = self.initial_usage.to_anthropic()
        usage["output_tokens"] = 0
        usage.pop("output_tokens_details", None)
        self._events.append(message_start(self._new_id("msg_"), self._context.model, usage))

    def open(self, kind: str) -> None:
        """Open a block of text or thinking."""
        block: dict[str, Any] = {"type": kind, kind: ""}
        if kind == "thinking":
            block["signature"] = ""
        self._begin(kind, block)

    def open_tool_use(self, name: str, client_id: str) -> None:
        """Open a tool use by the upstream's name of the tool."""
        name = self._context.tool_names.get(name, name)
        self.emitted_chars += len(name)
        self._begin("tool_use", {"type": "tool_use", "id": client_id, "name": name, "input": {}})

    def write(self, text: str) -> None:
        """Write a part of the open block."""
        self.emitted_chars += len(text)
        self._events.append(delta_of(self.index, self.block, text))

    def close(self, signature: str | None = None) -> None:
        """Close the open block, if there is one.

        Args:
            signature: of a thinking block.
        """
        if not self.block:
            return
        if signature is not None:
            self._events.append(SignatureDelta(self.index, signature))
        self.block = ""
        self._events.append(BlockStop(self.index))

    def write_redacted_thinking(self, data: str) -> None:
        """Write a block of thinking that cannot be read."""
        self._begin("redacted_thinking", {"type": "redacted_thinking", "data": data})
        self.close()

    def finish(self, delta: dict[str, Any], usage: Usage) -> None:
        """Write ``message_delta`` and ``message_stop``."""
        self.start()
        self._events.append(MessageDelta(delta, usage.to_anthropic(), self._context.context_management))
        self._events.append(MessageStop())

    def client_id_of(self, call_id: str) -> str:
        """Return the client's id of a call: a new one where the upstream's is missing or was used before."""
        client_id = to_client_id(call_id) if call_id else ""
        if not client_id or client_id in self._used_ids or client_id in self._context.used_ids:
            client_id = self._new_id("toolu_")
        self._used_ids.add(client_id)
        return client_id

    def _begin(self, kind: str, block: dict[str, Any]) -> None:
        self.close()
        self.start()
        self.block = kind
        self.index += 1
        self._events.append(BlockStart(self.index, block))
