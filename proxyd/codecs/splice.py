"""Edits of a JSON object's top level in its original bytes.

A direct request goes on as it came: key order, number formatting, spacing and escapes of everything that is not edited
stay as they are (protocol.md 5.2). So the value of a top-level key is replaced, cut or added where it stands, without
writing the rest anew. The bytes must already have been accepted by `jsonio.loads`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from proxyd import jsonio

__all__ = ["Member", "members", "splice"]

_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\]}]+")
_INSIDE = re.compile(rb'["{}\[\]]')
_SPACE = re.compile(rb"[ \t\r\n]*")


class Member(NamedTuple):
    """One top-level key: where the key begins, and where its value begins and ends."""

    key: str
    start: int
    value_start: int
    value_end: int


def members(data: bytes) -> Iterator[Member]:
    """The members of the object that `data` is, in order, duplicates included."""
    at = _skip(data, data.index(b"{") + 1)
    while data[at] != 0x7D:
        start = at
        at = _string_end(data, at)
        key = jsonio.loads(data[start:at])
        at = _skip(data, _skip(data, at) + 1)
        end = _value_end(data, at)
        yield Member(key, start, at, end)
        at = _skip(data, end)
        if data[at] == 0x2C:
            at = _skip(data, at + 1)


def splice(data: bytes, replace: Mapping[str, Any], remove: Collection[str] = ()) -> bytes:
    """`data` with the values of `replace` put in place of, or behind, the others, and the keys of `remove` cut out."""
    if not replace and not remove:
        return data
    pieces: list[bytes] = []
    kept = 0  # up to where `data` has been taken over
    previous_end = data.index(b"{") + 1
    is_first = True
    missing = dict(replace)
    for member in members(data):
        if member.key in replace:
            pieces += (data[kept : member.value_start], jsonio.dumps(replace[member.key]))
            kept = member.value_end
            missing.pop(member.key, None)
            is_first = False
        elif member.key in remove:
            # The comma ahead goes with it, or, for the first member, the one behind.
            if is_first:
                pieces.append(data[kept : member.start])
                kept = _skip(data, member.value_end)
                if data[kept] == 0x2C:
                    kept = _skip(data, kept + 1)
                previous_end = kept
                continue
            pieces.append(data[kept:previous_end])
            kept = member.value_end
        else:
            is_first = False
        previous_end = member.value_end
    pieces.append(data[kept:previous_end])
    if missing:
        added = jsonio.dumps(missing)[1:-1]
        pieces.append(added if is_first else b"," + added)
    pieces.append(data[previous_end:])
    return b"".join(pieces)


def _skip(data: bytes, at: int) -> int:
    match = _SPACE.match(data, at)
    return match.end() if match else at


def _string_end(data: bytes, at: int) -> int:
    match = _STRING.match(data, at)
    if match is None:
        raise jsonio.JSONError("a string that does not end")
    return match.end()


def _value_end(data: bytes, at: int) -> int:
    first = data[at]
    if first == 0x22:
        return _string_end(data, at)
    if first not in b"{[":
        match = _SCALAR.match(data, at)
        if match is None:
            raise jsonio.JSONError("a value is missing")
        return match.end()
    depth = 0
    while True:
        match = _INSIDE.search(data, at)
        if match is None:
            raise jsonio.JSONError("brackets do not match")
        char = match.group()
        if char == b'"':
            at = _string_end(data, match.start())
            continue
        at = match.end()
        depth += 1 if char in b"{[" else -1
        if not depth:
            return at
