"""Faults of a configuration: collected, sorted by position, shown one per line.

A fault reads ``FILE:LINE:COLUMN: models[3].max_tokens: what is wrong`` (docs/spec/design.md#faults); lines and
columns count from 1, indices from 0. Readers report to a `Faults` and continue, so that the user sees all faults at
once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from proxyd.config.foreign_keys import foreign_key_hint
from proxyd.errors import ConfigError, UnsafePermissions

__all__ = ["Fault", "Faults", "hint", "short", "shown"]

#: Longest part of the user's text that a message repeats: a key pasted into the wrong place is truncated.
MAX_SHOWN = 40


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault. Those without a position in the file (line 0) sort first."""

    line: int
    column: int
    subject: str
    text: str
    is_permission: bool = False

    def shown_in(self, file: str) -> str:
        """Return the line for the user."""
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        line = f"{place}: {self.subject}: {self.text}" if self.subject else f"{place}: {self.text}"
        # A line break in a quoted key would look like a second fault.
        return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")


class Faults:
    """Collector of the faults of one file.

    Args:
        file: the file's name in messages, as the user wrote it.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[Fault] = []

    def add(self, line: int, column: int, subject: str, text: str, *, is_permission: bool = False) -> None:
        """Add one fault; line and column count from 1, both 0 for the file as a whole."""
        self._found.append(Fault(line, column, subject, text, is_permission))

    def extend(self, faults: Iterable[Fault]) -> None:
        """Add faults that another reader found in the same file."""
        self._found.extend(faults)

    def raise_if_any(self) -> None:
        """Raise the collected faults as one error.

        Raises:
            UnsafePermissions: all faults are about file permissions.
            ConfigError: anything else; the message holds one line per fault, in the order of the file.
        """
        if not self._found:
            return
        # Two entries that share a value through a YAML anchor report it twice.
        lines = list(dict.fromkeys(fault.shown_in(self.file) for fault in sorted(self._found)))
        kind = UnsafePermissions if all(fault.is_permission for fault in self._found) else ConfigError
        raise kind("\n".join(lines))


def hint(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests the most similar known name, else all of them."""
    choices = list(known)
    if not choices:
        return "there is none to name"
    foreign = foreign_key_hint(name)
    if foreign is not None and foreign[0] in choices:
        return foreign[1]
    folded = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{folded[near[0]]}'?"
    return f"known are {', '.join(choices)}"


def short(name: str) -> str:
    """Truncate `name` to the length that messages repeat."""
    return name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "…"


def shown(value: Any) -> str:
    """Return `value` as the user would recognise it, truncated, without the contents of lists and mappings."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if value == "":
        return "an empty text"
    text = short(str(value))
    if not isinstance(value, str):
        return text
    return f"'{text}'"
