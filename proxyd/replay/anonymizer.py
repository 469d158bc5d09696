"""A call without its words: prompts, answers, names and paths become filler of the same shape.

What is replaced is replaced character by character: a letter by a letter of the same case, a digit by a digit, anything
beyond ASCII by a character of the same length in UTF-8, an escape by an escape. So sizes, JSON, event structure and the
places where chunks end stay as they were, and with them, nearly always, what the translation makes of it.

What stays is protocol: keys and enumerated values that the translation itself knows. They are taken from its own source
(`vocabulary`), so that nothing has to be listed twice, and a user's word can only stay where it is one of those. In the
words of an error the ones by which errors are told apart stay as well.

Names and ids (tools, calls, models) are replaced by one name each, throughout: what belongs together still does.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from proxyd import codecs, jsonio, providers
from proxyd.codecs.anthropic.thinking_signature import PREFIX as SIGNATURE
from proxyd.codecs.anthropic.thinking_signature import decode_signature, encode_signature
from proxyd.codecs.openai.error_envelopes import error_in
from proxyd.codecs.openai.messages import ATTRIBUTION
from proxyd.providers.registry import PROFILES
from proxyd.replay.json_strings import Text, texts_in

__all__ = ["Anonymizer", "error_words", "vocabulary"]

_LOREM = "loremipsumdolorsitametconsecteturadipiscingelitseddoeiusmodtemporincididuntutlaboreetdoloremagna"
_DIGITS = "123456789"
#: What stands for a character beyond ASCII, by its length in UTF-8. Lone surrogates stay lone.
BOM = "\ufeff"
_HALVES = (chr(0xD83D), chr(0xDE00))
_WIDE = {2: "é", 3: "語", 4: "😀"}

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,60}\Z")
_WORD_OR_NUMBER = re.compile(r"([A-Za-z]+|(?<![A-Za-z0-9])[0-9]{1,9}(?![A-Za-z0-9]))")
_NUMBER = re.compile(r"[0-9]{1,9}")
#: Of a tool's input, and not with an exponent, which might become too large.
_JSON_NUMBER = re.compile(r"(?<![0-9.eE+-])[0-9][0-9.]*(?![0-9.eE])")
_WORDS = re.compile(r"[A-Za-z]{2,}")

#: Values that the translation passes on without looking at them.
_PASSED_ON = {"string", "number", "integer", "boolean", "array", "object", "null", "ephemeral"}
#: Keys whose values come from a short list; such a value stays where the translation knows it.
_ENUMERATED = frozenset(
    [
        "type",
        "role",
        "object",
        "finish_reason",
        "native_finish_reason",
        "stop_reason",
        "status",
        "code",
        "param",
        "format",
        "media_type",
        "encoding",
        "service_tier",
        "effort",
        "reasoning_effort",
        "mode",
        "tool_choice",
        "ttl",
        "display",
        "subtype",
        "kind",
        "level",
        "severity",
        "event",
        "caller",
        "thinking_type",
    ]
)
#: Keys whose values are names: one name for another, everywhere.
_NAMES = frozenset(
    [
        "id",
        "name",
        "model",
        "tool_use_id",
        "tool_call_id",
        "call_id",
        "item_id",
        "index_id",
        "stop_sequence",
        "stop_sequences",
        "matched_stop",
        "stop",
        "required",
        "enum",
        "response_id",
        "container",
    ]
)
#: What the translation looks for in the middle of texts.
_TAGS = sorted(
    {"think", "thinking"}.union(
        *(profile.dialect.think_tags for profile in PROFILES.values()),
        *(v.changes.get("think_tags", ()) for profile in PROFILES.values() for v in profile.variants),
    ),
    key=len,
    reverse=True,
)


def _beginning_of(tag: str) -> str:
    """A pattern for as much of `tag` as is there, at least one letter."""
    return (
        re.escape(tag[0]) + "".join(f"(?:{re.escape(letter)}" for letter in tag[1:]) + ")?" * (len(tag) - 1)
    )


_KEPT = re.compile(
    "|".join(
        (
            # What could still become a tag is held back by the translation, so the beginning of one matters, too.
            rf"</?(?:(?:{'|'.join(map(re.escape, _TAGS))})>|{'|'.join(map(_beginning_of, _TAGS))}|)",
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


_ALL = re.compile("")
_OF_ERRORS = re.compile(r"\.(?:error_envelopes|openai\.errors|context_overflow|error_rules)$")


@functools.cache
def _sources(which: re.Pattern[str] = _ALL) -> tuple[ast.Module, ...]:
    """The syntax of the modules that translate."""
    found = []
    for package in (codecs, providers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not which.search(module.name):
                continue
            spec = importlib.util.find_spec(module.name)
            source = (
                getattr(spec.loader, "get_source", lambda _: None)(module.name) if spec is not None else None
            )
            if source is not None:
                found.append(ast.parse(source))
    return tuple(found)


def _texts(tree: ast.Module) -> Iterator[str]:
    """The text constants of a module, less its docstrings."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in said:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


