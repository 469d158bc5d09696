"""Anonymization of a recorded call: prompts, responses, names and paths become filler of the same shape.

Text is replaced character by character: a letter by a letter of the same case, a digit by a digit, a character beyond
ASCII by one of the same length in UTF-8, an escape by an escape. So sizes, JSON, event structure and chunk boundaries
stay as they were, and with them, nearly always, the result of the translation.

What stays is listed in `proxyd.replay.vocabulary`: keys and enumerated values of the protocols and, in error messages,
the words by which errors are distinguished. Names and ids (tools, calls, models) are replaced consistently.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import PREFIX as SIGNATURE
from proxyd.codecs.anthropic.thinking_signature import decode_signature, encode_signature
from proxyd.codecs.translation.conversation import ATTRIBUTION
from proxyd.codecs.upstream_errors.error_envelopes import error_in
from proxyd.codecs.wire.sse import BOM as BOM_BYTES
from proxyd.providers.registry import PROFILES
from proxyd.replay.json_strings import JsonString, find_strings
from proxyd.replay.vocabulary import ERROR_WORDS, PROTOCOL_WORDS

__all__ = ["LOREM", "Anonymizer", "anonymize_body"]

#: The letters of all filler, in turn.
LOREM = "loremipsumdolorsitametconsecteturadipiscingelitseddoeiusmodtemporincididuntutlaboreetdoloremagna"
_DIGITS = "123456789"
_BOM = BOM_BYTES.decode()
#: The filler for a character beyond ASCII, by its length in UTF-8. Lone surrogates stay lone.
_WIDE = {2: "é", 3: "語", 4: "😀"}
_HALVES = (chr(0xD83D), chr(0xDE00))

#: The key of texts that an event at their end repeats whole, in the Responses API.
_DELTAS = ("delta",)

_WORD_OR_NUMBER = re.compile(r"([A-Za-z]+|(?<![A-Za-z0-9])[0-9]{1,9}(?![A-Za-z0-9]))")
_NUMBER = re.compile(r"[0-9]{1,9}")
#: Of a tool's input. Not with an exponent, which might become too large.
_JSON_NUMBER = re.compile(r"(?<![0-9.eE+-])[0-9][0-9.]*(?![0-9.eE])")
#: Words that JSON, or a lax parser of it, allows outside of strings; e and E stand in numbers.
_BARE_WORDS = frozenset({"true", "false", "null", "NaN", "Infinity", "e", "E"})

#: Keys whose values are enumerated; a value of `PROTOCOL_WORDS` stays there.
_ENUMERATED = frozenset(
    {
        "blockReason", "caller", "code", "display", "effort", "encoding", "event", "finishReason", "finish_reason",
        "format", "kind", "level", "media_type", "mimeType", "modality", "mode", "native_finish_reason", "object",
        "param", "phase", "reason", "reasoning_effort", "role",
        "service_tier", "severity", "status", "stop_reason", "subtype", "thinking_type", "tool_choice", "ttl", "type",
    }
)  # fmt: skip
#: Keys whose values are names.
_NAMES = frozenset(
    {
        "call_id", "container", "enum", "id", "index_id", "item_id", "matched_stop", "model", "name", "required",
        "response_id", "stop", "stop_sequence", "stop_sequences", "tool_call_id", "tool_use_id",
    }
)  # fmt: skip
#: Tags that the translation looks for in the middle of texts.
_TAGS = sorted(
    {"think", "thinking"}.union(
        *(profile.dialect.think_tags for profile in PROFILES.values()),
        *(v.changes.get("think_tags", ()) for profile in PROFILES.values() for v in profile.variants),
    ),
    key=len,
    reverse=True,
)


def _prefix_pattern(tag: str) -> str:
    """A pattern for the longest prefix of `tag` that is there, of at least one letter."""
    return (
        re.escape(tag[0]) + "".join(f"(?:{re.escape(letter)}" for letter in tag[1:]) + ")?" * (len(tag) - 1)
    )


#: Parts of texts that stay.
_KEPT = re.compile(
    "|".join(
        (
            # The translation holds back what could still become a tag, so the prefix of one matters, too.
            rf"</?(?:(?:{'|'.join(map(re.escape, _TAGS))})>|{'|'.join(map(_prefix_pattern, _TAGS))}|)",
            r"\\u[0-9a-fA-F]{4}",
            r'\\["\\/bfnrt]',
            r"(?<![^\s:,\[])(?:true|false|null)(?![^\s,\]}])",
            r"https?://",
            r"data:[a-z]+/[a-z0-9.+-]+;base64,",
            r"\[DONE\]",
            re.escape(ATTRIBUTION),
        )
    )
)

#: One line and its end; lines of an event stream end in LF, CR or CRLF.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FIELD = re.compile(r"(data|event|id|retry)(: ?|$)")


def anonymize_body(body: bytes, anonymizer: Anonymizer) -> bytes:
    """Anonymize a body as it is on the wire: an event stream, JSON, or any other text. The length stays the same."""
    text = body.decode("utf-8", "surrogateescape")
    start = text.removeprefix(_BOM).lstrip()[:1]
    if start in ("{", "["):
        filled = anonymizer.json_texts([text])[0]
    elif start == "<" or not re.search(r"(?m)^(?:data|event):", text.replace("\r", "\n")):
        filled = anonymizer.text(text, ERROR_WORDS)
    else:
        filled = _anonymize_stream(text, anonymizer)
    return filled.encode("utf-8", "surrogateescape")


def _anonymize_stream(text: str, anonymizer: Anonymizer) -> str:
    """Anonymize an event stream. The data of an event may take several lines; it is one JSON text all the same."""
    out: list[str] = []
    if text.startswith(_BOM):
        out, text = [_BOM], text[len(_BOM) :]
    events: list[list[tuple[int, str]]] = [[]]  # of each event, the data lines: index in `out` and text
    for line in _LINE.findall(text):
        bare = line.rstrip("\r\n")
        if not bare:
            events.append([])
            out.append(line)
            continue
        field = _FIELD.match(bare)
        if field is None:  # a comment, or not a line of an event stream
            out.append(anonymizer.text(line, ERROR_WORDS))
        elif field[1] == "data" and bare[field.end() :].strip() != "[DONE]":
            out.append(field[0])
            events[-1].append((len(out), bare[field.end() :]))
            out += ["", line[len(bare) :]]
        elif bare[field.end() :] in PROTOCOL_WORDS:
            out.append(line)
        else:
            out.append(field[0] + anonymizer.text(line[field.end() :]))
    with_data = [event for event in events if event]
    joined = ["\n".join(data for _, data in event) for event in with_data]
    for event, filled in zip(with_data, anonymizer.json_texts(joined), strict=True):
        at = 0
        for index, data in event:
            out[index] = filled[at : at + len(data)]
            at += len(data) + 1
    return "".join(out)


class Anonymizer:
    """The filler of one call. It remembers names."""

    def __init__(self) -> None:
        self._at = 0
        self._names: dict[str, str] = {}
        self._used: set[str] = set()

    # -- texts and names

    def text(self, text: str, keep: frozenset[str] = frozenset()) -> str:
        """Replace `text` by filler of the same length.

        Args:
            keep: words in lower case that stay, and with them numbers: those of an error are codes and limits.
        """
        out, end = [], 0
        for match in _KEPT.finditer(text):
            out.append(self._filler(text[end : match.start()], keep))
            out.append(_escape_of_same_kind(match[0]) if match[0].startswith("\\u") else match[0])
            end = match.end()
            if match[0][0] == "<" and match[0][-1] != ">" and text[end : end + 1].isalpha():
                # The filler must not turn a prefix into a tag.
                out.append(self._character(text[end]) if not text[end].isascii() else "x")
                end += 1
        out.append(self._filler(text[end:], keep))
        return "".join(out)

    def name(self, name: str) -> str:
        """Replace a name, always by the same one."""
        if name not in self._names:
            filler = self._filler(name)
            for _ in range(200):
                if filler not in self._used and filler not in PROTOCOL_WORDS:
                    break
                filler = self._filler(name)
            self._names[name] = filler
            self._used.add(filler)
        return self._names[name]

    def _filler(self, text: str, keep: frozenset[str] = frozenset()) -> str:
        if not keep:
            return "".join(map(self._character, text))
        return "".join(
            part if part.lower() in keep or _NUMBER.fullmatch(part) else self._filler(part)
            for part in _WORD_OR_NUMBER.split(text)
        )

    def _character(self, character: str) -> str:
        if character.isascii():
            if character.isalpha():
                self._at += 1
                letter = LOREM[self._at % len(LOREM)]
                return letter.upper() if character.isupper() else letter
            if "1" <= character <= "9":
                self._at += 1
                return _DIGITS[self._at % len(_DIGITS)]
            return character
        code = ord(character)
        if character == _BOM:
            return character
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python represents it
            return "\udcff"
        if 0xD800 <= code <= 0xDFFF:
            return _HALVES[code >= 0xDC00]
        return _WIDE[len(character.encode())]

    # -- JSON

    def value(self, value: Any) -> Any:
        """Anonymize a JSON value, such as a request."""
        text = jsonio.dump_ascii(value).decode()
        return jsonio.loads(self.json_texts([text])[0])

    def json_texts(self, texts: Iterable[str]) -> list[str]:
        """Anonymize texts that are JSON, or nearly: whole bodies, or the data of one event each, in order.

        Texts that continue in a later event (`delta.content`, `arguments`) are replaced as one.
        """
        originals = list(texts)
        found = [list(find_strings(text)) for text in originals]
        errors = [_is_error(text) for text in originals]
        continued: dict[tuple[str, ...], list[JsonString]] = defaultdict(list)
        for strings, is_error in zip(found, errors, strict=True):
            for string in strings:
                if not string.is_key and not is_error and self._protocol_or_name(string) is None:
                    continued[string.keys].append(string)
        fillers: dict[int, str] = {}
        deltas = "".join(string.text for string in continued.get(_DELTAS, ()))
        filled_deltas = self.text(deltas)
        for keys, strings in continued.items():
            whole = "".join(string.text for string in strings)
            filled, at = filled_deltas if keys == _DELTAS else self.text(whole), 0
            repeated: dict[str, str] = {}  # arguments that some servers send a second time as a whole
            for string in strings:
                filler = filled[at : at + len(string.text)]
                begin = deltas.find(string.text) if deltas and keys != _DELTAS else -1
                if begin >= 0:
                    filler = filled_deltas[begin : begin + len(string.text)]
                elif string.text[:1] == "{" and string.text[-1:] == "}":
                    filler = repeated.setdefault(string.text, filler)
                fillers[id(string)] = filler
                at += len(string.text)
        return [self._rebuilt(text, strings, fillers) for text, strings in zip(originals, found, strict=True)]

    def _rebuilt(self, text: str, strings: list[JsonString], fillers: Mapping[int, str]) -> str:
        out, end, is_input = [], 0, False
        for string in strings:
            out.append(self._outside(text[end : string.start], is_input=is_input))
            end, is_input = string.end, "input" in string.keys
            if string.keys[-1:] == ("signature",) and string.text.startswith(SIGNATURE):
                out.append(self._signature(string.text))
                continue
            filled = self._protocol_or_name(string)
            if filled is None:
                filled = fillers[id(string)] if id(string) in fillers else self.text(string.text, ERROR_WORDS)
            out.append(string.encode(filled))
        out.append(self._outside(text[end:], is_input=is_input))
        return "".join(out)

    def _protocol_or_name(self, string: JsonString) -> str | None:
        """The replacement of a key, a name or an enumerated value; None for other texts."""
        key = string.keys[-1] if string.keys else ""
        if string.is_key:
            return string.text if string.text in PROTOCOL_WORDS else self.name(string.text)
        if key in _ENUMERATED and string.text in PROTOCOL_WORDS:
            return string.text
        return self.name(string.text) if key in _NAMES else None

    def _outside(self, text: str, *, is_input: bool) -> str:
        """Replace what is between the strings of a JSON text: words that JSON does not have, numbers of an input."""
        if is_input:
            text = _JSON_NUMBER.sub(lambda match: "".join(map(self._character, match[0])), text)
        if not re.search(r"[A-Za-z\x80-\U0010ffff]", text):
            return text
        return re.sub(
            r"[A-Za-z\x80-\U0010ffff]+",
            lambda match: match[0] if match[0] in _BARE_WORDS else self.text(match[0]),
            text,
        )

    def _signature(self, signature: str) -> str:
        """Anonymize a signature of ours, which contains reasoning of an upstream; it can still be decoded."""
        found = decode_signature(signature)
        if found is None:
            return SIGNATURE + self.text(signature[len(SIGNATURE) :])
        return encode_signature(
            self.name(found.model),
            found.source if found.source in PROTOCOL_WORDS else None,
            [self.value(item) for item in found.details],
            {self.name(key): self.text(value) for key, value in found.tool_signatures.items()},
            tool_places={self.name(key): self._path(place) for key, place in found.tool_places.items()},
            fields=self.value(dict(found.fields)),
            response_item={
                key: text if text in PROTOCOL_WORDS else self.text(text)
                for key, text in found.response_item.items()
            },
            part_signatures={kind: self.text(data) for kind, data in found.part_signatures.items()},
        )

    def _path(self, path: str) -> str:
        return ".".join(word if word in PROTOCOL_WORDS else self.name(word) for word in path.split("."))


def _is_error(text: str) -> bool:
    try:
        return error_in(jsonio.loads(text)) is not None
    except jsonio.JSONError:
        return False


def _escape_of_same_kind(escape: str) -> str:
    """An escape for half of a surrogate pair, a character beyond ASCII, or a letter, as `escape` is."""
    code = int(escape[2:], 16)
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{ord(_HALVES[code >= 0xDC00]):04x}"
    if code >= 0x80:
        return r"\u00e9" if code < 0x800 else r"\u8a9e"
    return r"\u0061" if chr(code).isalnum() else escape
