"""Credentials in text and bytes: what they look like, what they are called, and how their values are found.

Every way out of the proxy (logs, records, ledger, feeds, errors for clients) masks with this module, and always in the
same order: first the values of the keys in use, then whatever looks like a key. The other order would cut a key in two
where a pattern ends early, and leave its rest.

A value is found in its own characters and in the spellings in which programs repeat text: JSON (``\\/``, ``\\uXXXX``),
URLs (``%2F``) and base64, whatever stands ahead of it there.

Every pattern takes time that is linear in the length of the text: nothing here is refused a long text.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from proxyd.secret import MASK, Secret, secrets_in_use

__all__ = [
    "CREDENTIAL_HEADERS",
    "KEY_BEGINNINGS",
    "KEY_FORM",
    "BodyRedactor",
    "find_values",
    "is_credential_name",
    "is_harmless_header",
    "looks_clean",
    "masked",
    "masked_bytes",
    "redacted",
    "without_key_forms",
    "without_named_keys",
]

# -- names

#: Headers in which clients and entries put a key.
CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
_CREDENTIAL_NAME = re.compile(
    r"auth(?!or(?!i))|key(?!board|word|_origin)|token(?!s)|secret|passw|cookie|credential", re.IGNORECASE
)
#: Headers whose values are shown wherever headers are; all others could hold a secret.
_HARMLESS = frozenset(
    {
        "accept",
        "accept-encoding",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "host",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "server",
        "transfer-encoding",
        "user-agent",
        "x-app",
        "x-generation-id",
        "x-request-id",
    }
)
_HARMLESS_PREFIXES = ("anthropic-", "x-claude-code-", "x-ratelimit-", "x-stainless-")


@functools.lru_cache(maxsize=512)  # the names of log fields, the same in every line
def is_credential_name(name: str) -> bool:
    """Whether a field, header or setting of this name holds a credential."""
    return _CREDENTIAL_NAME.search(name) is not None


def is_harmless_header(name: str) -> bool:
    """Whether a header's value is nobody's secret; `name` in lower case."""
    return name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES)


# -- what keys look like

#: Prefixes that hardly begin anything but a key, and those that also begin ordinary words.
_SURE = (
    "sk", "pk", "rk", "gsk", "csk", "xai", "nvapi", "pplx",
    "ghp", "gho", "ghu", "ghs", "ghr", "github_pat", "glpat",
)  # fmt: skip
_UNSURE = ("key", "sess", "hf", "fw", "tgp")
#: Those without a separator behind them.
_BARE = ("AIza", "AKIA", "ASIA")

#: Each pattern consumes what it has looked at, or has looked at a bounded number of characters: see the module.
_FORM = (
    # `*` stands where a vendor has shortened the key; without a digit, a short one may be a word
    rf"(?:{'|'.join(_SURE)})[-_](?:[\w*.+/=-]{{7,}}[\w*=]|(?=[\w*.-]{{0,7}}[\d*])[\w*.+/=-]{{3,}}[\w*=])"
    rf"|(?:{'|'.join(_UNSURE)})[-_](?:(?=[\w*.-]{{0,99}}[\d*])[\w*.-]{{3,}}[\w*]|[\w-]{{20,}})"
    rf"|(?:{'|'.join(_BARE)})(?:[-_][\w-]{{8,}}|(?=[\w*.-]{{0,99}}[\d*])[\w*.-]{{3,}}[\w*]|[\w-]{{20,}})"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w.-]+"
    r"|[0-9a-f]{32}\.[0-9A-Za-z]{12,20}\b"
)
#: In text a long one is also found behind a letter, where words have run together.
_KEY = re.compile(rf"(?:(?<!\w)|(?<=\\[nrtbf]))(?:{_FORM})|(?:sk|pk)-[\w-]{{20,}}", re.ASCII)
_BEARER = re.compile(r"\b([Bb]earer|BEARER)\s{1,8}[A-Za-z0-9._~+/-]{6,}={0,8}")
_NAMED_KEY = re.compile(
    r"(\bbearer\s{1,8}|\b(?:api|access|secret)[ _-]?key(?:\s{1,8}(?:provided|is))?\s{0,8}[:=]\s{0,8}"
    r"|\bx-api-key\s{0,8}[:=]\s{0,8})['\"`(]?(?!\*\*\*)[^\s'\"`,)]{4,}",
    re.IGNORECASE,
)

#: For bytes, in which base64url stands: a dash there would make some runs of letters look like keys.
KEY_FORM = re.compile(rf"(?:(?<![\w-])|(?<=\\[nrtbf]))(?:{_FORM})".encode())
#: What all that `KEY_FORM` finds begins with, but for GLM's keys, which begin with any hexadecimal digit.
KEY_BEGINNINGS = tuple(
    text.encode()
    for text in (*(f"{word}{sign}" for word in (*_SURE, *_UNSURE) for sign in "-_"), *_BARE, "eyJ")
)
#: Every text in which there is something to mask holds one of these, or a dot behind 32 letters and digits.
_WORDS = (*(text.decode() for text in KEY_BEGINNINGS), "earer", "EARER")
_HINTS = tuple(word for word in _WORDS if not any(each in word for each in _WORDS if each != word))


def looks_clean(text: str) -> bool:
    """Whether `text` surely holds nothing that looks like a key."""
    for hint in _HINTS:
        if hint in text:
            return False
    return not any(part[-32:].isalnum() and len(part) >= 32 for part in text.split(".")[:-1])


def without_key_forms(text: str) -> str:
    """`text` with everything masked that looks like a key."""
    if looks_clean(text):
        return text
    return _KEY.sub(MASK, _BEARER.sub(rf"\1 {MASK}", text))


def without_named_keys(text: str) -> str:
    """`text` with whatever follows ``API key provided:`` and the like masked: for the words of upstreams."""
    return _NAMED_KEY.sub(rf"\1{MASK}", text)


def redacted(text: str, secrets: Iterable[Secret] | None = None) -> str:
    """`text` without the values of `secrets`, by default of all keys in use, and without what looks like a key."""
    return without_key_forms(masked(text, secrets))


# -- values

#: One character as JSON or a URL may write it; `%25` is a percent sign that was escaped itself.
_ESCAPE = re.compile(rb"\\{1,8}(?:u([0-9a-fA-F]{4})|/)|%(?:25){0,3}([0-9a-fA-F]{2})")


def masked(text: str, secrets: Iterable[Secret] | None = None) -> str:
    """`text` without the values of `secrets`, by default of all keys in use; `text` itself where none is in it."""
    chosen = secrets_in_use() if secrets is None else [secret for secret in secrets if secret.is_searchable]
    if not chosen:
        return text
    if "\\" not in text and "%" not in text:
        is_in = text.__contains__
        for secret in chosen:
            if any(map(is_in, secret.spellings)):
                break
        else:
            return text
    data = text.encode("utf-8", "surrogatepass")
    changed = masked_bytes(data, chosen)
    return text if changed is data else changed.decode("utf-8", "surrogatepass")


def masked_bytes(data: bytes, secrets: Iterable[Secret], *, keeps_length: bool = False) -> bytes:
    """As `masked`, of bytes; `data` itself where no value is in it."""
    spans = find_values(data, secrets)
    if not spans:
        return data
    pieces, end = [], 0
    for start, stop, _ in spans:
        pieces += [data[end:start], b"*" * (stop - start) if keeps_length else MASK.encode()]
        end = stop
    return b"".join((*pieces, data[end:]))


def find_values(data: bytes, secrets: Iterable[Secret]) -> list[tuple[int, int, Secret]]:
    """Where the values of `secrets` stand in `data`, in any spelling: places that do not overlap, in order."""
    plain = _Unescaped.of(data)
    spans: list[tuple[int, int, Secret]] = []
    for secret in secrets:
        if not secret.is_searchable:
            continue
        for spelling in secret.spellings_as_bytes:
            spans += [(start, stop, secret) for start, stop in _places(data, spelling)]
        if plain is not None:
            spans += [
                (plain.origin(start), plain.origin(stop), secret)
                for start, stop in _places(plain.data, secret.unescaped(_unescaped))
            ]
    # Of two that begin together the longer one: a key may be a part of another.
    spans.sort(key=lambda span: (span[0], -span[1]))
    merged: list[tuple[int, int, Secret]] = []
    for span in spans:
        if not merged or span[0] >= merged[-1][1]:
            merged.append(span)
        elif span[1] > merged[-1][1]:
            merged[-1] = (merged[-1][0], span[1], merged[-1][2])
    return merged


def _places(data: bytes, value: bytes) -> Iterable[tuple[int, int]]:
    at = data.find(value)
    while at >= 0:
        yield at, at + len(value)
        at = data.find(value, at + len(value))


def _character(escape: re.Match[bytes]) -> bytes:
    if escape[1] is not None:
        return chr(int(escape[1], 16)).encode("utf-8", "surrogatepass")
    return b"/" if escape[2] is None else bytes((int(escape[2], 16),))


def _unescaped(data: bytes) -> bytes:
    return _ESCAPE.sub(_character, data)


class _Unescaped:
    """Bytes with their escapes undone, and where each of them came from."""

    __slots__ = ("_here", "_there", "data")

    def __init__(self, data: bytes, here: Sequence[int], there: Sequence[int]) -> None:
        self.data, self._here, self._there = data, here, there

    @classmethod
    def of(cls, data: bytes) -> _Unescaped | None:
        """None where there are no escapes."""
        if b"\\u" not in data and b"\\/" not in data and b"%" not in data:
            return None
        pieces: list[bytes] = []
        here, there = [0], [0]
        end = size = 0
        for escape in _ESCAPE.finditer(data):
            character = _character(escape)
            pieces += (data[end : escape.start()], character)
            size += escape.start() - end
            end = escape.end()
            here += (size, size + len(character))
            there += (escape.start(), end)
            size += len(character)
        pieces.append(data[end:])
        return cls(b"".join(pieces), here, there)

    def origin(self, at: int) -> int:
        """Where the byte at `at` begins in the original."""
        index = bisect_right(self._here, at) - 1
        return self._there[index] + at - self._here[index]


#: The beginning of an escape at the end of a chunk.
_OPEN_ESCAPE = re.compile(rb"(?:\\{1,8}(?:u[0-9a-fA-F]{0,3})?|%(?:25){0,3}[0-9a-fA-F]?)\Z")
#: The longest way to write one character: eight backslashes, `uXXXX`.
_MAX_ESCAPE_BYTES = 13


class BodyRedactor:
    """Mask values in a body that comes in chunks, also where one lies across a border; its length stays as it is.

    A chunk is given back at once, but for an end that may be the beginning of a value.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._secrets = [secret for secret in secrets if secret.is_searchable]
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        data = masked_bytes(self._held + chunk, self._secrets, keeps_length=True)
        keep = self._begun(data)
        self._held = data[keep:]
        return data[:keep]

    def close(self) -> bytes:
        """What was held back: no value after all."""
        held, self._held = self._held, b""
        return held

    def _begun(self, data: bytes) -> int:
        """From where on `data` may be the beginning of a value."""
        first = len(data)
        for secret in self._secrets:
            for spelling in secret.spellings_as_bytes:
                first = min(first, _begun(data, spelling))
        longest = max((len(secret.spellings_as_bytes[0]) for secret in self._secrets), default=0)
        start = max(0, len(data) - longest * _MAX_ESCAPE_BYTES)
        tail = data[start:]
        if b"\\" in tail or b"%" in tail:
            cut = _OPEN_ESCAPE.search(tail, max(0, len(tail) - _MAX_ESCAPE_BYTES))
            end = len(tail) if cut is None else cut.start()
            plain = _Unescaped.of(tail[:end]) or _Unescaped(tail[:end], [0], [0])
            for secret in self._secrets:
                first = min(first, start + plain.origin(_begun(plain.data, secret.unescaped(_unescaped))))
            if cut is not None:
                first = min(first, start + end)
        return first


def _begun(data: bytes, value: bytes) -> int:
    """Where the longest end of `data` that is a beginning of `value` begins; the length of `data` if there is none."""
    at = data.find(value[:1], max(0, len(data) - len(value) + 1))
    while at >= 0:
        if value.startswith(data[at:]):
            return at
        at = data.find(value[:1], at + 1)
    return len(data)