@functools.cache
def vocabulary() -> frozenset[str]:
    """Words of the protocols: the translation's own constants that are one word."""
    words = {text for tree in _sources() for text in _texts(tree) if _TOKEN.match(text)}
    lists = {word for tree in _sources() for text in _texts(tree) for word in text.split() if "_" in word}
    return frozenset(words | {word for word in lists if _TOKEN.match(word)} | _PASSED_ON)


@functools.cache
def error_words() -> frozenset[str]:
    """Words, in lower case, by which the translation tells errors apart."""
    texts = (text for tree in _sources(_OF_ERRORS) for text in _texts(tree))
    return frozenset(word.lower() for text in texts for word in _WORDS.findall(text))


class Anonymizer:
    """The filler of one call. It remembers names."""

    def __init__(self) -> None:
        self._at = 0
        self._names: dict[str, str] = {}
        self._used: set[str] = set()

    # -- texts and names

    def text(self, text: str, keep: frozenset[str] = frozenset()) -> str:
        """Filler for `text`, of the same length.

        Args:
            keep: words in lower case that stay.
        """
        found, end = [], 0
        for match in _KEPT.finditer(text):
            found.append(self._plain(text[end : match.start()], keep))
            found.append(_same_escape(match[0]) if match[0].startswith("\\u") else match[0])
            end = match.end()
            if match[0][0] == "<" and match[0][-1] != ">" and text[end : end + 1].isalpha():
                found.append(self._character(text[end]) if not text[end].isascii() else "x")  # begins no tag
                end += 1
        found.append(self._plain(text[end:], keep))
        return "".join(found)

    def name(self, name: str) -> str:
        """The one name that stands for `name`."""
        if name not in self._names:
            filler = self._plain(name)
            for _ in range(200):
                if filler not in self._used and filler not in vocabulary():
                    break
                filler = self._plain(name)
            self._names[name] = filler
            self._used.add(filler)
        return self._names[name]

    def _plain(self, text: str, keep: frozenset[str] = frozenset()) -> str:
        if not keep:
            return "".join(map(self._character, text))
        # Of an error, whose numbers are codes and limits.
        pieces = _WORD_OR_NUMBER.split(text)
        return "".join(
            each if each.lower() in keep or _NUMBER.fullmatch(each) else self._plain(each) for each in pieces
        )

    def _character(self, character: str) -> str:
        if character.isascii():
            if character.isalpha():
                self._at += 1
                letter = _LOREM[self._at % len(_LOREM)]
                return letter.upper() if character.isupper() else letter
            if "1" <= character <= "9":
                self._at += 1
                return _DIGITS[self._at % len(_DIGITS)]
            return character
        code = ord(character)
        if character == BOM:
            return character
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python carries it
            return "\udcff"
        if 0xD800 <= code <= 0xDFFF:
            return _HALVES[code >= 0xDC00]
        return _WIDE[len(character.encode())]

    # -- JSON

    def value(self, value: Any) -> Any:
        """Filler for a JSON value, such as a request."""
        text = jsonio.dump_ascii(value).decode()
        return jsonio.loads(self.json_texts([text])[0])

    def json_texts(self, texts: Iterable[str]) -> list[str]:
        """Filler for texts that are JSON, or nearly: whole bodies, or the data of one event each, in order.

        Texts that go on in a later event (`delta.content`, `arguments`) are filled as one.
        """
        originals = list(texts)
        found = [list(texts_in(text)) for text in originals]
        errors = [_is_error(text) for text in originals]
        going_on: dict[tuple[str, ...], list[Text]] = defaultdict(list)
        for parts, is_error in zip(found, errors, strict=True):
            for part in parts:
                if part.is_key or is_error or self._as_name(part) is not None:
                    continue
                going_on[part.keys].append(part)
        fillers: dict[int, str] = {}
        for parts in going_on.values():
            whole = "".join(part.text for part in parts)
            filled, at = self.text(whole), 0
            whole_ones: dict[str, str] = {}  # arguments that some servers say once more
            for part in parts:
                filler = filled[at : at + len(part.text)]
                if part.text[:1] == "{" and part.text[-1:] == "}":
                    filler = whole_ones.setdefault(part.text, filler)
                fillers[id(part)] = filler
                at += len(part.text)
        return [
            self._rebuilt(text, parts, fillers, is_error=is_error)
            for text, parts, is_error in zip(originals, found, errors, strict=True)
        ]

    def _rebuilt(self, text: str, parts: list[Text], fillers: Mapping[int, str], *, is_error: bool) -> str:
        out, end, is_input = [], 0, False
        for part in parts:
            out.append(self._outside(text[end : part.start], is_input=is_input))
            end, is_input = part.end, "input" in part.keys
            if part.keys[-1:] == ("signature",) and part.text.startswith(SIGNATURE):
                out.append(self._signature(part.text))
                continue
            filled = self._as_name(part)
            if filled is None:
                filled = fillers[id(part)] if id(part) in fillers else self.text(part.text, error_words())
            out.append(part.written(filled))
        out.append(self._outside(text[end:], is_input=is_input))
        return "".join(out)

    def _as_name(self, part: Text) -> str | None:
        """The filler of a key, a name or an enumerated value; None for a text."""
        key = part.keys[-1] if part.keys else ""
        if part.is_key:
            return part.text if part.text in vocabulary() else self.name(part.text)
        if key in _ENUMERATED and part.text in vocabulary():
            return part.text
        return self.name(part.text) if key in _NAMES else None

    def _outside(self, text: str, *, is_input: bool) -> str:
        """What stands between the strings of a JSON text: words that JSON does not have are replaced, and the numbers
        of a tool's input.
        """
        if is_input:
            text = _JSON_NUMBER.sub(lambda match: "".join(map(self._character, match[0])), text)
        if not re.search(r"[A-Za-z\x80-\U0010ffff]", text):
            return text
        return re.sub(
            r"[A-Za-z\x80-\U0010ffff]+",
            lambda match: match[0] if match[0] in _BARE else self.text(match[0]),
            text,
        )

    def _signature(self, signature: str) -> str:
        """One of ours holds what an upstream said; it must stay one that can be read."""
        found = decode_signature(signature)
        if found is None:
            return SIGNATURE + self.text(signature[len(SIGNATURE) :])
        return encode_signature(
            self.name(found.model),
            found.field if found.field in vocabulary() else None,
            [self.value(item) for item in found.details],
            {self.name(key): self.text(value) for key, value in found.tool_signatures.items()},
        )


#: Words that JSON, or a lax parser of it, has outside of strings; e and E stand in numbers.
_BARE = frozenset({"true", "false", "null", "NaN", "Infinity", "e", "E"})


def _is_error(text: str) -> bool:
    try:
        return error_in(jsonio.loads(text)) is not None
    except jsonio.JSONError:
        return False


def _same_escape(escape: str) -> str:
    """An escape of the same kind: for a half of a pair, for a character beyond ASCII, or for a letter."""
    code = int(escape[2:], 16)
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{ord(_HALVES[code >= 0xDC00]):04x}"
    if code >= 0x80:
        return r"\u00e9" if code < 0x800 else r"\u8a9e"
    return r"\u0061" if chr(code).isalnum() else escape
