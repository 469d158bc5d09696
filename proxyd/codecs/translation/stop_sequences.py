"""Find the client's stop sequences in a text that arrives in parts, for upstreams that take none.

Text that may be the beginning of a sequence is held back until it is decided.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["MAX_CHARS", "MAX_SEQUENCES", "StopSequences"]

#: Sequences that are searched for, and characters of one; others are ignored.
MAX_SEQUENCES, MAX_CHARS = 16, 256


class StopSequences:
    """Searches one text.

    Attributes:
        matched: the sequence that was found; nothing is written after it.
    """

    __slots__ = ("_held", "_longest", "_sequences", "matched")

    def __init__(self, sequences: Collection[str]) -> None:
        usable = [text for text in sequences if 0 < len(text) <= MAX_CHARS]
        # Of two sequences that end at one place the longer one began first.
        self._sequences = tuple(sorted(usable, key=len, reverse=True)[:MAX_SEQUENCES])
        self._longest = max(map(len, self._sequences), default=0)
        self._held = ""
        self.matched: str | None = None

    def __bool__(self) -> bool:
        return bool(self._sequences)

    def feed(self, text: str) -> str:
        """Return what of the text so far can be written now."""
        if self.matched is not None:
            return ""
        text = self._held + text
        end = len(text) + 1
        for sequence in self._sequences:
            at = text.find(sequence, 0, end - 1)
            if at >= 0:
                end = at + len(sequence)
                self.matched = sequence
        if self.matched is not None:
            self._held = ""
            return text[: end - len(self.matched)]
        kept = self._beginning_at_end(text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def end(self) -> str:
        """Return the text that was held back: its part of the response has ended."""
        text, self._held = self._held, ""
        return text

    def _beginning_at_end(self, text: str) -> int:
        """Return the length of the longest end of `text` with which a sequence begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(sequence.startswith(text[-length:]) for sequence in self._sequences):
                return length
        return 0
