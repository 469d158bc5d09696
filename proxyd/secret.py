"""Credentials as a type that does not print its value, and a registry of all credentials in use.

Every key in use is a `Secret`: a configured one as long as its configuration is active, a client's as long as its call
lasts. `proxyd.redaction` searches texts for their values, so that no log line and no error message contains one
(docs/spec/operations.md#e7).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from weakref import WeakValueDictionary

__all__ = ["MASK", "Secret", "configured_secrets", "secrets_in_use"]

MASK = "***"

#: Shorter values are words such as "any" or "ollama", which people set where no key is needed.
_MIN_MASKED_CHARS = 8

#: By identity, since equal keys of two calls have different lifetimes.
_in_use: WeakValueDictionary[int, Secret] = WeakValueDictionary()


class Secret:
    """A credential. ``repr`` and ``str`` show at most its last four characters; `reveal` returns the value.

    Args:
        is_configured: from the configuration, masked everywhere. A client's key, which may be any word, is masked in
            logs, and in the responses to that client's own calls only.
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
        """Whether the value is long enough to be searched for."""
        return len(self._value) >= _MIN_MASKED_CHARS

    @property
    def spellings(self) -> tuple[str, ...]:
        """The value as it is, then in JSON and base64; escapes of single characters are not included."""
        if self._spellings is None:
            self._spellings = _spellings(self._value)
            self._as_bytes = tuple(each.encode("utf-8", "surrogatepass") for each in self._spellings)
        return self._spellings

    @property
    def spellings_as_bytes(self) -> tuple[bytes, ...]:
        return self._as_bytes if self.spellings else ()

    def unescaped(self, undo: Callable[[bytes], bytes]) -> bytes:
        """Return `undo` applied to the value, cached: `undo` must be the same function in every call."""
        if not self._unescaped:
            self._unescaped = undo(self.spellings_as_bytes[0])
        return self._unescaped

    def reveal(self) -> str:
        """Return the value, for the header in which it is sent."""
        return self._value

    def matches(self, other: str) -> bool:
        """Compare in constant time. Header bytes that are not UTF-8 arrive as lone surrogates and match nothing."""
        import hmac  # here, because it loads OpenSSL, which would slow down the status line

        return hmac.compare_digest(
            self._value.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        # The last four characters would reveal much of a short value.
        return f"{MASK}{self._value[-4:]}" if len(self._value) >= 16 else MASK

    __str__ = __repr__


def _spellings(value: str) -> tuple[str, ...]:
    data = value.encode("utf-8", "surrogatepass")
    found = [value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
    for offset in range(3):  # of the value in its first group of three bytes
        # The first and the last character also encode bits of the neighbouring bytes.
        first, last = (offset * 8 + 5) // 6, (offset + len(data)) * 8 // 6
        text = base64.b64encode(b"\0" * offset + data + b"\0\0").decode()[first:last]
        found += [text, text.translate(_URL_SAFE)]
    return tuple(dict.fromkeys(found))


_URL_SAFE = str.maketrans("+/", "-_")


def secrets_in_use() -> list[Secret]:
    """Return all keys in use that are long enough to be searched for, each value once. Thread-safe."""
    # valuerefs() copies the references in one step; iterating over the mapping could fail when another thread
    # adds or drops a key.
    found: dict[str, Secret] = {}
    for reference in _in_use.valuerefs():
        secret = reference()
        if secret is not None:
            found[secret.reveal()] = secret
    return list(found.values())


def configured_secrets() -> list[Secret]:
    """Return the keys in use that came from the configuration, not from a client."""
    return [secret for secret in secrets_in_use() if secret.is_configured]
