"""Fast path for chunks that differ from an earlier one in a single string, as nearly all chunks of a stream do.

A server writes its chunks by one template, and only the text changes. Once a chunk was parsed and became one delta and
nothing else, the bytes before and after its text are kept. A later chunk between the same bytes is the same chunk with
another text: JSON is read from left to right, so the bytes before fix where the text is, and only a whole string is
accepted as text, so the bytes after it mean what they meant before. Reading the one string, and writing it between the
bytes of the client's frame, costs a third of parsing the chunk and writing an event.

For servers that add something new to each chunk (a time, padding, running usage) the template is given up after a few
chunks, and then every chunk is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from proxyd import jsonio
from proxyd.codecs.openai.signed_data import signature_in_call
from proxyd.codecs.translation.string_literal import NO_LITERAL, read_literal
from proxyd.codecs.wire.sse import SSEFrame, start_of

__all__ = ["DeltaTemplate"]

#: The keys of texts that can repeat. None of them can be part of a string, where its closing quote would be escaped.
_KEYS = (b'"content":', b'"reasoning_content":', b'"reasoning":', b'"reasoning_text":', b'"arguments":')
#: The text that follows one of them.
_TEXT = re.compile(rb' ?"((?:[^"\\]|\\.)+)"', re.DOTALL)
#: Templates learned in a row without a chunk that repeats one, after which no more are learned.
_MAX_LEARNED = 8
#: Longer chunks repeat too rarely to matter; this bounds the memory, too.
_MAX_BYTES = 4096


class DeltaTemplate:
    """The bytes before and after the text of the last frame that was one delta.

    Attributes:
        kind: type of the block that the delta belongs to, "" while there is no template.
    """

    __slots__ = ("_head", "_learned", "_tail", "kind")

    def __init__(self) -> None:
        self.kind = ""
        self._head = self._tail = b""
        self._learned = 0

    def read(self, block: bytes) -> tuple[str, bytes]:
        """Return the text of a frame that repeats the template, as `read_literal` does; `NO_LITERAL` for any other."""
        head, tail = self._head, self._tail
        start, end = len(head), len(block) - len(tail)
        if start >= end or not (block.startswith(head) and block.endswith(tail)):
            return NO_LITERAL
        found = read_literal(block[start:end])
        if found[0]:
            self._learned = 0
        return found

    def learn(self, frame: SSEFrame, chunk: dict[str, Any], kind: str, text: str) -> None:
        """Keep the template of a chunk that became one delta of `kind` with `text`, if it is suitable."""
        data = frame.data
        self.kind = ""
        if self._learned >= _MAX_LEARNED or len(data) > _MAX_BYTES:
            return
        self._learned += 1
        if not _has_single_text(chunk, is_call=kind == "tool_use"):
            return
        found = list(_texts_in(data))
        if len(found) != 1 or b"\n" in data:  # b"\n": a frame of several data lines
            return
        start, end = found[0]
        try:
            if jsonio.loads(b'"%b"' % data[start:end]) != text:
                return
        except jsonio.JSONError:
            return
        self.kind = kind
        self._head, self._tail = start_of(frame) + data[:start], data[end:]


def _texts_in(data: bytes) -> Iterator[tuple[int, int]]:
    """The positions of the texts in `data` that are not empty."""
    for key in _KEYS:
        at = data.find(key)
        while at >= 0:
            at += len(key)
            if match := _TEXT.match(data, at):
                yield match.span(1)
            at = data.find(key, at)


def _has_single_text(chunk: dict[str, Any], *, is_call: bool) -> bool:
    """Whether one text is all that `chunk` holds: every other key is empty, or is not read."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or _has_any(chunk, "error", "usage", "x_groq"):
        return False
    choice = choices[0]
    if not isinstance(choice, dict) or _has_any(choice, "finish_reason", "usage", "message", "text"):
        return False
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    filled = [key for key, value in delta.items() if value and key != "role"]
    if not is_call:
        return len(filled) == 1
    calls = delta.get("tool_calls")
    if filled != ["tool_calls"] or not isinstance(calls, list) or len(calls) != 1:
        return False
    # A fragment that begins, names or signs a call does not repeat: only further arguments of an indexed call do.
    call = calls[0]
    function = call.get("function") if isinstance(call, dict) else None
    return (
        isinstance(function, dict)
        and type(call.get("index")) is int
        and not _has_any(call, "id")
        and not _has_any(function, "name")
        and signature_in_call(call) is None
    )


def _has_any(value: dict[str, Any], *keys: str) -> bool:
    return any(value.get(key) for key in keys)
