"""Gather the tool call fragments of a Chat Completions stream into calls (docs/spec/chat-to-messages.md#tool-calls).

OpenAI numbers calls by ``index`` and names them in their first fragment. Others number all of them 0 (Gemini and
gateways), omit index and id, repeat the name or the id, send the arguments whole, as an object, or twice. `_RULES`
decide, in order, which call a fragment belongs to.

A `ToolSlot` holds one call. Whether its arguments are one complete JSON object decides many cases; `JsonExtent` tracks
that at a cost linear in the text, and only on demand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.errors import BadReply

__all__ = ["JsonExtent", "ToolCalls", "ToolSlot"]

_STRUCTURE = re.compile(r'["{}\[\]]')
_STRING_END = re.compile(r'["\\]')


class JsonExtent:
    """Detects when a text that is fed in parts is a whole JSON object or array."""

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
    """One tool call, as far as it was received.

    Attributes:
        call_id: the upstream's id.
        client_id: the id that the client sees.
        signature: Gemini's thought signature.
        has_arguments: a fragment of the arguments was received.
        has_begun: its block was opened.
        unsent: argument fragments that wait for the block to open.
    """

    __slots__ = (
        "_extent",
        "_parts",
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
        self.call_id = ""
        self.client_id = ""
        self.name = ""
        self.signature: str | None = None
        self.has_arguments = False
        self.has_begun = False
        self.unsent: list[str] = []
        self._parts: list[str] = []
        self._scanned = 0
        self._extent = JsonExtent()

    def add_arguments(self, text: str) -> None:
        self.has_arguments = True
        self.unsent.append(text)
        self._parts.append(text)

    def add_sent_arguments(self, text: str) -> None:
        """Add arguments that the caller sends to the client itself."""
        self.has_arguments = True
        self._parts.append(text)

    @property
    def is_complete(self) -> bool:
        """The arguments so far are one whole JSON object."""
        for part in self._parts[self._scanned :]:
            self._extent.feed(part)
        self._scanned = len(self._parts)
        return self._extent.is_complete

    def continues_with(self, text: str) -> bool:
        """Whether a fragment with no more than its index is certain to be more of the arguments.

        It is not the beginning of another call, a copy of the whole, or a null for no arguments (`ToolCalls.add`).
        """
        return self.has_arguments and not (_opens_object(text) and self.is_complete)

    def try_add_sent(self, text: str) -> bool:
        """`add_sent_arguments` if `continues_with`; returns whether it was added."""
        if not self.continues_with(text):
            return False
        self.has_arguments = True
        self._parts.append(text)
        return True

    def holds_exactly(self, text: str) -> bool:
        """Whether `text` is all the arguments so far."""
        return sum(map(len, self._parts)) == len(text) and "".join(self._parts) == text

    def arguments(self) -> str:
        """All of the arguments' text so far."""
        return "".join(self._parts)


@dataclass(frozen=True, slots=True)
class _Fragment:
    """One element of ``delta.tool_calls``; "" and None for what it lacks."""

    index: int | None
    call_id: str
    name: str
    arguments: str


class ToolCalls:
    """The calls of one message, in the order in which they began."""

    __slots__ = ("_by_index", "slots")

    def __init__(self) -> None:
        self.slots: list[ToolSlot] = []
        self._by_index: dict[int, ToolSlot] = {}

    def add(self, element: dict[str, Any]) -> tuple[ToolSlot, bool]:
        """Add one element of ``delta.tool_calls`` to its call; returns the call's slot and whether it is new."""
        function = element.get("function")
        function = function if isinstance(function, dict) else {}
        index = element.get("index")
        fragment = _Fragment(
            index if isinstance(index, int) and not isinstance(index, bool) else None,
            _text(element.get("id")),
            _text(function.get("name")),
            _arguments_text(function.get("arguments")),
        )
        count = len(self.slots)
        slot = self._slot_for(fragment)
        is_new = len(self.slots) > count
        slot.call_id = slot.call_id or fragment.call_id
        slot.name = slot.name or fragment.name
        slot.signature = _thought_signature(element) or slot.signature
        arguments = fragment.arguments
        if not slot.has_arguments and arguments.strip() == "null":
            arguments = ""  # a call without arguments, in the form of some servers
        if arguments and not (
            _opens_object(arguments) and slot.is_complete and slot.holds_exactly(arguments)
        ):
            slot.add_arguments(arguments)
        return slot, is_new

    def _slot_for(self, fragment: _Fragment) -> ToolSlot:
        slot = self._candidate(fragment)
        if slot is None or any(rule(slot, fragment) for rule in _RULES):
            return self._new(fragment, fragment.name)
        if _is_second_object(slot, fragment) and not _has_same_id(slot, fragment):
            return self._new(fragment, fragment.name or slot.name)
        return slot

    def _candidate(self, fragment: _Fragment) -> ToolSlot | None:
        """The call with the fragment's index; without an index, that with its id, or else the last one."""
        if fragment.index is not None:
            return self._by_index.get(fragment.index)
        if fragment.call_id:
            known = next((slot for slot in self.slots if slot.call_id == fragment.call_id), None)
            if known is not None and not _is_second_object(known, fragment):
                return known
        return self.slots[-1] if self.slots else None

    def _new(self, fragment: _Fragment, name: str) -> ToolSlot:
        slot = ToolSlot(fragment.index)
        slot.name, slot.call_id = name, fragment.call_id
        self.slots.append(slot)
        if fragment.index is not None:
            self._by_index[fragment.index] = slot
        return slot


