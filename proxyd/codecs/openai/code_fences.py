"""Whether a text, read in parts, is inside a Markdown code fence, or inside a code span of its last line."""

from __future__ import annotations

import re

__all__ = ["CodeFences"]

#: The start of a line that opens or closes a fence: after blanks and the marks of a quotation.
_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})(.*)\Z", re.DOTALL)
#: Longer starts of lines open no fence whose text matters.
_MAX_LINE = 256


class CodeFences:
    """Follow the lines of a text. The state depends on the text alone, not on how it was cut."""

    __slots__ = ("_backticks", "_fence", "_line")

    def __init__(self) -> None:
        self._line = ""  # the start of the last line
        self._backticks = 0  # in the last line
        self._fence = ""  # the marks that opened the open fence

    @property
    def is_in_code(self) -> bool:
        """A fence is open or just being opened, or a backtick of the last line has no second one."""
        return bool(self._fence) or self._backticks % 2 == 1 or self._opens(self._line) != ""

    def feed(self, text: str) -> None:
        first, *more = text.split("\n")
        self._extend(first)
        for line in more:
            self._end_line()
            self._extend(line)

    def start_line(self) -> None:
        """Begin a new line: what came between was no text."""
        self._end_line()

    def _extend(self, text: str) -> None:
        self._backticks += text.count("`")
        self._line += text[: _MAX_LINE - len(self._line)]

    def _end_line(self) -> None:
        line, self._line, self._backticks = self._line, "", 0
        if not self._fence:
            self._fence = self._opens(line)
            return
        match = _FENCE.match(line)
        if match and match[1].startswith(self._fence) and not match[2].strip():
            self._fence = ""

    @staticmethod
    def _opens(line: str) -> str:
        match = _FENCE.match(line)
        if match is None or (match[1][0] == "`" and "`" in match[2]):
            return ""
        return match[1]
