"""Fast path for delta events that differ from the one before in their text and their sequence number only.

A server writes its events by one template. Once an event was parsed and became one delta and nothing else, the bytes
around its text are kept. A later event between the same bytes, with the next ``sequence_number``, is the same event
with another text: JSON is read from left to right, so the bytes before fix where the text is, and only a whole string
is accepted as text, so the bytes after it mean what they meant before.

For servers that add something new to each event (padding, log probabilities) the template is given up after a few
events, and then every event is parsed.
"""

from __future__ import annotations

import re
from typing import Any

from proxyd import jsonio
from proxyd.codecs.translation.string_literal import NO_LITERAL, read_literal
from proxyd.codecs.wire.sse import SSEFrame, start_of

__all__ = ["DeltaTemplate"]

_TEXT = re.compile(rb'"delta": ?"((?:[^"\\]|\\.)+)"', re.DOTALL)
_NUMBER = re.compile(rb'"sequence_number": ?(\d{1,12})(?=[,}])')
#: Templates learned in a row without an event that repeats one, after which no more are learned.
_MAX_LEARNED = 8
#: Longer events repeat too rarely to matter; this bounds the memory, too.
_MAX_BYTES = 4096


class DeltaTemplate:
    """The bytes around the text of the last event that was one delta.

    Attributes:
        kind: type of the event, "" while there is no template.
    """

    __slots__ = ("_head", "_learned", "_middle", "_next_number", "_number_is_first", "_tail", "kind")

    def __init__(self) -> None:
        self.kind = ""
        self._head = self._middle = self._tail = b""
        #: Where the sequence number is: between head and middle, which the text follows, or between middle, which
        #: follows the text, and tail. None where there is no number.
        self._number_is_first: bool | None = None
        self._next_number = 0
        self._learned = 0

    def read(self, block: bytes) -> tuple[str, bytes]:
        """Return the text of a frame that repeats the template, as `read_literal` does; `NO_LITERAL` for any other."""
        if not self.kind:
            return NO_LITERAL
        head, tail = self._head, self._tail
        if self._number_is_first is None:
            pass
        elif self._number_is_first:
            head = b"%b%d%b" % (head, self._next_number, self._middle)
        else:
            tail = b"%b%d%b" % (self._middle, self._next_number, tail)
        start, end = len(head), len(block) - len(tail)
        if start >= end or not (block.startswith(head) and block.endswith(tail)):
            return NO_LITERAL
        found = read_literal(block[start:end])
        if found[0]:
            self._learned = 0
            self._next_number += 1
        return found

    def learn(self, frame: SSEFrame, event: dict[str, Any]) -> None:
        """Keep the template of an event that became one delta, if it is suitable."""
        data = frame.data
        self.kind = ""
        if self._learned >= _MAX_LEARNED or len(data) > _MAX_BYTES or b"\n" in data:
            return
        self._learned += 1
        texts, numbers = list(_TEXT.finditer(data)), list(_NUMBER.finditer(data))
        if len(texts) != 1 or len(numbers) > 1:
            return
        start, end = texts[0].span(1)
        try:
            if jsonio.loads(b'"%b"' % data[start:end]) != event.get("delta"):
                return
        except jsonio.JSONError:
            return
        if not numbers:
            if "sequence_number" in event:
                return
            self._number_is_first = None
            self._head, self._tail = data[:start], data[end:]
        else:
            first, last = numbers[0].span(1)
            number = int(numbers[0][1])
            if event.get("sequence_number") != number or str(number).encode() != numbers[0][1]:
                return
            self._next_number = number + 1
            self._number_is_first = last <= start
            if self._number_is_first:
                self._head, self._middle, self._tail = data[:first], data[last:start], data[end:]
            else:
                self._head, self._middle, self._tail = data[:start], data[end:first], data[last:]
        self._head = start_of(frame) + self._head
        self.kind = str(event.get("type"))
