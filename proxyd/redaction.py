"""Find and mask credentials in text and bytes: by value, by form, and by the names of fields and headers.

All output of the proxy (logs, records, ledger, feeds, errors for clients) is masked by this module, always in the same
order: first the values of the keys in use, then everything that looks like a key. In the other order a pattern that
ends early would mask a part of a key and leave the rest readable.

A value is found as it is and in the encodings in which programs repeat text: JSON (``\\/``, ``\\uXXXX``), URLs
(``%2F``) and base64 at any offset.

Every pattern takes time linear in the length of the text, so texts of any length are accepted.
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

#: Headers in which clients and entries of models.yaml send a key.
CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
_CREDENTIAL_NAME = re.compile(
    r"auth(?!or(?!i))|key(?!board|word|_origin)|token(?!s)|secret|passw|cookie|credential", re.IGNORECASE
)
#: Headers whose values are shown in logs and records; the value of any other header may be a secret.
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


@functools.lru_cache(maxsize=512)  # log fields have the same names in every line
def is_credential_name(name: str) -> bool:
    """Return whether a field, header or setting of this name contains a credential."""
    return _CREDENTIAL_NAME.search(name) is not None


@functools.lru_cache(maxsize=512)  # all calls have the same names
def is_harmless_header(name: str) -> bool:
    """Return whether the value of a header may be shown; `name` in lower case."""
    return name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES)


# -- forms

#: Prefixes of keys only, and prefixes that ordinary words share.
_SURE = (
    "sk", "pk", "rk", "gsk", "csk", "xai", "nvapi", "pplx",
    "ghp", "gho", "ghu", "ghs", "ghr", "github_pat", "glpat",
)  # fmt: skip
_UNSURE = ("key", "sess", "hf", "fw", "tgp")
#: Prefixes without a separator after them.
_BARE = ("AIza", "AKIA", "ASIA")

#: To stay linear, each alternative consumes what it reads, or reads a bounded number of characters ahead.
_FORM = (
    # vendors shorten keys with `*`; a short one without a digit may be a word
    rf"(?:{'|'.join(_SURE)})[-_](?:[\w*.+/=-]{{7,}}[\w*=]|(?=[\w*.-]{{0,7}}[\d*])[\w*.+/=-]{{3,}}[\w*=])"
    rf"|(?:{'|'.join(_UNSURE)})[-_](?:(?=[\w*.-]{{0,99}}[\d*])[\w*.-]{{3,}}[\w*]|[\w-]{{20,}})"
    rf"|(?:{'|'.join(_BARE)})(?:[-_][\w-]{{8,}}|(?=[\w*.-]{{0,99}}[\d*])[\w*.-]{{3,}}[\w*]|[\w-]{{20,}})"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w.-]+"
    r"|[0-9a-f]{32}\.[0-9A-Za-z]{12,20}\b"
)
#: In text, a long key is also found directly after a letter.
_KEY = re.compile(rf"(?:(?<!\w)|(?<=\\[nrtbf]))(?:{_FORM})|(?:sk|pk)-[\w-]{{20,}}", re.ASCII)
_BEARER = re.compile(r"\b([Bb]earer|BEARER)\s{1,8}[A-Za-z0-9._~+/-]{6,}={0,8}")
_NAMED_KEY = re.compile(
    r"(\bbearer\s{1,8}|\b(?:api|access|secret)[ _-]?key(?:\s{1,8}(?:provided|is))?\s{0,8}[:=]\s{0,8}"
    r"|\bx-api-key\s{0,8}[:=]\s{0,8})['\"`(]?(?!\*\*\*)[^\s'\"`,)]{4,}",
    re.IGNORECASE,
)

#: For bytes, which may contain base64url: after a dash there, random letters can look like a key.
KEY_FORM = re.compile(rf"(?:(?<![\w-])|(?<=\\[nrtbf]))(?:{_FORM})".encode())
#: Prefixes of all keys that `KEY_FORM` finds, except GLM's, which begin with any hexadecimal digit.
KEY_BEGINNINGS = tuple(
    text.encode()
    for text in (*(f"{word}{sign}" for word in (*_SURE, *_UNSURE) for sign in "-_"), *_BARE, "eyJ")
)
#: Every text with something to mask contains one of these, or a dot after 32 letters and digits.
_WORDS = (*(text.decode() for text in KEY_BEGINNINGS), "earer", "EARER")
_HINTS = tuple(word for word in _WORDS if not any(each in word for each in _WORDS if each != word))


def looks_clean(text: str) -> bool:
    """Return whether `text` certainly contains nothing that looks like a key."""
    for hint in _HINTS:
        if hint in text:
            return False
    return not any(part[-32:].isalnum() and len(part) >= 32 for part in text.split(".")[:-1])


def without_key_forms(text: str) -> str:
    """Mask everything in `text` that looks like a key."""
    if looks_clean(text):
        return text
    return _KEY.sub(MASK, _BEARER.sub(rf"\1 {MASK}", text))


def without_named_keys(text: str) -> str:
    """Mask what follows ``API key provided:`` and similar phrases: for error messages of upstreams."""
    return _NAMED_KEY.sub(rf"\1{MASK}", text)


def redacted(text: str, secrets: Iterable[Secret] | None = None) -> str:
    """Mask the values of `secrets`, by default of all keys in use, then everything that looks like a key."""
    return without_key_forms(masked(text, secrets))


# -- values

#: One escaped character of JSON or a URL; `%25` is a percent sign that was escaped itself.
_ESCAPE = re.compile(rb"\\{1,8}(?:u([0-9a-fA-F]{4})|/)|%(?:25){0,3}([0-9a-fA-F]{2})")


def masked(text: str, secrets: Iterable[Secret] | None = None) -> str:
    """Mask the values of `secrets`, by default of all keys in use; return `text` itself if it contains none."""
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
    """Mask the values of `secrets` in bytes; return `data` itself if it contains none."""
    spans = find_values(data, secrets)
    if not spans:
        return data
    parts, end = [], 0
    for start, stop, _ in spans:
        parts += [data[end:start], b"*" * (stop - start) if keeps_length else MASK.encode()]
        end = stop
    return b"".join((*parts, data[end:]))


def find_values(data: bytes, secrets: Iterable[Secret]) -> list[tuple[int, int, Secret]]:
    """Return start, end and secret of each value in `data`, in any encoding: sorted spans without overlap."""
    plain = _Unescaped.of(data)
    spans: list[tuple[int, int, Secret]] = []
    for secret in secrets:
        if not secret.is_searchable:
            continue
        for spelling in secret.spellings_as_bytes:
            spans += [(start, stop, secret) for start, stop in _occurrences(data, spelling)]
        if plain is not None:
            spans += [
                (plain.origin(start), plain.origin(stop), secret)
                for start, stop in _occurrences(plain.data, secret.unescaped(_unescaped))
            ]
    # Of two with the same start the longer one: a key may be part of another.
    spans.sort(key=lambda span: (span[0], -span[1]))
    merged: list[tuple[int, int, Secret]] = []
    for span in spans:
        if not merged or span[0] >= merged[-1][1]:
            merged.append(span)
        elif span[1] > merged[-1][1]:
            merged[-1] = (merged[-1][0], span[1], merged[-1][2])
    return merged


def _occurrences(data: bytes, value: bytes) -> Iterable[tuple[int, int]]:
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
    """Bytes with their escapes undone, and a map from offsets in them to offsets in the original."""

    __slots__ = ("_offsets", "_origins", "data")

    def __init__(self, data: bytes, offsets: Sequence[int], origins: Sequence[int]) -> None:
        self.data, self._offsets, self._origins = data, offsets, origins

    @classmethod
    def of(cls, data: bytes) -> _Unescaped | None:
        """Unescape `data`; None if it contains no escapes."""
        if b"\\u" not in data and b"\\/" not in data and b"%" not in data:
            return None
        parts: list[bytes] = []
        offsets, origins = [0], [0]
        end = size = 0
        for escape in _ESCAPE.finditer(data):
            character = _character(escape)
            parts += (data[end : escape.start()], character)
            size += escape.start() - end
            end = escape.end()
            offsets += (size, size + len(character))
            origins += (escape.start(), end)
            size += len(character)
        parts.append(data[end:])
        return cls(b"".join(parts), offsets, origins)

    def origin(self, at: int) -> int:
        """Return the offset in the original of the byte at `at`."""
        index = bisect_right(self._offsets, at) - 1
        return self._origins[index] + at - self._offsets[index]


#: An incomplete escape at the end of a chunk.
_OPEN_ESCAPE = re.compile(rb"(?:\\{1,8}(?:u[0-9a-fA-F]{0,3})?|%(?:25){0,3}[0-9a-fA-F]?)\Z")
#: Length of the longest escape: eight backslashes and `uXXXX`.
_MAX_ESCAPE_BYTES = 13


class BodyRedactor:
    """Mask values in a body that arrives in chunks, including values split over chunks; the length does not change.

    Each chunk is returned at once, except for an end that may be the beginning of a value.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._secrets = [secret for secret in secrets if secret.is_searchable]
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take one chunk; return the bytes that are final."""
        data = masked_bytes(self._held + chunk, self._secrets, keeps_length=True)
        keep = self._incomplete_from(data)
        self._held = data[keep:]
        return data[:keep]

    def close(self) -> bytes:
        """Return what was held back: the body ended within a possible value."""
        held, self._held = self._held, b""
        return held

    def _incomplete_from(self, data: bytes) -> int:
        """Return where an incomplete value may begin at the end of `data`; its length if there is none."""
        first = len(data)
        for secret in self._secrets:
            for spelling in secret.spellings_as_bytes:
                first = min(first, _prefix_start(data, spelling))
        longest = max((len(secret.spellings_as_bytes[0]) for secret in self._secrets), default=0)
        start = max(0, len(data) - longest * _MAX_ESCAPE_BYTES)
        tail = data[start:]
        if b"\\" in tail or b"%" in tail:
            cut = _OPEN_ESCAPE.search(tail, max(0, len(tail) - _MAX_ESCAPE_BYTES))
            end = len(tail) if cut is None else cut.start()
            plain = _Unescaped.of(tail[:end]) or _Unescaped(tail[:end], [0], [0])
            for secret in self._secrets:
                first = min(
                    first, start + plain.origin(_prefix_start(plain.data, secret.unescaped(_unescaped)))
                )
            if cut is not None:
                first = min(first, start + end)
        return first


def _prefix_start(data: bytes, value: bytes) -> int:
    """Return where the longest suffix of `data` that is a prefix of `value` begins; len(data) if there is none."""
    at = data.find(value[:1], max(0, len(data) - len(value) + 1))
    while at >= 0:
        if value.startswith(data[at:]):
            return at
        at = data.find(value[:1], at + 1)
    return len(data)
