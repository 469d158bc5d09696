"""Gather the tool call fragments of a Chat Completions stream into calls (docs/spec/chat-to-messages.md#tool-calls).

OpenAI numbers calls by ``index`` and names them in their first fragment. Others number all of them 0 (Gemini and
gateways), omit index and id, repeat the name or the id, send the arguments whole, as an object, or twice. `_RULES`
decide, in order, which call a fragment belongs to.

A `ToolSlot` holds one call. Its arguments are one JSON object: `JsonExtent` finds its end at a cost linear in the text,
and what follows is dropped, since servers append a brace, a token of the template, or a copy of the whole.
An empty object before other arguments is a placeholder of gateways, not the arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.codecs.openai.signed_data import signature_in_call
from proxyd.codecs.translation.offered_tools import OfferedTools
from proxyd.errors import BadReply

__all__ = ["JsonExtent", "ToolCalls", "ToolSlot"]

_STRUCTURE = re.compile(r'["{}\[\]]')
#: Arguments of a call without any, and of gateways before Claude ahead of the real ones.
_PLACEHOLDER = re.compile(r"\s*(?:null|\{\s*\})\s*")


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

    def feed(self, text: str) -> int:
        """Scan the next part of the text; returns how many characters of it belong to the value."""
        if self.is_complete:
            return 0
        at = 0
        if self._escaped and text:
            self._escaped = False
            at = 1
        while True:
            if self._in_string:
                quote = text.find('"', at)
                while quote >= 0 and _is_escaped(text, quote, at):
                    quote = text.find('"', quote + 1)
                if quote < 0:
                    self._escaped = _is_escaped(text, len(text), at)
                    return len(text)
                at = quote + 1
                self._in_string = False
            else:
                match = _STRUCTURE.search(text, at)
                if match is None:
                    return len(text)
                at = match.end()
                char = match.group()
                if char == '"':
                    self._in_string = True
                elif char in "{[":
                    self._depth += 1
                    self._opened = True
                else:
                    self._depth -= 1
                    if self._opened and self._depth == 0:
                        return at

    def copy(self) -> JsonExtent:
        other = JsonExtent()
        other._depth, other._opened = self._depth, self._opened
        other._in_string, other._escaped = self._in_string, self._escaped
        return other


def _is_escaped(text: str, at: int, start: int) -> bool:
    """Whether an odd number of backslashes stands before `at`, none of them before `start`."""
    first = at
    while first > start and text[first - 1] == "\\":
        first -= 1
    return (at - first) % 2 == 1


class ToolSlot:
    """One tool call, as far as it was received.

    Attributes:
        call_id: the upstream's id.
        client_id: the id that the client sees.
        signature: the place and the value of its thought signature.
        has_arguments: a fragment of the arguments was received.
        has_placeholder: an empty object or null was received as the arguments, which others may follow.
        has_excess: text after the end of the arguments was dropped.
        possible_copy_of: the call before, where only a second object under its index began this one.
        has_begun: its block was opened.
        unsent: argument fragments that wait for the block to open.
    """

    __slots__ = (
        "_extent",
        "_is_object",
        "_parts",
        "call_id",
        "client_id",
        "has_arguments",
        "has_begun",
        "has_excess",
        "has_placeholder",
        "index",
        "name",
        "possible_copy_of",
        "signature",
        "unsent",
    )

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.call_id = ""
        self.client_id = ""
        self.name = ""
        self.signature: tuple[str, str] | None = None
        self.has_arguments = False
        self.has_placeholder = False
        self.has_excess = False
        self.has_begun = False
        self.possible_copy_of: ToolSlot | None = None
        self.unsent: list[str] = []
        self._parts: list[str] = []
        self._extent = JsonExtent()
        self._is_object: bool | None = None  # None until a character that is not blank

    @property
    def is_complete(self) -> bool:
        """The arguments so far are one whole JSON object."""
        return self._extent.is_complete

    @property
    def is_cut(self) -> bool:
        """The arguments are an object without its end."""
        return bool(self._is_object) and not self.is_complete

    @property
    def is_copy(self) -> bool:
        """The whole call repeats the one before it."""
        original = self.possible_copy_of
        return original is not None and self.is_complete and original.is_copied_by(self.arguments())

    def add_arguments(self, text: str) -> None:
        """Add a fragment of the arguments, as far as it belongs to them."""
        used = self._scan(text)
        if used:
            self.has_arguments = True
            self._parts.append(text[:used])
            if self._is_object:
                self.unsent.append(text[:used])
        if text[used:].strip() and not self.is_copied_by(text):
            self.has_excess = True

    def recover(self, tools: OfferedTools | None = None) -> None:
        """Make the arguments that are no object, and were kept back for that, ready to be sent.

        Some servers encode the object a second time, as a string, or put it into a code fence. With `tools`, a first
        brace that is missing is added, if the arguments fit the tool then.
        """
        if self._is_object or not self.has_arguments:
            return
        arguments = _recovered(self.arguments())
        repaired = None if tools is None else tools.read_arguments(tools.known_name(self.name), arguments)
        if repaired is not None:
            arguments = jsonio.dump_text(repaired)
        self._parts, self._extent, self._is_object = [], JsonExtent(), True
        self._scan(arguments)
        self.unsent.append(arguments)

    def try_add_sent(self, text: str) -> bool:
        """Add a fragment that the caller sends to the client itself, if it is certain to belong to the arguments.

        A fragment with no more than an index does if it is not the beginning of another call, a copy of the whole, or a
        placeholder (`ToolCalls.add`), and has nothing after the end of the object. Returns whether it was added.
        """
        if not self._is_object or (self.is_complete and _opens_object(text)):
            return False
        before = self._extent.copy() if "}" in text else None
        if self._scan(text) < len(text):
            if before is not None:
                self._extent = before
            return False
        self._parts.append(text)
        return True

    def is_copied_by(self, text: str) -> bool:
        """Whether `text` is all the arguments so far, or another encoding of them."""
        arguments = self.arguments()
        if text == arguments:
            return True
        if not self.is_complete:
            return False
        try:
            return bool(jsonio.loads(text) == jsonio.loads(arguments))
        except jsonio.JSONError:
            return False

    def _scan(self, text: str) -> int:
        """Return how many characters of `text` belong to the arguments: all, if they are no object."""
        if self._is_object is None and (start := text.lstrip()):
            self._is_object = start[0] == "{"
        used = self._extent.feed(text)
        return used if self._is_object else len(text)

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
        slot.signature = signature_in_call(element) or slot.signature
        if not slot.has_arguments and _PLACEHOLDER.fullmatch(fragment.arguments):
            slot.has_placeholder = True
        elif fragment.arguments:
            slot.add_arguments(_new_part(slot, fragment))
        return slot, is_new

    def _slot_for(self, fragment: _Fragment) -> ToolSlot:
        slot = self._candidate(fragment)
        if slot is None or any(rule(slot, fragment) for rule in _RULES):
            return self._new(fragment, fragment.name)
        if _is_second_object(slot, fragment) and not _has_same_id(slot, fragment):
            second = self._new(fragment, fragment.name or slot.name)
            if not fragment.name and not fragment.call_id:
                second.possible_copy_of = slot
            return second
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
        and not slot.is_copied_by(fragment.arguments)
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


def _new_part(slot: ToolSlot, fragment: _Fragment) -> str:
    """Return the part of a fragment's arguments that is new: some servers repeat the call with all arguments so far."""
    before = slot.arguments()
    is_whole_call = bool(fragment.name or fragment.call_id)
    if is_whole_call and len(before) > 1 and not slot.is_complete and fragment.arguments.startswith(before):
        return fragment.arguments[len(before) :]
    return fragment.arguments


