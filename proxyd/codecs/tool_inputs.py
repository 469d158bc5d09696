"""The inputs of a request's tool uses as JSON: needed for the count and for the translation, and written once."""

from __future__ import annotations

from typing import Any

from proxyd import jsonio

__all__ = ["ToolInputs"]


class ToolInputs:
    """Those of one request. They are told by what they are, not by what is in them: this lives no longer than the
    request, of which nobody changes anything.
    """

    __slots__ = ("_written",)

    def __init__(self) -> None:
        self._written: dict[int, str] = {}

    def written(self, value: dict[str, Any]) -> str:
        """An object that stands in the request, as compact JSON.

        Raises:
            JSONError: it holds a number that JSON has no form for.
        """
        text = self._written.get(id(value))
        if text is None:
            text = self._written[id(value)] = jsonio.dump_text(value)
        return text
