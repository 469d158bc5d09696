"""Fast path for chunks that differ from the one before in their text and in their token counts only.

A server writes its chunks by one template. Once a chunk was parsed and became one delta and nothing else, the bytes
around its text are kept. A later chunk between the same bytes, but for the counts of ``usageMetadata``, is the same
chunk with another text: JSON is read from left to right, so the bytes before fix where the text is, and only a whole
string is accepted as text, so the bytes after it mean what they meant before.

For servers that add something new to each chunk the template is given up after a few chunks, and then every chunk is
parsed.
"""

from __future__ import annotations

import re
from typing import Any

from proxyd import jsonio
from proxyd.codecs.translation.string_literal import NO_LITERAL, read_literal
from proxyd.codecs.wire.sse import SSEFrame, start_of

__all__ = ["ChunkTemplate"]

_TEXT = re.compile(rb'"text": ?"((?:[^"\\]|\\.)+)"', re.DOTALL)
#: The end of a text with escapes, from its beginning.
_END = re.compile(rb'(?:[^"\\]|\\.)*"', re.DOTALL)
#: Counts: ``candidatesTokenCount``, ``tokenCount`` and the like.
_COUNT = re.compile(rb'(?<=okenCount":)( ?)\d{1,15}')
_NOTHING = re.compile(rb"")
#: Templates learned in a row without a chunk that repeats one, after which no more are learned.
_MAX_LEARNED = 8
#: Longer chunks repeat too rarely to matter; this bounds the memory, too.
_MAX_BYTES = 4096
#: Members of the one part that a template may have.
_PART = frozenset({"text", "thought"})
#: Members of a chunk and of its candidate that a template may have.
_CHUNK = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"})
_CANDIDATE = frozenset({"content", "index", "safetyRatings"})


class ChunkTemplate:
    """The bytes around the text of the last chunk that was one delta.

    Attributes:
        kind: type of the block that the delta belongs to, "" while there is no template.
    """

    __slots__ = ("_head", "_learned", "_tail", "kind")

    def __init__(self) -> None:
        self.kind = ""
        self._head = b""
        self._tail = _NOTHING
        self._learned = 0

    def read(self, block: bytes) -> tuple[str, bytes]:
        """Return the text of a frame that repeats the template, as `read_literal` does; `NO_LITERAL` for any other."""
        start = len(self._head)
        if not block.startswith(self._head):
            return NO_LITERAL
        end = block.find(b'"', start)
        literal = block[start:end]
        if b"\\" in literal:
            match = _END.match(block, start)
            end = -1 if match is None else match.end() - 1
            literal = block[start:end]
        if end < 0 or self._tail.fullmatch(block, end) is None:
            return NO_LITERAL
        found = read_literal(literal)
        if found[0]:
            self._learned = 0
        return found

    def learn(self, frame: SSEFrame, chunk: dict[str, Any], kind: str, text: str) -> None:
        """Keep the template of a chunk that became one delta of `kind` with `text`, if it is suitable."""
        data = frame.data
        self.kind = ""
        if self._learned >= _MAX_LEARNED or len(data) > _MAX_BYTES or b"\n" in data:
            return
        self._learned += 1
        found = list(_TEXT.finditer(data))
        if len(found) != 1 or not _is_single_text(chunk):
            return
        start, end = found[0].span(1)
        try:
            if jsonio.loads(b'"%b"' % data[start:end]) != text:
                return
        except jsonio.JSONError:
            return
        self.kind = kind
        self._head = start_of(frame) + data[:start]
        self._tail = _pattern_of(data[end:])


def _pattern_of(tail: bytes) -> re.Pattern[bytes]:
    """Return a pattern for `tail` with any counts."""
    parts, at = [], 0
    for found in _COUNT.finditer(tail):
        parts += [re.escape(tail[at : found.end(1)]), rb"\d{1,15}"]
        at = found.end()
    return re.compile(b"".join([*parts, re.escape(tail[at:])]))


def _is_single_text(chunk: dict[str, Any]) -> bool:
    """Whether one text, and counts, are all that is read of a chunk."""
    candidates = chunk.get("candidates")
    if not isinstance(candidates, list) or len(candidates) != 1 or not chunk.keys() <= _CHUNK:
        return False
    candidate = candidates[0]
    if not isinstance(candidate, dict) or not candidate.keys() <= _CANDIDATE:
        return False
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return (
        isinstance(parts, list)
        and len(parts) == 1
        and isinstance(parts[0], dict)
        and parts[0].keys() <= _PART
    )
