"""Recognise tool calls that a model wrote into its text (docs/spec/chat-to-messages.md#text-tool-calls).

::

    TEXT ──opening of an offered tool──▶ BODY ──its end──▶ AFTER ──other text──▶ TEXT
      ▲                                    │                 └──another opening──▶ BODY
      └───────no call: given out as text───┘

Only what may still become a call is held back: an opening of at most `MAX_OPENING` characters, then a body of at most
`MAX_BODY`. What turns out to be no call is given out as it came, and so is everything in code.
"""

from __future__ import annotations

import enum

from proxyd.codecs.openai.call_bodies import ObjectReader, ParametersReader, TextCall, read_call, reader_for
from proxyd.codecs.openai.call_openings import (
    MARKERS,
    MAX_OPENING,
    Found,
    Match,
    match_opening,
    partial_marker_length,
)
from proxyd.codecs.openai.code_fences import CodeFences
from proxyd.codecs.translation.offered_tools import OfferedTools

__all__ = ["MAX_BODY", "TextToolCalls"]

#: Most characters of the body of one call.
MAX_BODY = 1 << 20
#: A long text is taken in parts, since what follows a marker is copied.
_MAX_PART = 4096
#: Other text after a call that is dropped if the end of the format follows it.
_MAX_RUBBISH = 48


class _State(enum.Enum):
    TEXT = enum.auto()
    BODY = enum.auto()
    AFTER = enum.auto()