def _is_second_object(slot: ToolSlot, fragment: _Fragment) -> bool:
    """A second object after a whole one is a second call, unless it is a copy of the first."""
    return (
        _opens_object(fragment.arguments)
        and slot.is_complete
        and not _has_other_name(slot, fragment)
        and not slot.is_copied_by(fragment.arguments)
    )


def _has_same_id(slot: ToolSlot, fragment: _Fragment) -> bool:
    return bool(fragment.call_id) and fragment.call_id == slot.call_id


def _has_other_id(slot: ToolSlot, fragment: _Fragment) -> bool:
    return bool(fragment.call_id and slot.call_id) and fragment.call_id != slot.call_id


def _has_other_name(slot: ToolSlot, fragment: _Fragment) -> bool:
    return bool(fragment.name and slot.name) and fragment.name != slot.name


def _opens_object(arguments: str) -> bool:
    return arguments.lstrip().startswith("{")


_FENCE = "```"


def _recovered(arguments: str) -> str:
    """Return the JSON object in arguments that are none; else the arguments."""
    text = arguments.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):
        text = text[len(_FENCE) : -len(_FENCE)].partition("\n")[2]  # the first line names the language
    try:
        value = jsonio.loads(text)
        if isinstance(value, str):
            value = jsonio.loads(value)
    except jsonio.JSONError:
        return arguments
    return jsonio.dump_text(value) if isinstance(value, dict) else arguments


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
