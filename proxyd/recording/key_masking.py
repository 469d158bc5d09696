"""What of a call may be written into a record: headers, addresses and bodies without their keys
(docs/spec/operations.md#e7).

Bodies are masked by the values of the keys in use and by what keys look like, each with a mask of the same length, so
that sizes, chunk boundaries and the JSON around it stay as they were and the record can be replayed. A mask is letters
and digits, the same for the same key throughout one record, and tells nothing: it is made with a random salt that is
kept nowhere.

Of headers and queries only the values of those known to be harmless are shown.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from proxyd.redaction import KEY_BEGINNINGS, KEY_FORM, find_values, is_harmless_header
from proxyd.secret import MASK, secrets_in_use

__all__ = ["Masks", "shown_headers", "shown_url"]

#: The token alone is masked, so that what stands before it can still be read.
_TOKEN = re.compile(rb"(?<=Bearer )[A-Za-z0-9._~+/\-]{6,}=*")
#: Characters of a mask that differ from key to key.
_TELLING = 6

_SHOWN_QUERY = frozenset({"after_id", "alt", "api-version", "before_id", "beta", "limit"})


class Masks:
    """The masks of one record. `used` are those that were needed so far."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self.used: set[str] = set()
        self._secrets = secrets_in_use()

    def over(self, data: bytes) -> bytes:
        """`data`, of the same length, without keys."""
        out, end = [], 0
        for start, stop, secret in find_values(data, self._secrets):
            out += [data[end:start], self._mask(secret.spellings_as_bytes[0], stop - start)]
            end = stop
        if out:
            data = b"".join((*out, data[end:]))
        data = self._replaced(data, _TOKEN, (b"Bearer ",), behind=True)
        return self._replaced(data, KEY_FORM, KEY_BEGINNINGS)

    def over_text(self, text: str) -> str:
        """As `over`."""
        return self.over(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def over_json(self, value: Any) -> Any:
        """All texts of a JSON value, as `over`."""
        if isinstance(value, str):
            return self.over_text(value)
        if isinstance(value, dict):
            return {key: self.over_json(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.over_json(item) for item in value]
        return value

    def _replaced(
        self, data: bytes, pattern: re.Pattern[bytes], prefixes: Iterable[bytes], *, behind: bool = False
    ) -> bytes:
        """`data` with masks for what `pattern` finds at, or `behind`, one of its `prefixes`.

        One search by the pattern alone would take 90 ms for each megabyte, in which no other thread could run.
        """
        found: dict[int, re.Match[bytes]] = {}
        for beginning in prefixes:
            skip = len(beginning) if behind else 0
            at = data.find(beginning)
            while at >= 0:
                match = pattern.match(data, at + skip)
                if match is not None:
                    found[match.start()] = match
                at = data.find(beginning, at + 1 if match is None else match.end())
        out, end = [], 0
        for start in sorted(found):
            if start < end:
                continue  # within another one
            out += [data[end:start], self._of(found[start][0])]
            end = found[start].end()
        return b"".join((*out, data[end:])) if out else data

    def _of(self, value: bytes) -> bytes:
        return value if value.decode() in self.used else self._mask(value, len(value))

    def _mask(self, value: bytes, size: int) -> bytes:
        telling = hashlib.blake2b(value, key=self._salt, digest_size=_TELLING).hexdigest()[:_TELLING]
        mask = "x" * max(0, size - _TELLING) + telling[:size]
        self.used.add(mask)
        return mask.encode()


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in lower case; a value that could be a secret is masked, but for the word ``Bearer``."""
    shown: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if is_harmless_header(name):
            shown[name] = f"{shown[name]}, {value}" if name in shown else value
        else:
            is_bearer = name == "authorization" and value[:7].lower() == "bearer "
            shown[name] = f"Bearer {MASK}" if is_bearer else MASK
    return shown


def shown_url(url: str) -> str:
    """`url`, or a path, without user, password, and the values of a query that are not known to be harmless."""
    parts = urlsplit(url)
    query = "&".join(
        pair
        if pair.partition("=")[0] in _SHOWN_QUERY or "=" not in pair
        else f"{pair.partition('=')[0]}={MASK}"
        for pair in parts.query.split("&")
    )
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
