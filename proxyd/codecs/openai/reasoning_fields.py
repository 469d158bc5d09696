"""Where a delta keeps its reasoning, and OpenRouter's ``reasoning_details``.

See docs/spec/chat-to-messages.md#reasoning-fields.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ReasoningDetails", "reasoning_of"]

#: Fields that hold reasoning text, in order of preference, before and after ``reasoning_details``. Servers repeat
#: the text in several: take one.
_TEXT_FIELDS = ("reasoning_content", "reasoning")
_RARE_TEXT_FIELDS = ("thinking", "thought")
#: Within one item of ``reasoning_details``, pieces of these are appended; all else is set.
_APPENDED = ("text", "summary", "data")


def reasoning_of(delta: dict[str, Any]) -> tuple[str | None, str]:
    """The reasoning text in `delta` and the field it was in; ``(None, "")`` if there is none."""
    for name in _TEXT_FIELDS:
        value = delta.get(name)
        if isinstance(value, str) and value:
            return name, value
    details = delta.get("reasoning_details")
    if isinstance(details, list):
        texts = [
            text
            for item in details
            if isinstance(item, dict)
            for text in (item.get("text"), item.get("summary"))
            if isinstance(text, str)
        ]
        if joined := "".join(texts):
            return "reasoning_details", joined
    for name in _RARE_TEXT_FIELDS:
        value = delta.get(name)
        if isinstance(value, str) and value:
            return name, value
    return None, ""


class ReasoningDetails:
    """Gathers the items of ``reasoning_details`` over a stream, to be sent back unchanged and in order."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[dict[str, Any]] = []  # strings of _APPENDED as lists of pieces

    def add(self, details: list[Any]) -> None:
        """Take the items of one delta; one that continues the item before is joined to it."""
        for item in details:
            if not isinstance(item, dict):
                continue
            last = self._items[-1] if self._items else None
            if last is None or last.get("type") != item.get("type") or last.get("index") != item.get("index"):
                last = {}
                self._items.append(last)
            for key, value in item.items():
                if key in _APPENDED and isinstance(value, str):
                    pieces = last.get(key)
                    if isinstance(pieces, list):
                        pieces.append(value)
                    else:
                        last[key] = [value]
                elif value is not None or key not in last:
                    last[key] = value

    @property
    def has_unsent_data(self) -> bool:
        """Something waits that is more than readable text: it must find its way into a signature."""
        return any(item.get("data") or item.get("signature") for item in self._items)

    def take(self) -> list[dict[str, Any]] | None:
        """All items so far, once."""
        items, self._items = self._items, []
        for item in items:
            for key in _APPENDED:
                if isinstance(item.get(key), list):
                    item[key] = "".join(item[key])
        return items or None
