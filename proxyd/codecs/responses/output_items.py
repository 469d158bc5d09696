"""The items of a response's output, and the blocks that they become, one open block at a time.

Items come one after the other, each with all its events, and an item is open until another one gets content. What
arrives for another item while the arguments of a call are incomplete waits, and follows when they are complete.

Servers send the same text up to five times: in deltas, at the end of the text, of the part, of the item and of the
response. Compatible servers leave some of these out. So each repetition gives what was missing before it, and nothing
else (docs/spec/responses.md#subsets).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.codec import ResponseContext, Warn
from proxyd.codecs.openai.tool_calls import ToolSlot
from proxyd.codecs.translation.message_writer import MessageWriter
from proxyd.codecs.translation.stop_sequences import StopSequences
from proxyd.errors import BadReply

__all__ = ["Item", "OutputItems", "Received", "text_of"]

#: Type of an item -> the type of its block.
_BLOCKS = {"message": "text", "reasoning": "thinking", "function_call": "tool_use"}

#: Parts of an item: what they are and their number, such as ``("summary", 1)``.
Part = tuple[str, int]


class Received:
    """How much of one text was received, so that a repetition of it can be recognised without keeping it."""

    __slots__ = ("_checksum", "chars")

    def __init__(self) -> None:
        self.chars = 0
        self._checksum = 0

    def add(self, text: str) -> None:
        self.chars += len(text)
        self._checksum = zlib.crc32(text.encode("utf-8", "surrogatepass"), self._checksum)

    def missing_of(self, whole: str) -> str | None:
        """Return the end of `whole` that was not received; None if another text was received."""
        if len(whole) < self.chars:
            return None
        start = whole[: self.chars].encode("utf-8", "surrogatepass")
        return whole[self.chars :] if zlib.crc32(start) == self._checksum else None


class Item:
    """One item, as far as it was received.

    Attributes:
        kind: its ``type``; items of unknown types have no block.
        call: of a ``function_call``.
        phase: of a ``message``.
        source: of a ``reasoning``: whether its text is ``summary`` or ``content``; servers may send both.
        encrypted: of a ``reasoning``: its ``encrypted_content``.
        is_done: its last event was received.
        unsent: texts that wait for its block.
        blanks: white space that waits for other text.
        last_part: the part that the last text belongs to.
        was_written: it had a block.
    """

    __slots__ = (
        "_received",
        "blanks",
        "call",
        "encrypted",
        "is_done",
        "kind",
        "last_part",
        "phase",
        "source",
        "unsent",
        "was_written",
    )

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.call = ToolSlot(None)
        self.phase: str | None = None
        self.source: str | None = None
        self.encrypted: str | None = None
        self.is_done = False
        self.unsent: list[str] = []
        self.blanks: list[str] = []
        self.last_part: Part | None = None
        self.was_written = False
        self._received: dict[Part, Received] = {}

    @property
    def is_cut(self) -> bool:
        """It is a call whose arguments have no end."""
        return self.kind == "function_call" and self.call.is_cut

    def missing_of(self, part: Part, whole: str) -> str | None:
        """Return the end of a part's whole text that was not received; None if another text was."""
        received = self._received.get(part)
        return whole if received is None else received.missing_of(whole)

    def received(self, part: Part) -> Received:
        """Return what was received of `part`."""
        received = self._received.get(part)
        if received is None:
            received = self._received[part] = Received()
        return received

    def add(self, part: Part, text: str) -> None:
        """Record a text of `part` as received."""
        self.received(part).add(text)


