"""Bodies as they are on the wire, filled: event streams, JSON, and whatever else stands in front of a server."""

from __future__ import annotations

import re

from proxyd.codecs.wire.sse import BOM
from proxyd.replay.anonymizer import Anonymizer, error_words, vocabulary

__all__ = ["anonymize_body"]

_BOM = BOM.decode()
#: One line and its end; a stream's lines end in LF, CR or CRLF.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FIELD = re.compile(r"(data|event|id|retry)(: ?|$)")


def anonymize_body(body: bytes, filler: Anonymizer) -> bytes:
    """`body` with filler for all that was said, byte for byte of the same length."""
    text = body.decode("utf-8", "surrogateescape")
    start = text.removeprefix(_BOM).lstrip()[:1]
    if start in ("{", "["):
        filled = filler.json_texts([text])[0]
    elif start == "<" or not re.search(r"(?m)^(?:data|event):", text.replace("\r", "\n")):
        filled = filler.text(text, error_words())
    else:
        filled = _filled_stream(text, filler)
    return filled.encode("utf-8", "surrogateescape")


def _filled_stream(text: str, filler: Anonymizer) -> str:
    """The data of an event may stand in several lines; it is filled as one and put back line by line."""
    out: list[str] = []
    if text.startswith(_BOM):
        out, text = [_BOM], text[len(_BOM) :]
    events: list[list[tuple[int, str]]] = [[]]  # of each event: places in `out` and what stands there
    for line in _LINE.findall(text):
        bare = line.rstrip("\r\n")
        if not bare:
            events.append([])
            out.append(line)
            continue
        field = _FIELD.match(bare)
        if field is None:  # a comment, or no line of an event stream
            out.append(filler.text(line, error_words()))
        elif field[1] == "data" and bare[field.end() :].strip() != "[DONE]":
            out.append(field[0])
            events[-1].append((len(out), bare[field.end() :]))
            out += ["", line[len(bare) :]]
        elif bare[field.end() :] in vocabulary():
            out.append(line)
        else:
            out.append(field[0] + filler.text(line[field.end() :]))
    told = [event for event in events if event]
    whole = ["\n".join(piece for _, piece in event) for event in told]
    for event, filled in zip(told, filler.json_texts(whole), strict=True):
        at = 0
        for place, piece in event:
            out[place] = filled[at : at + len(piece)]
            at += len(piece) + 1
    return "".join(out)
