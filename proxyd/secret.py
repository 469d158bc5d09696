"""Keys, as a type that does not print itself."""

from __future__ import annotations

import hmac

__all__ = ["Secret"]


class Secret:
    """A credential. ``repr`` and ``str`` show at most its last four characters; `reveal` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one header it is meant for."""
        return self._value

    def matches(self, other: str) -> bool:
        """Compare in constant time. A header's bytes that are no UTF-8 arrive as lone surrogates, and match
        nothing.
        """
        return hmac.compare_digest(self._value.encode(), other.encode("utf-8", "surrogatepass"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        # A short value would be given away by its last four characters.
        return f"***{self._value[-4:]}" if len(self._value) >= 16 else "***"

    __str__ = __repr__