# Rules: each takes the candidate for a fragment and says whether the fragment begins another call nevertheless.


def _has_other_id_and_no_index(slot: ToolSlot, fragment: _Fragment) -> bool:
    return fragment.index is None and _has_other_id(slot, fragment)


def _has_other_name_and_no_index(slot: ToolSlot, fragment: _Fragment) -> bool:
    return fragment.index is None and _has_other_name(slot, fragment)


def _repeats_name_after_whole_arguments(slot: ToolSlot, fragment: _Fragment) -> bool:
    """Without an index, the same name again after whole arguments begins a second call, unless all is repeated."""
    return (
        fragment.index is None
        and bool(fragment.name and slot.name)
        and slot.is_complete
        and not slot.holds_exactly(fragment.arguments)
    )


def _has_other_id_at_same_index(slot: ToolSlot, fragment: _Fragment) -> bool:
    """Gemini and gateways number every call 0.

    Without a name and within incomplete arguments it is a server that makes up an id for each fragment.
    """
    return (
        fragment.index is not None
        and _has_other_id(slot, fragment)
        and (bool(fragment.name) or slot.is_complete)
    )


def _has_other_name_at_same_index(slot: ToolSlot, fragment: _Fragment) -> bool:
    return (
        fragment.index is not None
        and not fragment.call_id
        and _has_other_name(slot, fragment)
        and (slot.is_complete or not slot.has_arguments)
    )


_RULES: tuple[Callable[[ToolSlot, _Fragment], bool], ...] = (
    _has_other_id_and_no_index,
    _has_other_name_and_no_index,
    _repeats_name_after_whole_arguments,
    _has_other_id_at_same_index,
    _has_other_name_at_same_index,
)


def _is_second_object(slot: ToolSlot, fragment: _Fragment) -> bool:
    """A second object after a whole one is a second call, unless it is a copy of the first."""
    return (
        _opens_object(fragment.arguments)
        and slot.is_complete
        and not _has_other_name(slot, fragment)
        and not slot.holds_exactly(fragment.arguments)
    )


def _has_same_id(slot: ToolSlot, fragment: _Fragment) -> bool:
    return bool(fragment.call_id) and fragment.call_id == slot.call_id


def _has_other_id(slot: ToolSlot, fragment: _Fragment) -> bool:
    return bool(fragment.call_id and slot.call_id) and fragment.call_id != slot.call_id


def _has_other_name(slot: ToolSlot, fragment: _Fragment) -> bool:
    return bool(fragment.name and slot.name) and fragment.name != slot.name


def _opens_object(arguments: str) -> bool:
    return arguments.lstrip().startswith("{")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments_text(value: Any) -> str:
    """Arguments as text: Mistral's type also allows an object, which is sent whole."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else jsonio.dump_text(value)
    except jsonio.JSONError:
        raise BadReply("the upstream sent a tool call whose arguments are no JSON") from None


def _thought_signature(element: dict[str, Any]) -> str | None:
    """Gemini's signature, on the call or on its function (docs/spec/vendors.md#gemini-signature)."""
    for holder in (element, element.get("function")):
        if isinstance(holder, dict):
            google = holder.get("extra_content")
            google = google.get("google") if isinstance(google, dict) else None
            signature = google.get("thought_signature") if isinstance(google, dict) else None
            if isinstance(signature, str) and signature:
                return signature
    return None
