"""Separate reasoning that is written into the text as ``<think>…</think>`` (docs/spec/chat-to-messages.md#think-tags).

::

    START ──tag──▶ THINKING ──closing tag──▶ TEXT          tags later in the text are literal, unless they repeat
      └──anything else──▶ TEXT

A tag may be cut anywhere: the longest tail that could still become the expected tag is held back until it is decided.
"""

from __future__ import annotations

import enum

__all__ = ["ThinkTags"]


class _State(enum.Enum):
    START = enum.auto()
    THINKING = enum.auto()
    AFTER = enum.auto()  # right after a closing tag: one newline is dropped
    TEXT = enum.auto()


class ThinkTags:
    """Split the text of one message into thinking and text.

    Args:
        names: tag names, without brackets, that may open the text.
        is_implied: the prompt's template has written the opening tag, so the text starts inside it.
        repeats: a tag may occur again after text.
    """

    __slots__ = ("_closing", "_held", "_openings", "_repeats", "_state")

    def __init__(self, names: tuple[str, ...], *, is_implied: bool = False, repeats: bool = False) -> None:
        self._openings = {f"<{name}>": f"</{name}>" for name in names}
        self._closing = f"</{names[0]}>"
        self._repeats = repeats
        self._state = _State.THINKING if is_implied else _State.START
        self._held = ""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Take the next part of the text; returns ``(is_thinking, text)`` runs, none of them empty."""
        text = self._held + text
        self._held = ""
        runs: list[tuple[bool, str]] = []
        while text:
            text = self._step(text, runs)
        return runs

    @property
    def is_holding(self) -> bool:
        """Text is held back, since it may be the beginning of a tag."""
        return bool(self._held)

    def passes(self, text: str, *, is_thinking: bool) -> bool:
        """Return whether `feed` would return `text` as one run of this kind, and change nothing."""
        expected = _State.THINKING if is_thinking else _State.TEXT
        return self._state is expected and not self._held and "<" not in text

    def close(self) -> list[tuple[bool, str]]:
        """End the text, or a part of it: what was held back is no tag. Returns runs as `feed` does."""
        held, self._held = self._held, ""
        if self._state is _State.START and held.isspace():
            return []  # white space before a text that never came
        return [(self._state is _State.THINKING, held)] if held else []

    def _step(self, text: str, runs: list[tuple[bool, str]]) -> str:
        """Consume the beginning of `text`, append its run, return the rest."""
        if self._state is _State.START:
            body = text.lstrip()
            for opening, closing in self._openings.items():
                if body.startswith(opening):
                    self._state, self._closing = _State.THINKING, closing
                    return body[len(opening) :]
            if any(opening.startswith(body) for opening in self._openings):
                self._held = text  # only white space, or the beginning of a tag
                return ""
            self._state = _State.TEXT
            return text
        if self._state is _State.AFTER:
            self._state = _State.TEXT
            return text[1:] if text[0] == "\n" else text
        if self._state is _State.THINKING:
            return self._until((self._closing,), text, True, runs)
        if not self._repeats:
            runs.append((False, text))
            return ""
        return self._until(tuple(self._openings), text, False, runs)

    def _until(
        self, tags: tuple[str, ...], text: str, is_thinking: bool, runs: list[tuple[bool, str]]
    ) -> str:
        found = [(at, tag) for tag in tags if (at := text.find(tag)) >= 0]
        if found:
            at, tag = min(found)
            if at:
                runs.append((is_thinking, text[:at]))
            if is_thinking:
                self._state = _State.AFTER
            else:
                self._state, self._closing = _State.THINKING, self._openings[tag]
            return text[at + len(tag) :]
        keep = max(_partial_tag_length(tag, text) for tag in tags)
        self._held = text[len(text) - keep :]
        if len(text) > keep:
            runs.append((is_thinking, text[: len(text) - keep]))
        return ""


def _partial_tag_length(tag: str, text: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0
