"""Masking of keys in records: headers, addresses and bodies (docs/spec/operations.md#e7).

In bodies, the values of the keys in use and whatever looks like a key are masked, each with a mask of the same length,
so that sizes, chunk boundaries and JSON stay valid and the record can be replayed. A mask consists of letters and
digits and is the same for the same key throughout one record. It cannot be reversed: the random salt is not stored.

Of headers and queries, only values of names known to be harmless are shown.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from proxyd.redaction import KEY_BEGINNINGS, KEY_FORM, find_values, is_harmless_header
from proxyd.secret import MASK, Secret, secrets_in_use

__all__ = ["Masks", "shown_headers", "shown_url"]

#: Only the token is masked, so that the scheme can still be read.
_TOKEN = re.compile(rb"(?<=Bearer )[A-Za-z0-9._~+/\-]{6,}=*")
#: Characters of a mask that differ between keys.
_DISTINCT = 6

_SHOWN_QUERY = frozenset({"after_id", "alt", "api-version", "before_id", "beta", "limit"})


class Masks:
    """The masks of one record; `used` are those that were applied so far.

    Args:
        in_use: the keys whose values are masked; by default all in use now.
    """

    def __init__(self, in_use: Iterable[Secret] | None = None) -> None:
        self._salt = secrets.token_bytes(16)
        self.used: set[str] = set()
        self._secrets = secrets_in_use() if in_use is None else list(in_use)

    def over(self, data: bytes) -> bytes:
        """Mask the keys in `data`; its length stays the same."""
        out, end = [], 0
        for start, stop, secret in find_values(data, self._secrets):
            out += [data[end:start], self._mask(secret.spellings_as_bytes[0], stop - start)]
            end = stop
        if out:
            data = b"".join((*out, data[end:]))
        data = self._mask_pattern(data, _TOKEN, (b"Bearer ",), behind=True)
        return self._mask_pattern(data, KEY_FORM, KEY_BEGINNINGS)

    def over_text(self, text: str) -> str:
        """Mask the keys in a text."""
        return self.over(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def over_json(self, value: Any) -> Any:
        """Mask the keys in all strings of a JSON value."""
        if isinstance(value, str):
            return self.over_text(value)
        if isinstance(value, dict):
            return {key: self.over_json(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.over_json(item) for item in value]
        return value

    def _mask_pattern(
        self, data: bytes, pattern: re.Pattern[bytes], prefixes: Iterable[bytes], *, behind: bool = False
    ) -> bytes:
        """Mask what `pattern` matches at, or `behind`, one of its `prefixes`.

        A search with the pattern alone takes 90 ms for each megabyte, during which no other thread can run.
        """
        found: dict[int, re.Match[bytes]] = {}
        for prefix in prefixes:
            skip = len(prefix) if behind else 0
            at = data.find(prefix)
            while at >= 0:
                match = pattern.match(data, at + skip)
                if match is not None:
                    found[match.start()] = match
                at = data.find(prefix, at + 1 if match is None else match.end())
        out, end = [], 0
        for start in sorted(found):
            if start < end:
                continue  # within another match
            out += [data[end:start], self._mask_once(found[start][0])]
            end = found[start].end()
        return b"".join((*out, data[end:])) if out else data

    def _mask_once(self, value: bytes) -> bytes:
        return value if value.decode() in self.used else self._mask(value, len(value))

    def _mask(self, value: bytes, size: int) -> bytes:
        distinct = hashlib.blake2b(value, key=self._salt, digest_size=_DISTINCT).hexdigest()[:_DISTINCT]
        mask = "x" * max(0, size - _DISTINCT) + distinct[:size]
        self.used.add(mask)
        return mask.encode()


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; values that could be secret are masked, except for the word ``Bearer``."""
    pairs = list(headers)
    shown: dict[str, str] = {}
    for (name, is_harmless), (_, value) in zip(
        _names(tuple([name for name, _ in pairs])), pairs, strict=True
    ):
        if is_harmless:
            shown[name] = f"{shown[name]}, {value}" if name in shown else value
        else:
            is_bearer = name == "authorization" and value[:7].lower() == "bearer "
            shown[name] = f"Bearer {MASK}" if is_bearer else MASK
    return shown


@functools.lru_cache(maxsize=64)  # a client and an upstream send the same names in the same order
def _names(names: tuple[str, ...]) -> tuple[tuple[str, bool], ...]:
    """Return each name in lower case, and whether its value may be shown."""
    return tuple((name, is_harmless_header(name)) for name in map(str.lower, names))


def shown_url(url: str) -> str:
    """A URL or path without user and password; values of the query that are not known to be harmless are masked."""
    if "?" not in url and "@" not in url and "#" not in url:
        return url
    parts = urlsplit(url)
    query = "&".join(
        pair
        if pair.partition("=")[0] in _SHOWN_QUERY or "=" not in pair
        else f"{pair.partition('=')[0]}={MASK}"
        for pair in parts.query.split("&")
    )
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
