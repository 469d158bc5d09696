"""Edits of a JSON object in its original bytes.

A direct request goes on as it came: key order, number formatting, spacing and escapes of everything that is not edited
stay as they are (docs/spec/chat-to-messages.md#direct). So a value is replaced, cut or added where it stands, at any
depth, without writing the rest anew. The bytes must already have been accepted by `jsonio.loads`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from proxyd import jsonio

__all__ = ["CUT", "count_of", "span_of", "splice"]


class _Cut:
    """The type of `CUT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "CUT"


#: In the place of a new value: the member, or the item of an array, is cut out.
CUT: Final = _Cut()

_SCALAR = re.compile(rb"[^\s,\]}]+")
_TOKEN = re.compile(rb'[{}\[\]]|"[^"]*"')
_SPACE = re.compile(rb"[ \t\r\n]*")

_QUOTE, _COMMA, _OPEN_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b'",{[]'


class _Member(NamedTuple):
    """One key of an object: where the key begins, and where its value begins and ends."""

    key: str
    start: int
    value_start: int
    value_end: int


class _Edit(NamedTuple):
    """`data[start:end]` becomes `new`."""

    start: int
    end: int
    new: bytes


class _Reader:
    """Finds its way in `data`, of which `mask` is the same with unambiguous quotes."""

    __slots__ = ("data", "mask")

    def __init__(self, data: bytes) -> None:
        self.data, self.mask = data, _masked(data)

    def members(self, start: int) -> Iterator[_Member]:
        """The members of the object at `start`, in order, duplicates included."""
        mask = self.mask
        at = _skip(mask, start + 1)
        while mask[at] == _QUOTE:
            begin = at
            at = mask.index(b'"', at + 1) + 1
            key = jsonio.loads(self.data[begin:at])
            at = _skip(mask, _skip(mask, at) + 1)
            end = _value_end(mask, at)
            yield _Member(key, begin, at, end)
            at = _behind_comma(mask, end)

    def items(self, start: int) -> Iterator[tuple[int, int]]:
        """Where each item of the array at `start` begins and ends."""
        mask = self.mask
        at = _skip(mask, start + 1)
        while mask[at] != _CLOSE_ARRAY:
            end = _value_end(mask, at)
            yield at, end
            at = _behind_comma(mask, end)

    def of_object(self, start: int, changes: Mapping[str, Any]) -> Iterator[_Edit]:
        """The edits of the object at `start`, in the order of their places."""
        found = list(self.members(start))
        cut = [changes.get(member.key) is CUT for member in found]
        spans = [(member.start, member.value_end) for member in found]
        last = {member.key: index for index, member in enumerate(found)}
        for index, member in enumerate(found):
            if cut[index]:
                yield _without(spans, cut, index)
            elif member.key in changes:
                change = changes[member.key]
                # What goes into a value was told from the one that parsers give: nobody knows what another one is.
                if not isinstance(change, Mapping) or index == last[member.key]:
                    yield from self.of_value(member.value_start, member.value_end, change)
        present = {member.key for member in found}
        missing = {key: new for key, new in changes.items() if key not in present and new is not CUT}
        if missing:
            end = spans[-1][1] if spans else start + 1
            comma = b"" if all(cut) else b","
            yield _Edit(end, end, comma + jsonio.dumps(missing)[1:-1])

    def of_value(self, start: int, end: int, change: Any) -> Iterator[_Edit]:
        """The edits of the value at `start`."""
        first = self.mask[start]
        if isinstance(change, Mapping) and first == _OPEN_OBJECT:
            yield from self.of_object(start, change)
        elif isinstance(change, Mapping) and first == _OPEN_ARRAY and _are_positions(change):
            spans = list(self.items(start))
            cut = [change.get(index) is CUT for index in range(len(spans))]
            for index, (begin, stop) in enumerate(spans):
                if cut[index]:
                    yield _without(spans, cut, index)
                elif index in change:
                    yield from self.of_value(begin, stop, change[index])
        else:
            yield _Edit(start, end, jsonio.dumps(change))


def splice(data: bytes, changes: Mapping[str, Any]) -> bytes:
    """`data` with `changes` merged into it.

    Args:
        changes: key -> new value; `CUT`; or a mapping, which is merged into an object that stands there already. For
            an array, a mapping from positions (integers) to changes of its items. Of members with one name, the last
            is merged into, and all are replaced or cut.
    """
    if not changes:
        return data
    pieces: list[bytes] = []
    kept = 0  # up to where `data` has been taken over
    for edit in _Reader(data).of_object(_skip(data, 0), changes):
        pieces += (data[kept : edit.start], edit.new)
        kept = edit.end
    pieces.append(data[kept:])
    return b"".join(pieces)


def span_of(data: bytes, key: str) -> tuple[int, int]:
    """Where the value of `key` begins and ends; of several the last, which is the one that parsers give.

    Raises:
        KeyError: there is none.
    """
    spans = {member.key: member[2:] for member in _Reader(data).members(_skip(data, 0))}
    return spans[key]


def count_of(data: bytes, key: str) -> int:
    """How many members of the object have the name `key`."""
    return sum(member.key == key for member in _Reader(data).members(_skip(data, 0)))


def _are_positions(change: Mapping[Any, Any]) -> bool:
    return bool(change) and all(type(at) is int for at in change)


def _without(spans: list[tuple[int, int]], cut: list[bool], index: int) -> _Edit:
    """The edit that cuts one of `spans`, with the comma ahead, or, where nothing is kept ahead, the one behind."""
    start, end = spans[index]
    if not all(cut[:index]):
        return _Edit(spans[index - 1][1], end, b"")
    if index + 1 < len(spans):
        end = spans[index + 1][0]
    return _Edit(start, end, b"")


def _skip(data: bytes, at: int) -> int:
    match = _SPACE.match(data, at)
    return match.end() if match else at


def _behind_comma(data: bytes, at: int) -> int:
    """Where the next member or item begins, or the closing bracket stands."""
    at = _skip(data, at)
    return _skip(data, at + 1) if data[at] == _COMMA else at


def _masked(data: bytes) -> bytes:
    """`data`, byte for byte, with each escaped quote and backslash masked: every quote left begins or ends a string.

    Two passes of a memory search are ten times as fast as a pattern that goes from escape to escape; code is full of
    those.
    """
    return data.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _value_end(mask: bytes, at: int) -> int:
    first = mask[at]
    if first == _QUOTE:
        return mask.index(b'"', at + 1) + 1
    if first not in (_OPEN_OBJECT, _OPEN_ARRAY):
        match = _SCALAR.match(mask, at)
        assert match is not None, "the parser has seen a value here"
        return match.end()
    depth = 0
    for token in _TOKEN.finditer(mask, at):
        char = mask[token.start()]
        if char == _QUOTE:
            continue
        depth += 1 if char in (_OPEN_OBJECT, _OPEN_ARRAY) else -1
        if not depth:
            return token.end()
    raise AssertionError("the parser has seen that brackets match")
