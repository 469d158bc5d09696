"""Cache of the tool inputs of one request as JSON text, which the token estimate and the translation both need."""

from __future__ import annotations

from typing import Any

from proxyd import jsonio

__all__ = ["ToolInputs"]


class ToolInputs:
    """JSON texts of the tool inputs of one request, by the identity of the object.

    It lives as long as the request, which is not changed meanwhile.
    """

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def as_json(self, value: Any) -> str | None:
        """Return an object of the request as compact JSON; None for other values, and for those without a JSON form."""
        key = id(value)
        text = self._texts.get(key)
        if text is None and isinstance(value, dict):
            try:
                text = self._texts[key] = jsonio.dump_text(value)
            except jsonio.JSONError:  # NaN or Infinity, which the parser accepts
                return None
        return text
