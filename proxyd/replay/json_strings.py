"""A tokenizer for the strings of a JSON text, with their positions and keys; the text may be incomplete or invalid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["JsonString", "find_strings"]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[{}\[\],:]', re.DOTALL)
_UNIT = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True, eq=False)
class JsonString:
    """One string.

    Attributes:
        start, end: of what is between the quotes.
        keys: the path to it, without indexes of lists.
        units: its characters as they are encoded, one or an escape each.
        text: its characters decoded, one for each unit.
    """

    start: int
    end: int
    keys: tuple[str, ...]
    is_key: bool
    units: tuple[str, ...]
    text: str

    def encode(self, text: str) -> str:
        """Encode `text`, of the same length, with escapes where the original has them."""
        assert len(text) == len(self.units), "filler has the length of the original"
        return "".join(map(_encode_like, self.units, text))


def find_strings(text: str) -> Iterator[JsonString]:
    """Find all strings of `text`, in order."""
    stack: list[str] = []  # of "{" and "["
    keys: list[str] = []  # one for each open object
    expects_key = False
    for match in _TOKEN.finditer(text):
        sign = match[0]
        if sign[0] == '"':
            start = match.start() + 1
            end = match.end() - 1 if len(sign) > 1 and sign[-1] == '"' and _is_closed(sign) else match.end()
            units = tuple(_UNIT.findall(text[start:end]))
            decoded = "".join(map(_decode, units))
            is_key = expects_key and stack[-1:] == ["{"]
            if is_key:
                keys[-1] = decoded
            path = tuple(keys[:-1] if is_key else keys)
            yield JsonString(start, end, path, is_key, units, decoded)
        elif sign in "{[":
            stack.append(sign)
            if sign == "{":
                keys.append("")
            expects_key = sign == "{"
        elif sign in "}]":
            if stack and stack.pop() == "{" and keys:
                keys.pop()
            expects_key = False
        else:
            expects_key = sign == "," and stack[-1:] == ["{"]


def _is_closed(quoted: str) -> bool:
    """Whether the last quote is not escaped."""
    slashes = len(quoted) - 1 - len(quoted[:-1].rstrip("\\"))
    return slashes % 2 == 0


def _decode(unit: str) -> str:
    if len(unit) == 1:
        return unit
    if unit[1] == "u" and len(unit) == 6:
        return chr(int(unit[2:], 16))
    return _ESCAPES.get(unit[1], unit[1])


def _encode_like(unit: str, character: str) -> str:
    if len(unit) == 6 and unit[1] == "u":
        return unit if ord(character) == int(unit[2:], 16) else f"\\u{ord(character) & 0xFFFF:04x}"
    return unit if len(unit) == 2 else character  # a short escape is never a letter
