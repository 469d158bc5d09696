"""The strings of a JSON text where they stand, with the keys that lead there; the text need not be whole or valid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Text", "texts_in"]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[{}\[\],:]', re.DOTALL)
_UNIT = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """One string.

    Attributes:
        start, end: of what is between the quotes.
        keys: that lead to it, without places in lists.
        units: each character as it is written.
        text: what it says, one character a unit.
    """

    start: int
    end: int
    keys: tuple[str, ...]
    is_key: bool
    units: tuple[str, ...]
    text: str

    def written(self, text: str) -> str:
        """`text`, of the same length, written as the original was: escapes where there were escapes."""
        assert len(text) == len(self.units), "filler has the length of what it stands for"
        return "".join(map(_written, self.units, text))


def texts_in(text: str) -> Iterator[Text]:
    """All strings of `text`, in order."""
    stack: list[str] = []  # of "{" and "["
    keys: list[str] = []  # one for each open object
    expects_key = False
    for match in _TOKEN.finditer(text):
        sign = match[0]
        if sign[0] == '"':
            start = match.start() + 1
            end = match.end() - 1 if len(sign) > 1 and sign[-1] == '"' and _is_closed(sign) else match.end()
            units = tuple(_UNIT.findall(text[start:end]))
            said = "".join(map(_said, units))
            is_key = expects_key and stack[-1:] == ["{"]
            if is_key:
                keys[-1] = said
            path = tuple(keys[:-1] if is_key else keys)
            yield Text(start, end, path, is_key, units, said)
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
    """Whether the last quote is not an escaped one."""
    slashes = len(quoted) - 1 - len(quoted[:-1].rstrip("\\"))
    return slashes % 2 == 0


def _said(unit: str) -> str:
    if len(unit) == 1:
        return unit
    if unit[1] == "u" and len(unit) == 6:
        return chr(int(unit[2:], 16))
    return _ESCAPES.get(unit[1], unit[1])


def _written(unit: str, character: str) -> str:
    if len(unit) == 6 and unit[1] == "u":
        return unit if ord(character) == int(unit[2:], 16) else f"\\u{ord(character) & 0xFFFF:04x}"
    return unit if len(unit) == 2 else character  # a short escape says no letter
