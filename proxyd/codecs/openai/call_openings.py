"""Match the openings of tool calls written as text, at one position, with "perhaps" as an answer.

A pattern (`tool_call_formats`) is split into its elements once; names are compared with the offered tools.
"""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass

from proxyd.codecs.openai.tool_call_formats import FORMATS, CallFormat

__all__ = ["MARKERS", "MAX_OPENING", "Found", "Match", "match_opening", "partial_marker_length"]

#: Most characters of an opening, white space included.
MAX_OPENING = 512
#: Openings that are still undecided after so many characters are none: a name can be this much longer.
_MAX_UNDECIDED = 2 * MAX_OPENING

_ELEMENT = re.compile(r"(~|\{name\}|\{word\}|\{channels\}|@)")
_BLANK = re.compile(r"\s*")
_WORD = re.compile(r"[\w.-]{0,64}")
_CHANNEL_WORDS = ("<|channel|>", "<|constrain|>", "commentary", "analysis", "final", "json")
_CHANNELS = re.compile(r"(?:\s|" + "|".join(map(re.escape, _CHANNEL_WORDS)) + ")*")


class Match(enum.Enum):
    """Whether a text begins with an opening."""

    NO = enum.auto()
    PERHAPS = enum.auto()
    YES = enum.auto()


@dataclass(frozen=True, slots=True)
class Found:
    """An opening: its format, where its body begins, and the tool's name unless the body holds it."""

    format: CallFormat
    body_at: int
    name: str


@functools.cache
def _elements(pattern: str) -> tuple[str, ...]:
    return tuple(part for part in _ELEMENT.split(pattern) if part)


def _first_literal(pattern: str) -> str:
    return _elements(pattern.removeprefix("@"))[0]


_LITERALS = sorted(
    {_first_literal(pattern) for each in FORMATS if not each.is_alone for pattern in each.openings}
)
#: Where a call can begin within a text.
MARKERS = re.compile("|".join(map(re.escape, _LITERALS)))


def partial_marker_length(text: str) -> int:
    """Return the length of the longest end of `text` that may become a marker."""
    at = max(text.rfind("<"), text.rfind("["))  # where every marker begins, and nowhere within
    tail = text[at:] if at >= 0 else ""
    is_partial = tail and any(len(each) > len(tail) and each.startswith(tail) for each in _LITERALS)
    return len(tail) if is_partial else 0


def match_opening(
    text: str, at: int, names: tuple[str, ...], *, is_start: bool = False, after: CallFormat | None = None
) -> tuple[Match, Found | None]:
    """Return whether `text` has an opening at `at`, and which; positions in it count from `at`.

    Args:
        names: of the offered tools, the longest first.
        is_start: the message begins here, where a call can be a bare object.
        after: the format of the call that ended here; only further calls of it are looked for.
    """
    window = text[at : at + _MAX_UNDECIDED]
    for each in FORMATS if after is None else (after,):
        if each.is_alone and not is_start and after is None:
            continue
        for pattern in (*each.openings, *each.again) if after is not None else each.openings:
            answer, found = _match(each, pattern, window, names)
            if answer is Match.PERHAPS and len(window) == _MAX_UNDECIDED:
                continue
            if answer is not Match.NO:
                return answer, found
    return Match.NO, None


def _match(chosen: CallFormat, pattern: str, text: str, names: tuple[str, ...]) -> tuple[Match, Found | None]:
    at, body_at, name = 0, None, ""
    for element in _elements(pattern):
        if element == "@":
            body_at = at
            continue
        end = _element_end(element, text, at, names)
        if end is None:
            return Match.NO, None
        if end < 0:
            return Match.PERHAPS, None
        if element == "{name}":
            name = text[at:end]
        at = end
    if at > MAX_OPENING:
        return Match.NO, None
    if body_at is not None:
        return Match.YES, Found(chosen, body_at, "")
    answer = _body_begins(chosen, text, at)
    return answer, Found(chosen, at, name) if answer is Match.YES else None


def _element_end(element: str, text: str, at: int, names: tuple[str, ...]) -> int | None:
    """Return where an element of a pattern ends; None if it is not there, -1 if that is undecided."""
    rest = len(text) - at
    if element == "~":
        blank = _BLANK.match(text, at)
        return blank.end() if blank else at
    if element == "{name}":
        for name in names:  # the longest first
            if text.startswith(name, at):
                return at + len(name)
            if rest < len(name) and name.startswith(text[at:]):
                return -1
        return None
    if element == "{word}":
        word = _WORD.match(text, at)
        end = word.end() if word else at
        if end == len(text):
            return -1
        return end if end > at else None
    if element == "{channels}":
        words = _CHANNELS.match(text, at)
        end = words.end() if words else at
        tail = text[end:]
        return -1 if any(each.startswith(tail) for each in _CHANNEL_WORDS) else end
    if text.startswith(element, at):
        return at + len(element)
    return -1 if rest < len(element) and element.startswith(text[at:]) else None


def _body_begins(chosen: CallFormat, text: str, at: int) -> Match:
    if chosen.syntax is None:
        # An object, or one whose first brace is missing.
        return Match.PERHAPS if at == len(text) else Match.YES if text[at] in '{"' else Match.NO
    rest = text[at:]
    if any(rest.startswith(each) for each in chosen.syntax.begins):
        return Match.YES
    return Match.PERHAPS if any(each.startswith(rest) for each in chosen.syntax.begins) else Match.NO
