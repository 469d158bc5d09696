"""Find the end of a tool call that was written as text, and read its name and arguments.

A reader takes the body in parts, each character once, and says where the body ends or cannot be one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.codecs.openai.tool_call_formats import Body, CallFormat, ParameterSyntax
from proxyd.codecs.translation.offered_tools import OfferedTools

__all__ = ["ObjectReader", "ParametersReader", "TextCall", "read_call", "reader_for"]

_OUTSIDE = re.compile(r"[\s:,\w.+-]*")
_STRING_END = re.compile(r'["\\]')
#: The end of parameters may begin so many characters before a part of the body.
_MAX_END = 128

_NAMES = ("name", "function", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input")


@dataclass(frozen=True, slots=True)
class TextCall:
    """A call: the tool's name for the upstream, and its arguments as JSON."""

    name: str
    arguments: str


class ObjectReader:
    """Reads one JSON object; where it begins with a quote, its first brace is missing.

    Attributes:
        is_bad: what was fed is no object.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "_started", "is_bad")

    def __init__(self) -> None:
        self._depth = 0
        self._started = False
        self._in_string = False
        self._escaped = False
        self.is_bad = False

    def feed(self, text: str) -> int:
        """Return where in `text` the object ends, or the first character that cannot be in it; -1 if neither is."""
        at = 0
        if not self._started and text:
            self._started = True
            self._depth = 0 if text[0] == "{" else 1
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
            elif self._in_string:
                match = _STRING_END.search(text, at)
                if match is None:
                    return -1
                at = match.end()
                self._in_string = match.group() != '"'
                self._escaped = self._in_string
            else:
                blank = _OUTSIDE.match(text, at)
                at = blank.end() if blank else at
                if at == len(text):
                    return -1
                char = text[at]
                if char == '"':
                    self._in_string = True
                elif char in "{[":
                    self._depth += 1
                elif char in "}]":
                    self._depth -= 1
                    if self._depth == 0:
                        return at + 1
                else:
                    self.is_bad = True
                    return at
                at += 1
        return -1


class ParametersReader:
    """Reads arguments in tags, up to the end of the call."""

    __slots__ = ("_syntax", "_tail", "is_bad")

    def __init__(self, syntax: ParameterSyntax) -> None:
        self._syntax = syntax
        self._tail: str | None = None
        self.is_bad = False

    def feed(self, text: str) -> int:
        """Return where in `text` the body ends; -1 if it does not."""
        if self._tail is None:
            end = self._syntax.begins[-1]
            if text.startswith(end):  # no arguments
                return len(end)
        tail = self._tail or ""
        match = self._syntax.end.search(tail + text)
        if match is not None:
            return match.end() - len(tail)
        self._tail = (tail + text)[-_MAX_END:]
        return -1


def reader_for(chosen: CallFormat) -> ObjectReader | ParametersReader:
    """Return a reader of the bodies of a format. Its first part must be enough to tell how the body begins."""
    return ObjectReader() if chosen.syntax is None else ParametersReader(chosen.syntax)


def read_call(chosen: CallFormat, name: str, body: str, tools: OfferedTools) -> TextCall | None:
    """Return the call of a whole body; None if it is none, or not of a tool that was offered."""
    if chosen.body is Body.ARGUMENTS:
        return _call(name, tools.read_arguments(name, body))
    if chosen.syntax is not None:
        return _call(name, _read_parameters(chosen.syntax, name, body, tools))
    if body.startswith("{"):
        return _read_object(body, tools)
    repaired = _read_object("{" + body, tools)
    fits = repaired is not None and tools.fits(repaired.name, jsonio.loads(repaired.arguments))
    return repaired if fits else None


def _call(name: str, arguments: dict[str, Any] | None) -> TextCall | None:
    if arguments is None:
        return None
    try:
        return TextCall(name, jsonio.dump_text(arguments))
    except jsonio.JSONError:
        return None  # a number that JSON has no form for


def _read_object(text: str, tools: OfferedTools) -> TextCall | None:
    try:
        value = jsonio.loads(text)
    except jsonio.JSONError:
        return None
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        return None
    name = next((found for key in _NAMES if (found := tools.known_name(value.get(key)))), "")
    if not name:
        return None
    arguments = next((value[key] for key in _ARGUMENTS if key in value), None)
    if isinstance(arguments, dict):
        return _call(name, arguments)
    if isinstance(arguments, str):
        return _call(name, tools.decoded(name, arguments))
    return _call(name, {}) if arguments is None and tools.fits(name, {}) else None


def _read_parameters(
    syntax: ParameterSyntax, name: str, body: str, tools: OfferedTools
) -> dict[str, Any] | None:
    arguments: dict[str, Any] = {}
    end = body.rstrip().removesuffix(syntax.begins[-1]).rstrip()
    at = 0
    while at < len(end):
        item = syntax.item.match(body, at)
        if item is None:
            return None
        groups = item.groupdict()
        key = groups["key"].strip()
        is_json = {"true": False, "false": True}.get(groups.get("string") or "")
        arguments[key] = _value(groups["value"], tools.property_types(name, key), is_json)
        at = item.end()
    return arguments if arguments or tools.fits(name, {}) else None


def _value(text: str, types: frozenset[str], is_json: bool | None) -> Any:
    """Return the value of an argument: JSON where the schema or the call says so, else the text."""
    if is_json is None:
        is_json = bool(types) and "string" not in types
    if is_json:
        try:
            return jsonio.loads(text.strip().lower() if types == {"boolean"} else text)
        except jsonio.JSONError:
            pass
    return text.removeprefix("\n").removesuffix("\n")
