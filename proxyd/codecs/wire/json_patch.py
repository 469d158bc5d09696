"""Edit a JSON object in its original bytes.

A direct request is forwarded unchanged except for its edits: key order, number formatting, spacing and escapes stay as
they are (docs/spec/chat-to-messages.md#direct). So values are replaced, removed or added in place, at any depth. The
bytes must have been accepted by `jsonio.loads` before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from proxyd import jsonio
from proxyd.codecs.wire.json_mask import masked

__all__ = ["CUT", "count_of", "span_of", "splice"]


class _Cut:
    """The type of `CUT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "CUT"


#: Instead of a new value: remove the member, or the item of an array.
CUT: Final = _Cut()

_SCALAR = re.compile(rb"[^\s,\]}]+")
_TOKEN = re.compile(rb'[{}\[\]]|"[^"]*"')
_SPACE = re.compile(rb"[ \t\r\n]*")

_QUOTE, _COMMA, _OPEN_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b'",{[]'


class _Member(NamedTuple):
    """One member of an object: its key, and the offsets of key and value."""

    key: str
    start: int
    value_start: int
    value_end: int


class _Edit(NamedTuple):
    """Replace `data[start:end]` by `new`."""

    start: int
    end: int
    new: bytes


class _Reader:
    """Iterates over members and items of `data`; `mask` is `data` with escaped quotes masked."""

    __slots__ = ("data", "mask")

    def __init__(self, data: bytes) -> None:
        self.data, self.mask = data, masked(data)

    def members(self, start: int) -> Iterator[_Member]:
        """Yield the members of the object at `start` in order, duplicates included."""
        mask = self.mask
        at = _skip(mask, start + 1)
        while mask[at] == _QUOTE:
            begin = at
            at = mask.index(b'"', at + 1) + 1
            key = jsonio.loads(self.data[begin:at])
            at = _skip(mask, _skip(mask, at) + 1)
            end = _value_end(mask, at)
            yield _Member(key, begin, at, end)
            at = _after_comma(mask, end)

    def items(self, start: int) -> Iterator[tuple[int, int]]:
        """Yield start and end of each item of the array at `start`."""
        mask = self.mask
        at = _skip(mask, start + 1)
        while mask[at] != _CLOSE_ARRAY:
            end = _value_end(mask, at)
            yield at, end
            at = _after_comma(mask, end)

    def edits_of_object(self, start: int, changes: Mapping[str, Any]) -> Iterator[_Edit]:
        """Yield the edits of the object at `start`, in order."""
        found = list(self.members(start))
        cut = [changes.get(member.key) is CUT for member in found]
        spans = [(member.start, member.value_end) for member in found]
        last = {member.key: index for index, member in enumerate(found)}
        for index, member in enumerate(found):
            if cut[index]:
                yield _without(spans, cut, index)
            elif member.key in changes:
                change = changes[member.key]
                # The changes within a value refer to the last duplicate, the one that parsers return.
                if not isinstance(change, Mapping) or index == last[member.key]:
                    yield from self.edits_of_value(member.value_start, member.value_end, change)
        present = {member.key for member in found}
        missing = {key: new for key, new in changes.items() if key not in present and new is not CUT}
        if missing:
            end = spans[-1][1] if spans else start + 1
            comma = b"" if all(cut) else b","
            yield _Edit(end, end, comma + jsonio.dumps(missing)[1:-1])

    def edits_of_value(self, start: int, end: int, change: Any) -> Iterator[_Edit]:
        """Yield the edits of the value at `start`."""
        first = self.mask[start]
        if isinstance(change, Mapping) and first == _OPEN_OBJECT:
            yield from self.edits_of_object(start, change)
        elif isinstance(change, Mapping) and first == _OPEN_ARRAY and _are_positions(change):
            spans = list(self.items(start))
            cut = [change.get(index) is CUT for index in range(len(spans))]
            for index, (begin, stop) in enumerate(spans):
                if cut[index]:
                    yield _without(spans, cut, index)
                elif index in change:
                    yield from self.edits_of_value(begin, stop, change[index])
        else:
            yield _Edit(start, end, jsonio.dumps(change))


def splice(data: bytes, changes: Mapping[str, Any]) -> bytes:
    """Merge `changes` into the JSON object `data`.

    Args:
        changes: key -> new value, `CUT`, or a mapping, which is merged into an existing object. For an array, a
            mapping from positions (integers) to changes of its items. Of duplicate members, the last one is merged
            into, and all are replaced or removed.
    """
    if not changes:
        return data
    parts: list[bytes] = []
    copied = 0  # offset up to which `data` has been copied
    for edit in _Reader(data).edits_of_object(_skip(data, 0), changes):
        parts += (data[copied : edit.start], edit.new)
        copied = edit.end
    parts.append(data[copied:])
    return b"".join(parts)


def span_of(data: bytes, key: str) -> tuple[int, int]:
    """Return start and end of the value of `key`; of duplicates the last one, which parsers return.

    Raises:
        KeyError: the object has no such member.
    """
    spans = {member.key: member[2:] for member in _Reader(data).members(_skip(data, 0))}
    return spans[key]


def count_of(data: bytes, key: str) -> int:
    """Return the number of members with the name `key`."""
    return sum(member.key == key for member in _Reader(data).members(_skip(data, 0)))


def _are_positions(change: Mapping[Any, Any]) -> bool:
    return bool(change) and all(type(at) is int for at in change)


def _without(spans: list[tuple[int, int]], cut: list[bool], index: int) -> _Edit:
    """Return the edit that removes one of `spans` with the comma before it, or after it if nothing is kept before."""
    start, end = spans[index]
    if not all(cut[:index]):
        return _Edit(spans[index - 1][1], end, b"")
    if index + 1 < len(spans):
        end = spans[index + 1][0]
    return _Edit(start, end, b"")


def _skip(data: bytes, at: int) -> int:
    match = _SPACE.match(data, at)
    return match.end() if match else at


def _after_comma(data: bytes, at: int) -> int:
    """Return the offset of the next member or item, or of the closing bracket."""
    at = _skip(data, at)
    return _skip(data, at + 1) if data[at] == _COMMA else at


def _value_end(mask: bytes, at: int) -> int:
    first = mask[at]
    if first == _QUOTE:
        return mask.index(b'"', at + 1) + 1
    if first not in (_OPEN_OBJECT, _OPEN_ARRAY):
        match = _SCALAR.match(mask, at)
        assert match is not None, "the parser accepted a value here"
        return match.end()
    depth = 0
    for token in _TOKEN.finditer(mask, at):
        char = mask[token.start()]
        if char == _QUOTE:
            continue
        depth += 1 if char in (_OPEN_OBJECT, _OPEN_ARRAY) else -1
        if not depth:
            return token.end()
    raise AssertionError("the parser accepted the brackets")
