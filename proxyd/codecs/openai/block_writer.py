"""Write the content blocks of one message, one open block at a time.

Text, thinking and tool call fragments go into the block they belong to. What arrives while a tool call's arguments are
incomplete waits in order of arrival and follows when they are complete (docs/spec/chat-to-messages.md#tool-calls).

Some servers alternate reasoning and text in small parts. Between two tool calls there is one thinking block and one
text block after it: reasoning after the text waits for the next call, and white space opens no text block before other
text (docs/spec/chat-to-messages.md#alternation).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import (
    JsonDelta,
)
from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.codec import NewId, ResponseContext, Warn
from proxyd.codecs.openai.signed_data import GOOGLES_PLACE, SignedData
from proxyd.codecs.openai.tool_calls import ToolCalls, ToolSlot
from proxyd.codecs.translation.message_writer import MessageWriter
from proxyd.errors import BadReply

__all__ = ["BlockWriter"]

#: Characters of reasoning in a row, after text, from which on they are a thinking block of their own: real reasoning is
#: longer than what servers mix into the text.
_MAX_LATE_REASONING = 400


class BlockWriter(MessageWriter):
    """The events of one message (`MessageWriter`), whose content arrives in any order.

    Args:
        holds_calls: keep tool calls until the end of the stream, because a thought signature may follow its call in a
            delta of its own, and the client must get it before the call.

    Attributes:
        slot: the open tool call.
        signed: what is gathered for the signature of the next thinking block.
        reasoning_field: the upstream's field that reasoning was read from, for the signature.
        has_calls: a tool_use block was opened.
        has_cut_call: the arguments of a call ended before they were complete.
    """

    __slots__ = (
        "_blanks",
        "_calls",
        "_holds_calls",
        "_late_reasoning",
        "_late_run",
        "_signatures",
        "_waiting",
        "_warn",
        "has_calls",
        "has_cut_call",
        "reasoning_field",
        "signed",
        "slot",
    )

    def __init__(
        self, context: ResponseContext, new_id: NewId, warn: Warn, *, initial_usage: Usage, holds_calls: bool
    ) -> None:
        super().__init__(context, new_id, initial_usage)
        self._warn = warn
        self._holds_calls = holds_calls
        self._calls = ToolCalls()
        self._waiting: deque[tuple[str, str] | ToolSlot] = deque()
        self._blanks: list[str] = []  # white space that waits for other text
        self._late_reasoning: list[str] = []  # since the text block was opened
        self._late_run = 0  # characters of it since the last text
        self._signatures: dict[str, tuple[str, str]] = {}  # place and value by tool id
        self.slot: ToolSlot | None = None
        self.signed = SignedData()
        self.reasoning_field: str | None = None
        self.has_calls = False
        self.has_cut_call = False

    @property
    def has_content(self) -> bool:
        """A block was opened, or content waits for one."""
        return bool(self.index >= 0 or self._waiting or self._blanks)

    @property
    def is_waiting(self) -> bool:
        """Content waits for an incomplete tool call, or reasoning was the last to arrive after text."""
        return bool(self._waiting or self._late_run)

    # -- content

    def add(self, kind: str, text: str) -> None:
        """Write text or thinking into a block of its kind, after an incomplete tool call if one is open."""
        if self._waiting or (self.slot is not None and not self.slot.is_complete):
            self._waiting.append((kind, text))
            return
        self._write_delta(kind, text)

    def write_reasoning(self, text: str, field: str | None) -> None:
        """Write thinking that was read from `field` of the upstream's delta."""
        self.reasoning_field = self.reasoning_field or field
        self.add("thinking", text)

    def add_fragment(self, fragment: dict[str, Any]) -> None:
        """Add one element of ``delta.tool_calls``."""
        slot, is_new = self._calls.add(fragment)
        if slot is self.slot:
            self._send_arguments(slot)
        elif slot.has_begun:
            slot.has_excess = slot.has_excess or bool(slot.unsent)
            slot.unsent.clear()
        elif is_new:
            self._waiting.append(slot)
        if slot.has_excess:
            slot.has_excess = False
            self._warn("stream.arguments_after_the_call")
        if self._waiting and not self._holds_calls:
            self._drain()

    # -- the end

    @property
    def has_any_call(self) -> bool:
        """A fragment of a tool call was received."""
        return bool(self._calls.slots)

    @property
    def is_within_arguments(self) -> bool:
        """The arguments of a call are incomplete."""
        return any(slot.is_cut for slot in self._calls.slots)

    def flush(self, *, is_cut: bool = False) -> None:
        """Write everything that waits, complete or not: the upstream has finished.

        Args:
            is_cut: the text was cut, so that a call of which no argument was received is dropped. Its tool would be run
                with none.
        """
        nameless_calls = 0
        while self._waiting:
            item = self._waiting.popleft()
            if not isinstance(item, ToolSlot):
                self._write_delta(*item)
            elif item.name and is_cut and not (item.has_arguments or item.has_placeholder):
                self.has_cut_call = True
                self._warn("stream.tool_call_cut")
            elif self._is_dropped_copy(item):
                continue
            elif item.name:
                self._open_tool(item)
            else:
                nameless_calls += 1
        if nameless_calls:
            self._warn("stream.tool_call_without_name")
            if self.index < 0:
                raise BadReply("the upstream sent a tool call without a name and nothing else")

    def close_blocks(self) -> None:
        """Close the open block, after one that carries data which must come back with the next request."""
        self._write_blanks()
        self._drop_late_reasoning()
        self._close_block()
        self._gather_signatures(self._calls.slots)
        if self._signatures or self.signed.is_waiting:
            self._open("thinking")
            self._close_block()
        self.start()

    # -- blocks

    def _write_delta(self, kind: str, text: str) -> None:
        if kind == "text":
            self._late_run = 0
            if self.block != "text":
                self._blanks.append(text)
                if not text.isspace():
                    self._write_blanks()
                return
        elif self.block == "text":
            self._late_reasoning.append(text)
            self._late_run += len(text)
            if self._late_run > _MAX_LATE_REASONING:
                self._write_late_reasoning()
            return
        self._write_texts(kind, [text])

    def _write_texts(self, kind: str, texts: list[str]) -> None:
        if self.block != kind:
            self._open(kind)
        for text in texts:
            self.write(text)

    def _write_blanks(self) -> None:
        texts, self._blanks = self._blanks, []
        if texts:
            self._write_texts("text", texts)

    def _write_late_reasoning(self) -> None:
        texts, self._late_reasoning, self._late_run = self._late_reasoning, [], 0
        if texts:
            self._write_texts("thinking", texts)

    def _drop_late_reasoning(self) -> None:
        """Drop reasoning that followed the last text: clients show the last block as the result.

        No upstream asks for the reasoning of a message without tool calls.
        """
        texts, self._late_reasoning, self._late_run = self._late_reasoning, [], 0
        self.emitted_chars += sum(map(len, texts))
        if any(not text.isspace() for text in texts):
            self._warn("stream.reasoning_after_text")

    def _drain(self) -> None:
        """Write what waits, up to the next tool call that is itself incomplete, or has no name or arguments yet."""
        while self._waiting and (self.slot is None or self.slot.is_complete):
            item = self._waiting[0]
            if isinstance(item, ToolSlot):
                if not item.name or not item.has_arguments:
                    return
                if item.possible_copy_of is not None and not item.is_complete:
                    return
                self._waiting.popleft()
                if not self._is_dropped_copy(item):
                    self._open_tool(item)
            else:
                self._waiting.popleft()
                self._write_delta(*item)

    def _is_dropped_copy(self, slot: ToolSlot) -> bool:
        if not slot.is_copy:
            return False
        slot.has_begun = True  # what still arrives for it is dropped, too
        slot.unsent.clear()
        self._warn("stream.arguments_after_the_call")
        return True

    def _open(self, kind: str) -> None:
        self._close_block()
        self.open(kind)

    def _open_tool(self, slot: ToolSlot) -> None:
        self._write_blanks()
        self._write_late_reasoning()
        self._gather_signatures([slot, *(each for each in self._waiting if isinstance(each, ToolSlot))])
        if self.block != "thinking" and (self._signatures or self.signed.is_waiting):
            self._open("thinking")  # an empty one, to carry what must come back with the call
        self._close_block()
        self.start()
        self.open_tool_use(self._name_of(slot), self._client_id(slot))
        self.slot = slot
        self.has_calls = slot.has_begun = True
        self._send_arguments(slot)

    def _name_of(self, slot: ToolSlot) -> str:
        """Return the name of a call's tool, without what servers of gpt-oss leave behind it."""
        tools = self._context.tools
        return (tools.known_name(slot.name) if tools is not None else "") or slot.name

    def _gather_signatures(self, slots: list[ToolSlot]) -> None:
        for slot in slots:
            if slot.signature:
                self._signatures[self._client_id(slot)] = slot.signature
                slot.signature = None

    def _send_arguments(self, slot: ToolSlot) -> None:
        for text in slot.unsent:
            self.write(text)
        slot.unsent.clear()

    def _close_block(self) -> None:
        signature = self._signature() if self.block == "thinking" else None
        if self.slot is not None:
            self.slot.recover(self._context.tools)
            self._send_arguments(self.slot)
            if not self.slot.has_arguments:
                self._events.append(JsonDelta(self.index, "{}"))
            elif not self.slot.is_complete:
                self.has_cut_call = True
                self._warn("stream.arguments_incomplete")
            self.slot = None
        self.close(signature)

    def _signature(self) -> str:
        model, source = self._context.upstream_model, self.reasoning_field
        details, fields = self.signed.take()
        signatures = {key: value for key, (_, value) in self._signatures.items()}
        places = {key: place for key, (place, _) in self._signatures.items() if place != GOOGLES_PLACE}
        self._signatures = {}
        try:
            return encode_signature(model, source, details, signatures, tool_places=places, fields=fields)
        except jsonio.JSONError:
            # A number in the details that JSON cannot represent: they could not be sent back either.
            self._warn("stream.reasoning_details_not_json")
            return encode_signature(model, source, None, signatures, tool_places=places)

    def _client_id(self, slot: ToolSlot) -> str:
        if not slot.client_id:
            slot.client_id = self.client_id_of(slot.call_id)
        return slot.client_id
