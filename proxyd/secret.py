"""Keys, as a type that does not print itself, and that knows its value wherever it turns up.

Every key in use is a `Secret`: configured ones for as long as their configuration is in force, a client's for as long
as its call lasts. `masked` finds their values in any text, so that neither a log line nor an error message can carry
one, whatever it was made from (operations.md E7).
"""

from __future__ import annotations

from typing import overload
from weakref import WeakValueDictionary

__all__ = ["MASK", "Secret", "masked", "values_in_use"]

MASK = "***"

#: Shorter ones are words such as "any" or "ollama", which people set where no key is needed.
_MIN_MASKED_CHARS = 8

#: By identity, since equal keys of two calls do not end together.
_in_use: WeakValueDictionary[int, Secret] = WeakValueDictionary()


class Secret:
    """A credential. ``repr`` and ``str`` show at most its last four characters; `reveal` gives the value."""

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        if len(value) >= _MIN_MASKED_CHARS:
            _in_use[id(self)] = self

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


def values_in_use() -> list[str]:
    """The values of all keys in use that are long enough to be looked for, the longest first, since a key may be part
    of another. Any thread may ask.
    """
    # The references are copied in one step, where going through the mapping could meet a key that comes or goes.
    found = (reference() for reference in _in_use.valuerefs())
    # Each once: the calls of one client all bring the same key.
    return sorted({secret.reveal() for secret in found if secret is not None}, key=len, reverse=True)


@overload
def masked(text: str) -> str: ...
@overload
def masked(text: bytes) -> bytes: ...
def masked(text: str | bytes) -> str | bytes:
    """`text` without the value of any key that is in use; `text` itself where none is in it."""
    for value in values_in_use():
        if isinstance(text, str):
            if value in text:
                text = text.replace(value, MASK)
        elif (data := value.encode("utf-8", "surrogatepass")) in text:
            text = text.replace(data, MASK.encode())
    return text
