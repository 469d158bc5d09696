"""What importing another proxy's configuration gives, and the parts that all kinds of files share. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Imported", "base_of", "key_of", "variable_of"]

_ENDPOINT = re.compile(r"/(?:chat/completions|messages|responses)/?$")


@dataclass
class Imported:
    """Entries, rules for all of them, and a line for each thing that could not be taken over."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        """The content of a models.yaml."""
        return {"models": self.entries, **({"routes": self.routes} if self.routes else {})}


def base_of(address: str) -> str:
    """Return an address without the path of an endpoint."""
    return _ENDPOINT.sub("", address.strip()).rstrip("/")


def variable_of(name: str) -> str:
    """Return the variable for a key that stood in the file."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_').upper() or 'UPSTREAM'}_API_KEY"


def key_of(variable: str, name: str, done: Imported) -> str:
    """Return the value of ``api_key`` in place of a key, and note once where to put that."""
    note = f"{name}: the key in the file was not copied; put it into env as {variable}"
    if note not in done.notes:
        done.notes.append(note)
    return f"${{{variable}}}"