class TextToolCalls:
    """Split the text of one message into text and calls.

    Args:
        tools: the offered tools; there must be one.
    """

    __slots__ = (
        "_blanks",
        "_body",
        "_body_chars",
        "_calls",
        "_fences",
        "_found",
        "_has_end",
        "_head",
        "_held",
        "_is_start",
        "_raw",
        "_reader",
        "_state",
        "_tools",
    )

    def __init__(self, tools: OfferedTools) -> None:
        self._tools = tools
        self._fences = CodeFences()
        self._state = _State.TEXT
        self._held = ""
        self._is_start = True  # only white space until now
        self._blanks = ""  # this white space
        self._found: Found | None = None
        self._head = ""  # the opening of the call whose body is read
        self._body: list[str] = []
        self._body_chars = 0
        self._reader: ObjectReader | ParametersReader = ObjectReader()
        self._has_end = False  # the end of the format was there
        self._raw: list[str] = []  # text of calls that other text after them would make text
        self._calls: list[TextCall] = []  # these calls

    def feed(self, text: str) -> list[str | TextCall]:
        """Take the next part of the text; returns texts and calls in their order."""
        runs: list[str | TextCall] = []
        for at in range(0, len(text), _MAX_PART):
            runs += self._feed_part(text[at : at + _MAX_PART])
        return runs

    def _feed_part(self, text: str) -> list[str | TextCall]:
        text = self._held + text
        self._held = ""
        runs: list[str | TextCall] = []
        while text:
            if self._state is _State.TEXT:
                text = self._read_text(text, runs)
            elif self._state is _State.BODY:
                text = self._read_body(text, runs)
            else:
                text = self._read_after(text, runs)
        return runs

    def try_pass(self, text: str) -> bool:
        """Return whether `text` can go out as it is, because no call is near; only then is it taken."""
        if self._state is not _State.TEXT or self._held or self._is_start or "<" in text or "[" in text:
            return False
        self._fences.feed(text)
        return True

    def close(self) -> list[str | TextCall]:
        """End the text: what was held back is no call, unless it only waited for the end."""
        runs: list[str | TextCall] = []
        held, self._held = self._held, ""
        calls, self._calls = self._calls, []
        if self._state is _State.BODY:
            held = self._take_raw() + self._take_body() + held
        elif self._state is _State.AFTER:
            if self._is_closing(held.strip()):
                held = ""
            if calls and not held:
                runs += calls
                self._blanks, self._is_start = "", False
            elif calls:
                held = self._take_raw() + held
        self._raw = []
        self._state = _State.TEXT
        self._write(held, runs)
        if self._blanks:
            runs.append(self._blanks)
            self._blanks = ""
        return runs

    # -- text

    def _read_text(self, text: str, runs: list[str | TextCall]) -> str:
        """Give out the beginning of `text`, return the rest."""
        if self._is_start:
            stripped = text.lstrip()
            self._blanks += text[: len(text) - len(stripped)]
            if not stripped:
                return ""
            text = stripped
        if self._is_start and text[0] == "{":
            at = 0
        else:
            marker = MARKERS.search(text)
            if marker is None:
                keep = partial_marker_length(text)
                self._write(text[: len(text) - keep], runs)
                self._held = text[len(text) - keep :]
                return ""
            at = marker.start()
            self._write(text[:at], runs)
        if self._fences.is_in_code:
            answer, found = Match.NO, None
        else:
            answer, found = match_opening(text, at, self._tools.names, is_start=self._is_start)
        if answer is Match.PERHAPS:
            self._held = text[at:]
            return ""
        if found is None:
            self._write(text[at : at + 1], runs)
            return text[at + 1 :]
        return self._open(found, text, at)

    def _write(self, text: str, runs: list[str | TextCall]) -> None:
        if not text:
            return
        if self._is_start:
            if text.isspace():
                self._blanks += text
                return
            text, self._blanks, self._is_start = self._blanks + text, "", False
        self._fences.feed(text)
        if runs and isinstance(runs[-1], str):
            runs[-1] += text
        else:
            runs.append(text)

    # -- a call

    def _open(self, found: Found, text: str, at: int) -> str:
        self._state, self._found = _State.BODY, found
        self._head, self._body, self._body_chars = text[at : at + found.body_at], [], 0
        self._reader = reader_for(found.format)
        return text[at + found.body_at :]

    def _read_body(self, text: str, runs: list[str | TextCall]) -> str:
        limit = MAX_BODY - self._body_chars
        end = self._reader.feed(text)
        if end < 0 and len(text) < limit:
            self._body.append(text)
            self._body_chars += len(text)
            return ""
        if end < 0 or end > limit:
            self._body.append(text[:limit])
            return self._reject(text[limit:], runs)
        self._body.append(text[:end])
        found = self._found
        assert found is not None
        call = None
        if not self._reader.is_bad:
            call = read_call(found.format, found.name, "".join(self._body), self._tools)
        if call is None:
            return self._reject(text[end:], runs)
        if found.format.is_alone:
            self._raw.append(self._take_body())
            self._calls.append(call)
        else:
            runs.append(call)
            self._raw = []
            self._blanks, self._is_start = "", False
        self._state, self._has_end = _State.AFTER, False
        return text[end:]

    def _reject(self, rest: str, runs: list[str | TextCall]) -> str:
        """Give out the text of what is no call."""
        self._state = _State.TEXT
        text = self._take_raw() + self._take_body()
        self._calls = []
        self._write(text, runs)
        return rest

    def _take_body(self) -> str:
        text = self._head + "".join(self._body)
        self._head, self._body = "", []
        return text

    def _take_raw(self) -> str:
        text, self._raw = "".join(self._raw), []
        return text

    # -- after a call

    def _read_after(self, text: str, runs: list[str | TextCall]) -> str:
        found = self._found
        assert found is not None
        chosen = found.format
        rest = text.lstrip()
        blank = text[: len(text) - len(rest)]
        if len(blank) > MAX_OPENING:
            return self._leave(text, text, runs)
        if not rest:
            self._held = text
            return ""
        for closing in chosen.closings:
            if rest.startswith(closing):
                self._has_end = self._has_end or closing == chosen.end
                if chosen.is_alone:
                    self._raw.append(blank + closing)
                return rest[len(closing) :]
        answer, again = match_opening(rest, 0, self._tools.names, after=chosen)
        if answer is Match.PERHAPS or any(closing.startswith(rest) for closing in chosen.closings):
            self._held = text
            return ""
        if again is not None:
            self._raw.append(blank)
            return self._open(again, rest, 0)
        if chosen.end and not self._has_end:
            at = rest.find(chosen.end, 0, _MAX_RUBBISH + len(chosen.end))
            if at >= 0 and MARKERS.search(rest, 0, at) is None:
                self._has_end = True
                return rest[at + len(chosen.end) :]
            if at < 0 and len(rest) < _MAX_RUBBISH + len(chosen.end):
                self._held = text
                return ""
        return self._leave(text, rest, runs)

    def _leave(self, text: str, rest: str, runs: list[str | TextCall]) -> str:
        """Go on with text after a call; the white space between them is dropped."""
        self._state = _State.TEXT
        self._fences.start_line()
        if self._calls:
            raw = self._take_raw()
            self._calls = []
            self._write(raw, runs)
            return text
        self._raw = []
        return rest

    def _is_closing(self, held: str) -> bool:
        found = self._found
        return found is None or not held or any(each.startswith(held) for each in found.format.closings)
