"""Chunks that differ from an earlier one in a single string: nearly all of a stream.

A server writes its chunks by one template, and only the piece of text changes. Once a chunk has been read in full and
has turned out to be one delta and nothing else, the bytes ahead of its text and those behind it are kept. A later chunk
between the same bytes is the same chunk with another text: JSON is read from left to right, so what stands ahead fixes
where the text is, and the text is taken only if it is a whole string, so what stands behind means what it meant before.
Reading the one string costs a third of reading the chunk.

Servers that add something new to each chunk (a time, padding, running usage) are noticed after a few of them, and then
every chunk is read in full, as without this file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from proxyd import jsonio

__all__ = ["DeltaTemplates"]

#: The keys that the codec knows of a text that can repeat. Each is outside of any string, since within one its closing
#: quote would be escaped.
_KEYS = (b'"content":', b'"reasoning_content":', b'"reasoning":', b'"arguments":')
#: Behind one of them: the text.
_TEXT = re.compile(rb' ?"((?:[^"\\]|\\.)+)"', re.DOTALL)
#: Chunks learnt in a row without one that repeats, after which we stop.
_MAX_LEARNT = 8
#: Longer texts repeat no template often enough to matter; this bounds what is kept, too.
_MAX_BYTES = 4096


class DeltaTemplates:
    """The template at hand.

    Attributes:
        kind: type of the block that the delta belongs to, "" while nothing is known.
        chars: of all texts that rewriters have passed on.
    """

    __slots__ = ("_head", "_learnt", "_tail", "chars", "kind")

    def __init__(self) -> None:
        self.kind = ""
        self.chars = 0
        self._head = self._tail = b""
        self._learnt = 0

    def texts_of(self, blocks: list[bytes], at: int) -> list[tuple[bytes, str]]:
        """The texts of the frames from `at` on, as long as they repeat the template.

        Args:
            blocks: frames as they came, each a line ``data: …``. Of a tool call's arguments, only the first may open an
                object: another call may begin with it, which depends on all of those before.

        Returns:
            of each, its text as it is written in JSON, without the quotes, and as it reads.
        """
        found: list[tuple[bytes, str]] = []
        head, tail = self._head, self._tail
        start, width, is_call = len(head), len(head) + len(tail), self.kind == "tool_use"
        while at < len(blocks):
            block = blocks[at]
            if len(block) <= width or not (block.startswith(head) and block.endswith(tail)):
                break
            literal = block[start : len(block) - len(tail)]
            try:
                text = literal.decode()
                if '"' in text or "\\" in text or not text.isprintable():
                    literal, text = _escaped(literal)
            except ValueError:
                break
            if not text or (is_call and found and text.lstrip().startswith("{")):
                break
            found.append((literal, text))
            at += 1
        if found:
            self._learnt = 0
        return found

    def rewriter(
        self, before: bytes, after: bytes, takes: Callable[[str], bool] | None
    ) -> Callable[[bytes], bytes] | None:
        """What gives, for one whole frame that repeats the template, `before`, its text and `after`.

        It does with a frame what `texts_of` does with a run of one. For any other piece it gives b"", and nothing has
        happened. None while the template has not been seen to repeat.

        Args:
            takes: is told each text, if it is not None, and whether it may be passed on is what it says.
        """
        if self._learnt:
            return None
        head, tail = self._head, self._tail + b"\n\n"
        start, end, width = len(head), -len(tail), len(head) + len(tail)

        # A closure, since its names are at hand: this is what a piece of a stream costs.
        def rewritten(frame: bytes) -> bytes:
            if len(frame) <= width or frame[:start] != head or frame[end:] != tail:
                return b""
            literal = frame[start:end]
            try:
                text = literal.decode()
                if '"' in text or "\\" in text or not text.isprintable():
                    literal, text = _escaped(literal)
            except ValueError:
                return b""
            if takes is not None and not takes(text):
                return b""
            self.chars += len(text)
            return before + literal + after

        return rewritten

    def learn(self, data: bytes, chunk: dict[str, Any], kind: str, text: str) -> None:
        """Keep the template of a chunk that became one delta of `kind` with `text`, if it is fit to be one."""
        self.kind = ""
        if self._learnt >= _MAX_LEARNT or len(data) > _MAX_BYTES:
            return
        self._learnt += 1
        if not _is_plain(chunk, "arguments" if kind == "tool_use" else ""):
            return
        found = list(_texts_in(data))
        if len(found) != 1 or b"\n" in data:  # which came as several lines
            return
        start, end = found[0]
        try:
            if jsonio.loads(b'"%b"' % data[start:end]) != text:
                return
        except jsonio.JSONError:
            return
        self.kind = kind
        self._head, self._tail = b"data: " + data[:start], data[end:]


def _texts_in(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the texts of `data` stand that are not empty."""
    for key in _KEYS:
        at = data.find(key)
        while at >= 0:
            at += len(key)
            if match := _TEXT.match(data, at):
                yield match.span(1)
            at = data.find(key, at)


def _escaped(literal: bytes) -> tuple[bytes, str]:
    """A string that is not plain: how we would write it, and how it reads.

    Raises:
        ValueError: it is no whole string, or no UTF-8, or goes over several lines.
    """
    if b"\n" in literal:
        raise ValueError("another line of the frame")
    if b"\\" in literal:
        text = jsonio.loads(b'"%b"' % literal)
    elif b'"' in literal:
        raise ValueError("an end of the string within it")
    else:
        text = literal.decode()
    return jsonio.dumps(text)[1:-1], text


def _is_plain(chunk: dict[str, Any], within: str) -> bool:
    """Whether all that `chunk` says is one piece of text: each key beside it is empty, or means nothing to us."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or _says(chunk, "error", "usage", "x_groq"):
        return False
    choice = choices[0]
    if not isinstance(choice, dict) or _says(choice, "finish_reason", "usage", "message", "text"):
        return False
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    telling = [key for key, value in delta.items() if value and key != "role"]
    if not within:
        return len(telling) == 1
    calls = delta.get("tool_calls")
    if telling != ["tool_calls"] or not isinstance(calls, list) or len(calls) != 1:
        return False
    # Who begins, names or signs a call is not repeated: only further arguments of one that is told by its number.
    call = calls[0]
    function = call.get("function") if isinstance(call, dict) else None
    return (
        isinstance(function, dict)
        and type(call.get("index")) is int
        and not _says(call, "id", "extra_content")
        and not _says(function, "name", "extra_content")
    )


def _says(value: dict[str, Any], *keys: str) -> bool:
    return any(value.get(key) for key in keys)
