"""The key of an upstream whose models are added, and where it is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FoundKey"]


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key and its place.

    Attributes:
        name: of its variable, or in the system's keyring; "" where the upstream needs none.
        is_pasted: it is kept nowhere yet.
        in_keyring: it is, or will be, in the system's keyring.
    """

    name: str = ""
    value: str = ""
    is_pasted: bool = False
    in_keyring: bool = False

    @property
    def variable(self) -> str | None:
        """The reference to a variable of its name."""
        return f"${{{self.name}}}" if self.name else None

    @property
    def reference(self) -> str | None:
        """What an entry has as its key."""
        return f"${{keyring:{self.name}}}" if self.in_keyring else self.variable
