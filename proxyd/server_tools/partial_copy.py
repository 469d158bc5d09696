"""A copy of JSON of which only the containers on the way to a change are new; the others are shared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["PartialCopy"]


class PartialCopy:
    """A copy of an object that may be changed at the nodes which `at` has returned.

    Attributes:
        value: the copy.
    """

    def __init__(self, original: Mapping[str, Any]) -> None:
        self.value: dict[str, Any] = dict(original)
        self._own = {id(self.value)}

    def at(self, path: Iterable[str | int]) -> Any:
        """Return the container at `path`; it and those on the way are copied, unless they were before."""
        node: Any = self.value
        for step in path:
            child = node[step]
            if id(child) not in self._own:
                child = node[step] = child.copy()
                self._own.add(id(child))
            node = child
        return node
