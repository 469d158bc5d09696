"""Tool call fragments of a Chat Completions stream, gathered into calls (docs/spec/chat-to-messages.md#tool-calls).

OpenAI numbers calls by ``index`` and names them in their first fragment. Others number all of them 0 (Gemini and
gateways), leave out index and id, repeat the name or the id, send the arguments whole, as an object, or twice. The
rules that decide which call a fragment belongs to are `ToolCalls.slot_for`, in order.

A `ToolSlot` holds one call. Whether its arguments are one complete JSON object decides many cases; `JsonExtent`
follows that with a cost linear in the text, and only when somebody asks.
"""

from __future__ import annotations

import re
from typing import Any

from proxyd import jsonio
from proxyd.errors import BadReply

__all__ = ["JsonExtent", "ToolCalls", "ToolSlot"]

_STRUCTURE = re.compile(r'["{}\[\]]')
_STRING_END = re.compile(r'["\\]')


class JsonExtent:
    """Tells when a text that comes in pieces is a whole JSON object or array."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_opened")

    def __init__(self) -> None:
        self._depth = 0
        self._opened = False
        self._in_string = False
        self._escaped = False

    @property
    def is_complete(self) -> bool:
        return self._opened and self._depth == 0

    def feed(self, text: str) -> None:
        at = 0
        if self._escaped and text:
            self._escaped = False
            at = 1
        while True:
            if self._in_string:
                match = _STRING_END.search(text, at)
                if match is None:
                    return
                at = match.end()
                if match.group() == '"':
                    self._in_string = False
                elif at == len(text):
                    self._escaped = True
                else:
                    at += 1
            else:
                match = _STRUCTURE.search(text, at)
                if match is None:
                    return
                at = match.end()
                char = match.group()
                if char == '"':
                    self._in_string = True
                elif char in "{[":
                    self._depth += 1
                    self._opened = True
                else:
                    self._depth -= 1


class ToolSlot:
    """One tool call as far as it has come.

    ``unsent`` holds argument fragments that wait for the block to open; ``has_arguments`` says whether any came.
    """

    __slots__ = (
        "_extent",
        "_pieces",
        "_scanned",
        "call_id",
        "client_id",
        "has_arguments",
        "has_begun",
        "index",
        "name",
        "signature",
        "unsent",
    )

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.call_id = ""  # the upstream's
        self.client_id = ""  # as our client sees it
        self.name = ""
        self.signature: str | None = None  # Gemini's thought signature
        self.has_arguments = False
        self.has_begun = False  # its block was opened
        self.unsent: list[str] = []
        self._pieces: list[str] = []
        self._scanned = 0
        self._extent = JsonExtent()

    def add_arguments(self, text: str) -> None:
        self.has_arguments = True
        self.unsent.append(text)
        self._pieces.append(text)

    def add_sent_arguments(self, text: str) -> None:
        """As `add_arguments`, of what goes to the client at once."""
        self.has_arguments = True
        self._pieces.append(text)

    @property
    def is_complete(self) -> bool:
        """The arguments so far are one whole JSON object."""
        for piece in self._pieces[self._scanned :]:
            self._extent.feed(piece)
        self._scanned = len(self._pieces)
        return self._extent.is_complete

    def goes_on_with(self, text: str) -> bool:
        """Whether a fragment that is told by its number alone is more of the arguments, whatever it holds.

        Not another call's beginning, the whole of this one said again, or a null for no arguments (`ToolCalls.add`).
        """
        return self.has_arguments and not (_opens_object(text) and self.is_complete)

    def takes_sent(self, text: str) -> bool:
        """Add `text`, which goes to the client at once, if it is sure to be more of the arguments; whether it was."""
        if not self.goes_on_with(text):
            return False
        self.has_arguments = True
        self._pieces.append(text)
        return True

    def holds_exactly(self, text: str) -> bool:
        """Whether `text` is all the arguments so far."""
        return sum(map(len, self._pieces)) == len(text) and "".join(self._pieces) == text

    def arguments(self) -> str:
        """All of the arguments' text so far."""
        return "".join(self._pieces)


