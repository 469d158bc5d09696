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

    def as_json(self, value: Any) -> str | None:
        """An object that stands in the request, as compact JSON; None for what is no object, or has no form in JSON."""
        key = id(value)
        text = self._written.get(key)
        if text is None and isinstance(value, dict):
            try:
                text = self._written[key] = jsonio.dump_text(value)
            except jsonio.JSONError:  # NaN or Infinity, which our parser takes
                return None
        return text
