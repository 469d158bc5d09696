"""Keys, as a type that does not print itself, and that knows its value wherever it turns up.

Every key in use is a `Secret`: configured ones for as long as their configuration is in force, a client's for as long
as its call lasts. `proxyd.redaction` finds their values in any text, so that neither a log line nor an error message
can carry one, whatever it was made from (docs/spec/operations.md#e7).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from weakref import WeakValueDictionary

__all__ = ["MASK", "Secret", "configured_secrets", "secrets_in_use"]

MASK = "***"

#: Shorter ones are words such as "any" or "ollama", which people set where no key is needed.
_MIN_MASKED_CHARS = 8

#: By identity, since equal keys of two calls do not end together.
_in_use: WeakValueDictionary[int, Secret] = WeakValueDictionary()


class Secret:
    """A credential. ``repr`` and ``str`` show at most its last four characters; `reveal` gives the value.

    Args:
        is_configured: it is ours. A client's key is masked in the responses to its own calls only: what others send as
            their key, which may be any word, is not cut out of anybody else's response.
    """

    __slots__ = ("__weakref__", "_as_bytes", "_spellings", "_unescaped", "_value", "is_configured")

    def __init__(self, value: str, *, is_configured: bool = True) -> None:
        self._value = value
        self.is_configured = is_configured
        self._spellings: tuple[str, ...] | None = None
        self._as_bytes: tuple[bytes, ...] = ()
        self._unescaped = b""
        if self.is_searchable:
            _in_use[id(self)] = self

    @property
    def is_searchable(self) -> bool:
        """Long enough to be looked for."""
        return len(self._value) >= _MIN_MASKED_CHARS

    @property
    def spellings(self) -> tuple[str, ...]:
        """The value as it may stand in a text, its own characters first; escapes of single characters apart."""
        if self._spellings is None:
            self._spellings = _spellings(self._value)
            self._as_bytes = tuple(each.encode("utf-8", "surrogatepass") for each in self._spellings)
        return self._spellings

    @property
    def spellings_as_bytes(self) -> tuple[bytes, ...]:
        return self._as_bytes if self.spellings else ()

    def unescaped(self, undo: Callable[[bytes], bytes]) -> bytes:
        """The value after `undo`, which is always the same: what to look for where escapes have been undone."""
        if not self._unescaped:
            self._unescaped = undo(self.spellings_as_bytes[0])
        return self._unescaped

    def reveal(self) -> str:
        """The value itself, for the one header it is meant for."""
        return self._value

    def matches(self, other: str) -> bool:
        """Compare in constant time. A header's bytes that are no UTF-8 arrive as lone surrogates, and match
        nothing.
        """
        import hmac  # it loads OpenSSL, which a status line has no time for

        return hmac.compare_digest(
            self._value.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        # A short value would be given away by its last four characters.
        return f"{MASK}{self._value[-4:]}" if len(self._value) >= 16 else MASK

    __str__ = __repr__


def _spellings(value: str) -> tuple[str, ...]:
    data = value.encode("utf-8", "surrogatepass")
    found = [value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
    for ahead in range(3):  # bytes that share a group of base64 with the value's first ones
        # The first and the last character also hold bits of what stands beside the value.
        first, last = (ahead * 8 + 5) // 6, (ahead + len(data)) * 8 // 6
        text = base64.b64encode(b"\0" * ahead + data + b"\0\0").decode()[first:last]
        found += [text, text.translate(_URL_SAFE)]
    return tuple(dict.fromkeys(found))


_URL_SAFE = str.maketrans("+/", "-_")


def secrets_in_use() -> list[Secret]:
    """All keys in use that are long enough to be looked for, each value once. Any thread may ask."""
    # The references are copied in one step, where going through the mapping could meet a key that comes or goes.
    found = (reference() for reference in _in_use.valuerefs())
    return list({secret.reveal(): secret for secret in found if secret is not None}.values())


def configured_secrets() -> list[Secret]:
    """As `secrets_in_use`, of those that no client brought."""
    return [secret for secret in secrets_in_use() if secret.is_configured]