class OutputItems:
    """All items of one response.

    Args:
        phases: the upstream wants to know the phase of its messages again, so a signature tells that of the message
            that follows.

    Attributes:
        has_calls: a tool use was written.
        has_cut_call: the arguments of one have no end.
        has_refusal: a message holds a refusal.
        matched: the stop sequence at which the text was cut.
    """

    __slots__ = (
        "_context",
        "_current",
        "_has_nameless_call",
        "_phases",
        "_stop",
        "_waiting",
        "_warn",
        "_writer",
        "has_calls",
        "has_cut_call",
        "has_refusal",
        "items",
    )

    def __init__(self, context: ResponseContext, writer: MessageWriter, warn: Warn, *, phases: bool) -> None:
        self._context = context
        self._writer = writer
        self._warn = warn
        self._phases = phases
        self._stop = StopSequences(context.stop_sequences)
        self._waiting: deque[Item] = deque()
        self._current: Item | None = None
        self._has_nameless_call = False
        self.items: list[Item] = []
        self.has_calls = False
        self.has_cut_call = False
        self.has_refusal = False

    @property
    def matched(self) -> str | None:
        return self._stop.matched

    @property
    def has_content(self) -> bool:
        """A block was opened, or content waits for one."""
        return self._writer.index >= 0 or bool(self._waiting)

    @property
    def is_within_arguments(self) -> bool:
        """The arguments of a call are incomplete."""
        return any(item.is_cut and not item.is_done for item in self.items)

    def is_open(self, item: Item) -> bool:
        """Whether the texts of `item` go out at once, and are neither searched nor separated."""
        return item is self._current and bool(self._writer.block) and not self._stop

    # -- content

    def add(self, item: Item) -> None:
        """Add an item of which nothing but its beginning is known."""
        self.items.append(item)
        current = self._current
        if current is not None and current.kind == "reasoning" and current.is_done:
            self._close(item.phase)

    def add_text(self, item: Item, part: Part, text: str) -> None:
        """Add a delta."""
        if not text or item.kind not in _BLOCKS:
            return
        if item.kind == "reasoning":
            if item.source is None:
                item.source = part[0]
            elif item.source != part[0]:
                return  # the same thoughts in other words
        item.add(part, text)
        if item.kind == "reasoning" and item.last_part not in (None, part):
            text = f"\n\n{text}"
        item.last_part = part
        if item.kind == "function_call":
            if not item.call.has_arguments and text.strip() == "null":
                return  # no arguments
            item.call.add_arguments(text)
            item.unsent += item.call.unsent
            item.call.unsent.clear()
            if item.call.has_excess:
                item.call.has_excess = False
                self._warn("stream.arguments_after_the_call")
        else:
            item.unsent.append(text)
        self._enqueue(item)

    def add_whole(self, item: Item, part: Part, whole: Any) -> None:
        """Add what a repetition of the whole text of a part has more than the deltas."""
        if not isinstance(whole, str) or not whole:
            return
        if item.kind == "reasoning" and item.source not in (None, part[0]):
            return
        missing = item.missing_of(part, whole)
        if missing is None:
            self._warn("stream.other_text_at_the_end")
        elif missing:
            self.add_text(item, part, missing)

    def end(self, item: Item) -> None:
        """Take the last event of an item."""
        if item.is_done:
            return
        item.is_done = True
        if item is self._current:
            if not self._waits_for_phase(item):
                self._close()
                self._advance()
        elif self._has_block_to_come(item):
            self._enqueue(item)

    def end_all(self, *, is_cut: bool) -> None:
        """Write everything that waits, complete or not: the response has ended.

        Args:
            is_cut: it was cut, so that a call of which no argument was received is dropped. Its tool would be run with
                none.

        Raises:
            BadReply: there is nothing but calls without a name.
        """
        for item in self.items:
            if is_cut and not item.is_done and item.kind == "function_call" and not item.call.has_arguments:
                self.has_cut_call = True
                self._warn("stream.tool_call_cut")
                continue
            item.is_done = True
            if item is not self._current and item not in self._waiting and self._has_block_to_come(item):
                self._waiting.append(item)
        self._close()
        self._advance()
        self._close()
        if self._has_nameless_call and self._writer.index < 0:
            raise BadReply("the upstream sent a tool call without a name and nothing else")

    def _waits_for_phase(self, item: Item) -> bool:
        return item.kind == "reasoning" and self._phases

    @staticmethod
    def _has_block_to_come(item: Item) -> bool:
        if item.unsent:
            return True
        if item.was_written:
            return False
        return bool(item.encrypted) if item.kind == "reasoning" else item.kind == "function_call"

    # -- blocks

    def _enqueue(self, item: Item) -> None:
        if item is self._current:
            self._write(item)
            return
        if item.kind == "function_call" and item.was_written:
            if item.unsent:
                item.unsent.clear()
                self._warn("stream.arguments_after_the_call")
            return
        if item not in self._waiting:
            self._waiting.append(item)
        self._advance()

    def _advance(self) -> None:
        """Write what waits, up to an item behind a call whose arguments are incomplete."""
        while self._waiting and self.matched is None:
            current = self._current
            if current is not None and current.is_cut and not current.is_done:
                return
            item = self._waiting[0]
            if item.kind == "function_call" and not item.call.name:
                if not item.is_done:
                    return
                self._waiting.popleft()
                self._has_nameless_call = True
                self._warn("stream.tool_call_without_name")
                continue
            self._close(item.phase if item.kind == "message" else None)
            self._current = self._waiting.popleft()
            self._write(item)
            if item.is_done and not self._waits_for_phase(item):
                self._close()

    def _write(self, item: Item) -> None:
        """Write the texts of the current item that wait."""
        texts, item.unsent = item.unsent, []
        if item.kind == "function_call" and not item.was_written and (texts or item.is_done):
            self._open_call(item)
        for text in texts:
            if item.kind == "message" and self._stop:
                text = self._stop.feed(text)
            if not self._writer.block and text.isspace():
                item.blanks.append(
                    text
                )  # no block of white space alone: some servers end each line of reasoning so
            elif text:
                self._write_text(item, text)
            if self.matched is not None:
                return

    def _write_text(self, item: Item, text: str) -> None:
        if not self._writer.block:
            self._writer.open(_BLOCKS[item.kind])
            item.was_written = True
            blanks, item.blanks = item.blanks, []
            text = "".join([*blanks, text])
        self._writer.write(text)

    def _open_call(self, item: Item) -> None:
        call = item.call
        call.client_id = call.client_id or self._writer.client_id_of(call.call_id)
        self._writer.open_tool_use(call.name, call.client_id)
        item.was_written = self.has_calls = True

    def _close(self, phase: str | None = None) -> None:
        """End the current item.

        Args:
            phase: of the message that follows.
        """
        item, self._current = self._current, None
        if item is None:
            return
        if item.kind == "message" and (rest := self._stop.end()):
            self._write_text(item, rest)
        if item.kind == "reasoning":
            self._close_reasoning(item, phase)
            return
        if item.kind == "function_call" and self._writer.block:
            if not item.call.has_arguments:
                self._writer.write("{}")
            elif not item.call.is_complete:
                self.has_cut_call = True
                self._warn("stream.arguments_incomplete")
        self._writer.close()

    def _close_reasoning(self, item: Item, phase: str | None) -> None:
        signed = {"encrypted_content": item.encrypted, "phase": phase if self._phases else None}
        fields = {name: value for name, value in signed.items() if value}
        signature = encode_signature(
            self._context.upstream_model, item.source, None, None, response_item=fields
        )
        if self._writer.block == "thinking":
            self._writer.close(signature)
        elif item.encrypted and not item.was_written:
            self._writer.write_redacted_thinking(signature)
            item.was_written = True
        elif item.encrypted:
            self._warn("stream.encrypted_reasoning_too_late")

    # -- the response as a whole

    def matching(self, output: list[Any]) -> Iterator[tuple[Item | None, dict[str, Any]]]:
        """Yield the items of a whole output with those that were received, the n-th of a type with the n-th.

        Ids and positions are no help: servers give the items of the stream and those of the whole output other ones.
        """
        received: dict[str, list[Item]] = {}
        for item in self.items:
            received.setdefault(item.kind, []).append(item)
        for value in output:
            if isinstance(value, dict):
                same = received.get(str(value.get("type")))
                yield (same.pop(0) if same else None), value


def text_of(value: Any) -> str:
    """Return a text of an event: a string, or the arguments of a call as an object."""
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        try:
            return jsonio.dump_text(value)
        except jsonio.JSONError:
            return ""
    return ""
