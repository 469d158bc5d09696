"""State machine for the legal order of the events of an Anthropic message stream.

::

    START ──message_start──▶ OPEN ──block_start──▶ BLOCK ──delta*, block_stop──▶ OPEN
                              │
                              └──message_delta──▶ DONE ──message_delta*, message_stop──▶ ENDED

An ``error`` event is legal anywhere before the end and ends the stream (ENDED); a ``ping`` is legal anywhere before the
end. Blocks count 0, 1, 2, … and one is open at a time; a delta must fit the type of its block. Source:
docs/spec/messages-api.md#order. The same rules hold for events of the codec, of hooks and of upstreams.
"""

from __future__ import annotations

import enum
from typing import Any

from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    ErrorEvent,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    Unknown,
)

__all__ = ["Grammar", "IllegalEvent", "State"]


class State(enum.IntEnum):  # hashed without a Python call
    START = enum.auto()
    OPEN = enum.auto()
    BLOCK = enum.auto()
    DONE = enum.auto()
    ENDED = enum.auto()


#: state -> event class -> next state. Everything else is illegal.
TABLE: dict[State, dict[type, State]] = {
    State.START: {MessageStart: State.OPEN, Ping: State.START, ErrorEvent: State.ENDED, Unknown: State.START},
    State.OPEN: {
        BlockStart: State.BLOCK,
        MessageDelta: State.DONE,
        Ping: State.OPEN,
        ErrorEvent: State.ENDED,
        Unknown: State.OPEN,
    },
    State.BLOCK: {
        TextDelta: State.BLOCK,
        ThinkingDelta: State.BLOCK,
        SignatureDelta: State.BLOCK,
        JsonDelta: State.BLOCK,
        BlockStop: State.OPEN,
        Ping: State.BLOCK,
        ErrorEvent: State.ENDED,
        Unknown: State.BLOCK,
    },
    State.DONE: {
        MessageDelta: State.DONE,
        MessageStop: State.ENDED,
        Ping: State.DONE,
        ErrorEvent: State.ENDED,
        Unknown: State.DONE,
    },
    State.ENDED: {},
}

#: Block types that accept a delta class.
DELTA_BLOCKS: dict[type, frozenset[str]] = {
    TextDelta: frozenset({"text"}),
    ThinkingDelta: frozenset({"thinking"}),
    SignatureDelta: frozenset({"thinking"}),
    JsonDelta: frozenset({"tool_use", "server_tool_use", "mcp_tool_use"}),
}


class IllegalEvent(Exception):
    """Event that is not allowed in the current state; the message names both."""


class Grammar:
    """State of one stream; call `accept` for each event in order."""

    __slots__ = ("_block_type", "_next_index", "state")

    def __init__(self) -> None:
        self.state = State.START
        self._next_index = 0
        self._block_type = ""

    @property
    def has_ended(self) -> bool:
        return self.state is State.ENDED

    def accept(self, event: StreamEvent) -> None:
        """Check `event` and advance the state.

        Raises:
            IllegalEvent: the state stays unchanged, so that the caller can still end the stream legally.
        """
        cls: type[Any] = type(event)
        state = self.state
        after = TABLE[state].get(cls)
        if after is None:
            raise IllegalEvent(f"{cls.__name__} in state {state.name}")
        if state is State.BLOCK:
            index = getattr(event, "index", None)
            if index is not None and index != self._next_index - 1:
                raise IllegalEvent(f"{cls.__name__} for block {index} while {self._next_index - 1} is open")
            allowed = DELTA_BLOCKS.get(cls)
            if allowed is not None and self._block_type not in allowed:
                raise IllegalEvent(f"{cls.__name__} in a {self._block_type} block")
        elif cls is BlockStart:
            if event.index != self._next_index:  # type: ignore[union-attr]
                raise IllegalEvent(f"block {event.index} where {self._next_index} was due")  # type: ignore[union-attr]
            self._next_index += 1
            self._block_type = str(event.block.get("type"))  # type: ignore[union-attr]
        self.state = after
