"""Keeps a legal stream legal, whatever a hook makes of its events.

A hook may drop, alter, add and reorder. `StreamRepair.repair` takes an upstream event and its replacement, and gives
out what follows the grammar (`codecs.grammar`):

========================================  ====================================================================
a hook has                                the client sees
========================================  ====================================================================
dropped the start of a block              nothing of that block
dropped the stop of a block               the stop, ahead of what cannot stand inside a block
dropped blocks in the middle              the others, counted 0, 1, 2, …
dropped the start or end of the message   them nevertheless
put a delta where it does not fit         a stream without it
dropped every tool use                    ``end_turn`` in place of ``tool_use``, for which a client would wait
written an error                          that error, and nothing behind it
========================================  ====================================================================

It looks at the ``type`` of events rather than at their classes: an upstream may send a known event with a field that
its class cannot carry, which is then `Unknown`.
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

#: Without these the stream would have no beginning or no end: they survive every hook.
_NEEDED = frozenset({"message_start", "message_delta", "message_stop", "error"})
_TOOL_BLOCKS = frozenset({"tool_use", "mcp_tool_use"})


def _kind(event: StreamEvent) -> str:
    return str(event.data.get("type")) if isinstance(event, Unknown) else _KINDS[type(event)]


class StreamRepair:
    """Follows one stream on the client's side of the hooks."""

    __slots__ = ("_block_type", "_fitting", "_has_tool_use", "_next_index", "_source_index", "_state")

    def __init__(self) -> None:
        self._state = State.START
        self._next_index = 0
        self._source_index = -1  # of the open block, as the upstream counts it
        self._block_type = ""
        self._fitting: type | None = None  # deltas of the open block that were seen to need no mending
        self._has_tool_use = False

    @property
    def has_ended(self) -> bool:
        """The client has the last event; what may still come is dropped."""
        return self._state is State.ENDED

    def repair(self, original: StreamEvent, made: Iterable[StreamEvent]) -> list[StreamEvent]:
        """What the client gets in place of `original`, of which the hooks have made `made`."""
        made = list(made)
        if (
            type(original) is self._fitting
            and self._state is State.BLOCK
            and len(made) == 1
            and made[0] is original
            and original.index == self._source_index  # type: ignore[union-attr]
        ):
            return made  # nearly all of a stream
        kind = _kind(original)
        if kind in _NEEDED and not any(_kind(event) == kind for event in made):
            # A start goes ahead of what was put in its place, an end behind it.
            made = [original, *made] if kind == "message_start" else [*made, original]
        out: list[StreamEvent] = []
        for event in made:
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
            event = self._started(event)
        elif kind in ("content_block_delta", "content_block_stop"):
            if self._state is not State.BLOCK or not self._fits(event):
                return
            mended = _with_index(event, self._next_index - 1)
            if kind == "content_block_stop":
                self._state = State.OPEN
            elif mended is event and type(event) in DELTA_BLOCKS:
                self._fitting = type(event)
            event = mended
        elif kind == "message_delta":
            if self._state is State.START:
                return
            self._stop_block(out)
            self._state = State.DONE
            event = self._without_missing_tools(event)
        elif kind == "message_stop":
            # One that the upstream sent too early still ends its stream.
            if self._state is not State.DONE and not is_original:
                return
            self._stop_block(out)
            self._state = State.ENDED
        out.append(event)

    def _started(self, event: StreamEvent) -> StreamEvent:
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
    with_index: Any = event  # a delta, or the start or stop of a block: all of them have one
    return replace(with_index, index=index)  # type: ignore[no-any-return]
