"""Parse and write large JSON texts in pieces, so that no call into the JSON library takes long.

The library holds the interpreter's lock for as long as a call takes: 0.2 s for a text of 31 MB. In pieces other threads
go on between two of them, the event loop's above all. The results are those of `proxyd.jsonio`.

::

    {"model":"m","messages":[{…},{…},{…},{…},{…}],"system":"…………………"}
                              └─run──┘ └─run──┘            └─slices─┘

A value of more than a piece is built from the runs of its small members or items, each run parsed by one call, and from
its large ones, which are built first. A long string is decoded slice by slice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from proxyd import jsonio
from proxyd.codecs.wire.json_mask import ESCAPED, masked
from proxyd.jsonio import MAX_DEPTH, MAX_REQUEST_VALUES, JSONError, TooManyValues

__all__ = ["PIECE_BYTES", "PIECE_VALUES", "dumps", "loads"]

#: Most bytes and values of one call of the JSON library: 2 ms.
PIECE_BYTES, PIECE_VALUES = 256 * 1024, 4096

#: Longest name of a member, which is decoded in one piece.
_MAX_NAME_BYTES = 256 * 1024

_MAX_CHARACTER_BYTES = 4
_SECOND_OF_ESCAPED = ESCAPED[1]
_UNICODE_ESCAPE_BYTES, _SHORT_ESCAPE_BYTES = 6, 2
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]..")

_COLON = re.compile(rb"[ \t\r\n]*:")
_TOKEN = re.compile(rb'[\[\]{},"]')
_BLANKS = b" \t\r\n"
_CLOSING = {b"[": b"]", b"{": b"}"}


class _Container:
    """An array or object whose closing bracket was not reached yet.

    Attributes:
        commas: offset and number of tokens before it, of each comma between its items.
        built: values of its items that are larger than a piece, by their start; each with its end.
    """

    __slots__ = ("built", "commas", "start", "tokens")

    def __init__(self, start: int, tokens: int) -> None:
        self.start = start
        self.tokens = tokens
        self.commas: list[tuple[int, int]] = []
        self.built: dict[int, tuple[int, Any]] = {}


def loads(data: bytes) -> Any:
    """Parse one JSON value.

    Raises:
        TooManyValues: more than `MAX_REQUEST_VALUES`.
        JSONError: as `jsonio.loads`.
    """
    if jsonio.has_more_values(data, MAX_REQUEST_VALUES):
        raise TooManyValues(f"more than {MAX_REQUEST_VALUES} values")
    return _Parser(data).parse()


class _Parser:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._mask = masked(data)

    def parse(self) -> Any:
        data, mask = self._data, self._mask
        root = _Container(-1, 0)
        stack, tokens, at = [root], 0, 0
        while (token := _TOKEN.search(mask, at)) is not None:
            start, at, char = token.start(), token.end(), token.group()
            container = stack[-1]
            if char == b'"':
                at = mask.find(b'"', at) + 1
                if not at:
                    raise JSONError("a string does not end")
                if _COLON.match(mask, at):
                    if at - start > _MAX_NAME_BYTES:
                        raise JSONError(f"a name longer than {_MAX_NAME_BYTES} bytes")
                elif at - start > PIECE_BYTES:
                    container.built[start] = at, self._string(start, at)
                continue
            tokens += 1
            if char == b",":
                container.commas.append((start, tokens))
            elif char in _CLOSING:
                if len(stack) > MAX_DEPTH:
                    raise JSONError(f"nested deeper than {MAX_DEPTH} levels")
                stack.append(_Container(start, tokens))
            else:
                if container is root or _CLOSING[mask[container.start : container.start + 1]] != char:
                    raise JSONError("a bracket does not match")
                stack.pop()
                is_large = at - container.start > PIECE_BYTES or tokens - container.tokens > PIECE_VALUES
                if is_large or container.built:
                    value = self._container(container, start, tokens)
                    stack[-1].built[container.start] = at, value
        if len(stack) > 1 or root.commas:
            raise JSONError("a bracket is missing")
        if not root.built:
            return jsonio.loads(data, max_values=MAX_REQUEST_VALUES)
        ((start, (end, value)),) = root.built.items()
        _check_blank(data[:start], data[end:])
        return value

    def _container(self, container: _Container, end: int, tokens: int) -> Any:
        """Build an array or object whose closing bracket is at `end`."""
        is_object = self._mask[container.start : container.start + 1] == b"{"
        array: list[Any] = []
        members: dict[str, Any] = {}
        if not container.commas and not self._data[container.start + 1 : end].strip(_BLANKS):
            return members if is_object else array
        for start, stop, large in _runs(container, end, tokens):
            if large is not None:
                value_end, value = container.built[large]
                _check_blank(self._data[value_end:stop])
                if is_object:
                    members[self._name(start, large)] = value
                else:
                    _check_blank(self._data[start:large])
                    array.append(value)
                continue
            text = self._data[start:stop]
            if not text.strip(_BLANKS):
                raise JSONError("a value is missing")
            if is_object:
                members.update(jsonio.loads(b"{%b}" % text))
            else:
                array += jsonio.loads(b"[%b]" % text)
        return members if is_object else array

    def _name(self, start: int, end: int) -> str:
        """Return the name of the member that begins at `start` and whose value begins at `end`."""
        names = list(jsonio.loads(b"{%b[]}" % self._data[start:end]))
        if len(names) != 1:
            raise JSONError("a member has no name")
        return str(names[0])

    def _string(self, start: int, end: int) -> str:
        """Decode the string between the quotes at `start` and before `end`."""
        at, last, slices = start + 1, end - 1, []
        while at < last:
            stop = self._cut(at, min(at + PIECE_BYTES, last), last)
            slices.append(jsonio.loads(b'"%b"' % self._data[at:stop]))
            at = stop
        return "".join(slices)

    def _cut(self, start: int, at: int, end: int) -> int:
        """Return the last offset up to `at` where a string can be cut: in no character, escape or surrogate pair.

        It is at most 14 bytes before `at`, so a slice is never empty.
        """
        if at >= end:
            return end
        data, mask = self._data, self._mask
        for _ in range(_MAX_CHARACTER_BYTES - 1):
            at -= data[at] & 0xC0 == 0x80
        if mask[at] == _SECOND_OF_ESCAPED:
            return at - 1
        found = mask.rfind(b"\\", max(start, at - _UNICODE_ESCAPE_BYTES + 1), at)
        if found >= 0:
            is_unicode = mask[found + 1 : found + 2] == b"u"
            if found + (_UNICODE_ESCAPE_BYTES if is_unicode else _SHORT_ESCAPE_BYTES) > at:
                at = found
        before = at - _UNICODE_ESCAPE_BYTES
        return before if before > start and _HIGH_SURROGATE.match(mask, before) else at


def _runs(container: _Container, end: int, tokens: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield start and end of each run of small items, and of each large item, with the start of its value."""
    built = list(container.built)  # in their order
    start = item = container.start + 1
    tokens_before = container.tokens
    number = 0
    for stop, tokens_here in (*container.commas, (end, tokens)):
        is_large = number < len(built) and built[number] < stop
        is_full = stop - start > PIECE_BYTES or tokens_here - tokens_before > PIECE_VALUES
        if (is_large or is_full) and item > start:
            yield start, item - 1, None
            start = item
        if is_large:
            yield item, stop, built[number]
            number += 1
            start = stop + 1
        item = stop + 1
        if start == item or is_full:
            tokens_before = tokens_here
    if start < item:
        yield start, end, None


def _check_blank(*texts: bytes) -> None:
    if any(text.strip(_BLANKS) for text in texts):
        raise JSONError("unexpected characters between two values")


def dumps(value: Any) -> bytes:
    """Write compact JSON in UTF-8.

    Raises:
        JSONError: a value without a JSON form, such as NaN.
    """
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def _write(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, dict):
        mark = b"{"
        for name, member in value.items():
            parts += (mark, jsonio.dumps(name), b":")
            _write(member, parts)
            mark = b","
        parts.append(b"}" if value else b"{}")
    elif isinstance(value, (list, tuple)):
        mark = b"["
        for item in value:
            parts.append(mark)
            _write(item, parts)
            mark = b","
        parts.append(b"]" if value else b"[]")
    elif isinstance(value, str) and len(value) > PIECE_BYTES:
        parts.append(b'"')
        for at in range(0, len(value), PIECE_BYTES):
            parts.append(jsonio.dumps(value[at : at + PIECE_BYTES])[1:-1])
        parts.append(b'"')
    else:
        parts.append(jsonio.dumps(value))
