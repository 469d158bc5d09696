"""Keep a stream legal when hooks change its events.

A hook may drop, alter, add and reorder events. `StreamRepair.repair` takes an upstream event and its replacement, and
returns events that follow the grammar (`codecs.anthropic.grammar`):

========================================  ====================================================================
a hook                                    the client receives
========================================  ====================================================================
dropped the start of a block              no event of that block
dropped the stop of a block               the stop, before the next event that is illegal inside a block
dropped blocks in the middle              the others, numbered 0, 1, 2, …
dropped the start or end of the message   the dropped event
put a delta where it does not fit         the stream without it
dropped every tool use                    ``end_turn`` instead of ``tool_use``, for which a client would wait
added an error                            that error as the last event
========================================  ====================================================================

Events are distinguished by their ``type``, not by their class: a known event with a field that its class cannot
carry is `Unknown`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
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
    data_of,
    event_from_data,
)
from proxyd.codecs.anthropic.grammar import DELTA_BLOCKS, State

__all__ = ["StreamRepair"]

_KINDS: dict[type, str] = {
    MessageStart: "message_start",
    BlockStart: "content_block_start",
    TextDelta: "content_block_delta",
    ThinkingDelta: "content_block_delta",
    SignatureDelta: "content_block_delta",
    JsonDelta: "content_block_delta",
    BlockStop: "content_block_stop",
    MessageDelta: "message_delta",
    MessageStop: "message_stop",
    Ping: "ping",
    ErrorEvent: "error",
}

#: Events without which the stream has no beginning or no end: they are restored if a hook drops them.
_REQUIRED = frozenset({"message_start", "message_delta", "message_stop", "error"})
_TOOL_BLOCKS = frozenset({"tool_use", "mcp_tool_use"})


def _kind(event: StreamEvent) -> str:
    return str(event.data.get("type")) if isinstance(event, Unknown) else _KINDS[type(event)]


class StreamRepair:
    """State of one stream on the client's side of the hooks."""

    __slots__ = ("_block_type", "_fitting", "_has_tool_use", "_next_index", "_source_index", "_state")

    def __init__(self) -> None:
        self._state = State.START
        self._next_index = 0
        self._source_index = -1  # index of the open block at the upstream
        self._block_type = ""
        self._fitting: type | None = (
            None  # class of the open block's deltas, once one of them passed unchanged
        )
        self._has_tool_use = False

    @property
    def has_ended(self) -> bool:
        """Whether the client has the last event; later ones are dropped."""
        return self._state is State.ENDED

    def repair(self, original: StreamEvent, replacement: Iterable[StreamEvent]) -> list[StreamEvent]:
        """Return the events for the client when the hooks have replaced `original` by `replacement`."""
        events = list(replacement)
        if (
            type(original) is self._fitting
            and self._state is State.BLOCK
            and len(events) == 1
            and events[0] is original
            and original.index == self._source_index  # type: ignore[union-attr]
        ):
            return events  # the usual case
        kind = _kind(original)
        if kind in _REQUIRED and not any(_kind(event) == kind for event in events):
            # A restored start precedes its replacement, a restored end follows it.
            events = [original, *events] if kind == "message_start" else [*events, original]
        out: list[StreamEvent] = []
        for event in events:
            if self._state is State.ENDED:
                break
            self._take(event, out, is_original=event is original)
        return out

    def _take(self, event: StreamEvent, out: list[StreamEvent], *, is_original: bool) -> None:
        kind = _kind(event)
        if kind == "error":
            self._state = State.ENDED
        elif kind == "message_start":
            if self._state is not State.START:
                return
            self._state = State.OPEN
        elif kind == "content_block_start":
            if self._state not in (State.OPEN, State.BLOCK):
                return
            self._stop_block(out)
            event = self._start_block(event)
        elif kind in ("content_block_delta", "content_block_stop"):
            if self._state is not State.BLOCK or not self._fits(event):
                return
            renumbered = _with_index(event, self._next_index - 1)
            if kind == "content_block_stop":
                self._state = State.OPEN
            elif renumbered is event and type(event) in DELTA_BLOCKS:
                self._fitting = type(event)
            event = renumbered
        elif kind == "message_delta":
            if self._state is State.START:
                return
            self._stop_block(out)
            self._state = State.DONE
            event = self._without_missing_tools(event)
        elif kind == "message_stop":
            # A premature one of the upstream still ends its stream.
            if self._state is not State.DONE and not is_original:
                return
            self._stop_block(out)
            self._state = State.ENDED
        out.append(event)

    def _start_block(self, event: StreamEvent) -> StreamEvent:
        data = data_of(event)
        block = data.get("content_block")
        self._block_type = str(block.get("type")) if isinstance(block, dict) else ""
        self._has_tool_use = self._has_tool_use or self._block_type in _TOOL_BLOCKS
        self._source_index = _index(event)
        self._state = State.BLOCK
        self._fitting = None
        self._next_index += 1
        return _with_index(event, self._next_index - 1)

    def _stop_block(self, out: list[StreamEvent]) -> None:
        if self._state is State.BLOCK:
            out.append(BlockStop(self._next_index - 1))
            self._state = State.OPEN

    def _fits(self, event: StreamEvent) -> bool:
        allowed = DELTA_BLOCKS.get(type(event))
        return _index(event) == self._source_index and (allowed is None or self._block_type in allowed)

    def _without_missing_tools(self, event: StreamEvent) -> StreamEvent:
        data = data_of(event)
        delta = data.get("delta")
        if self._has_tool_use or not isinstance(delta, dict) or delta.get("stop_reason") != "tool_use":
            return event
        return event_from_data({**data, "delta": {**delta, "stop_reason": "end_turn"}})


def _index(event: StreamEvent) -> int:
    index = data_of(event).get("index") if isinstance(event, Unknown) else getattr(event, "index", None)
    return index if isinstance(index, int) else -1


def _with_index(event: StreamEvent, index: int) -> StreamEvent:
    if _index(event) == index:
        return event
    if isinstance(event, Unknown):
        return Unknown({**event.data, "index": index})
    with_index: Any = event  # a delta, or the start or stop of a block: all have an index
    return replace(with_index, index=index)  # type: ignore[no-any-return]