class ToolCalls:
    """The calls of one answer, in the order in which they began."""

    __slots__ = ("_by_index", "slots")

    def __init__(self) -> None:
        self.slots: list[ToolSlot] = []
        self._by_index: dict[int, ToolSlot] = {}

    def add(self, fragment: dict[str, Any]) -> tuple[ToolSlot, bool]:
        """Put one element of ``delta.tool_calls`` where it belongs; returns its slot and whether that is new."""
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        index = fragment.get("index")
        if isinstance(index, bool) or not isinstance(index, int):
            index = None
        call_id = _text(fragment.get("id"))
        name = _text(function.get("name"))
        arguments = _arguments_text(function.get("arguments"))
        before = len(self.slots)
        slot = self._slot_for(index, call_id, name, arguments)
        is_new = len(self.slots) > before
        slot.call_id = slot.call_id or call_id
        slot.name = slot.name or name
        slot.signature = _thought_signature(fragment) or slot.signature
        if not slot.has_arguments and arguments.strip() == "null":
            arguments = ""  # a call without arguments, as some servers put it
        if arguments and not (
            _opens_object(arguments) and slot.is_complete and slot.holds_exactly(arguments)
        ):
            slot.add_arguments(arguments)
        return slot, is_new

    def _slot_for(self, index: int | None, call_id: str, name: str, arguments: str) -> ToolSlot:
        slot = self._by_index.get(index) if index is not None else None
        if index is not None and slot is None:
            return self._new(index, name, call_id)
        if slot is None:  # no index
            if call_id:
                known = next((slot for slot in self.slots if slot.call_id == call_id), None)
                if known is not None and not _begins_anew(known, name, arguments):
                    return known
            if not self.slots:
                return self._new(None, name, call_id)
            slot = self.slots[-1]
            if call_id and slot.call_id and call_id != slot.call_id:
                return self._new(None, name, call_id)
            if name and slot.name and (name != slot.name or self._is_said_again(slot, arguments)):
                return self._new(None, name, call_id)
        elif call_id and slot.call_id and call_id != slot.call_id and (name or slot.is_complete):
            # Another id under the same number is another call: Gemini and gateways number everything 0. Without a
            # name and within unfinished arguments it is a server that makes up an id for each fragment.
            return self._new(index, name, call_id)
        elif (
            not call_id
            and name
            and slot.name
            and name != slot.name
            and (slot.is_complete or not slot.has_arguments)
        ):
            return self._new(index, name, call_id)
        if _begins_anew(slot, name, arguments) and (not call_id or call_id != slot.call_id):
            return self._new(index, name or slot.name, call_id)
        return slot

    @staticmethod
    def _is_said_again(slot: ToolSlot, arguments: str) -> bool:
        """The same name once more behind whole arguments: a second call, unless nothing about it is new."""
        return slot.is_complete and not slot.holds_exactly(arguments)

    def _new(self, index: int | None, name: str, call_id: str) -> ToolSlot:
        slot = ToolSlot(index)
        slot.name, slot.call_id = name, call_id
        self.slots.append(slot)
        if index is not None:
            self._by_index[index] = slot
        return slot


def _begins_anew(slot: ToolSlot, name: str, arguments: str) -> bool:
    """A second object where the first is whole is a second call, unless it is the first one said again."""
    return (
        _opens_object(arguments)
        and slot.is_complete
        and (not name or not slot.name or name == slot.name)
        and not slot.holds_exactly(arguments)
    )


def _opens_object(arguments: str) -> bool:
    return arguments.lstrip().startswith("{")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments_text(value: Any) -> str:
    """Arguments as text: Mistral's type also allows an object, which comes whole."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else jsonio.dump_text(value)
    except jsonio.JSONError:
        raise BadReply("the upstream sent a tool call whose arguments are no JSON") from None


def _thought_signature(fragment: dict[str, Any]) -> str | None:
    """Gemini's signature, on the call or on its function (docs/spec/vendors.md#gemini-signature)."""
    for holder in (fragment, fragment.get("function")):
        if isinstance(holder, dict):
            google = holder.get("extra_content")
            google = google.get("google") if isinstance(google, dict) else None
            signature = google.get("thought_signature") if isinstance(google, dict) else None
            if isinstance(signature, str) and signature:
                return signature
    return None
