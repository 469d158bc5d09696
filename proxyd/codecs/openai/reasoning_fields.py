"""Read the reasoning of a delta, and gather OpenRouter's ``reasoning_details``.

See docs/spec/chat-to-messages.md#reasoning-fields.
"""

from __future__ import annotations

from typing import Any

from proxyd.codecs.openai.delta_shapes import text_of

__all__ = ["ReasoningDetails", "reasoning_of"]

#: Fields that hold reasoning text, in order of preference, before and after ``reasoning_details``. Servers repeat
#: the text in several, so only one is read.
_TEXT_FIELDS = ("reasoning_content", "reasoning")
_RARE_TEXT_FIELDS = ("reasoning_text", "thinking", "thought", "reasoning_summary", "cot_summary")
#: Fields of a ``reasoning_details`` item whose values are appended; those of other fields are replaced.
_APPENDED = ("text", "summary", "data")


def reasoning_of(delta: dict[str, Any]) -> tuple[str | None, str]:
    """Return the field that holds the reasoning text of `delta`, and the text; ``(None, "")`` if there is none."""
    for name in _TEXT_FIELDS:
        value = delta.get(name)
        if value and (text := value if isinstance(value, str) else text_of(value)):
            return name, text
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
    blocks = delta.get("thinking_blocks")  # LiteLLM, which repeats the text in `reasoning_content` as a rule
    if isinstance(blocks, list):
        thoughts = [block.get("thinking") for block in blocks if isinstance(block, dict)]
        if joined := "".join(thought for thought in thoughts if isinstance(thought, str)):
            return "thinking_blocks", joined
    for name in _RARE_TEXT_FIELDS:
        value = delta.get(name)
        if value and (text := text_of(value)):
            return name, text
    return None, ""


class ReasoningDetails:
    """The items of ``reasoning_details`` over a stream, to be sent back unchanged and in order."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[dict[str, Any]] = []  # values of _APPENDED as lists of strings

    def add(self, details: list[Any]) -> None:
        """Add the items of one delta; an item that continues the previous one is joined to it."""
        for item in details:
            if not isinstance(item, dict):
                continue
            last = self._items[-1] if self._items else None
            if last is None or last.get("type") != item.get("type") or last.get("index") != item.get("index"):
                last = {}
                self._items.append(last)
            for key, value in item.items():
                if key in _APPENDED and isinstance(value, str):
                    parts = last.get(key)
                    if isinstance(parts, list):
                        parts.append(value)
                    else:
                        last[key] = [value]
                elif value is not None or key not in last:
                    last[key] = value

    @property
    def is_signed(self) -> bool:
        """An item holds more than readable text, so it must be put into a signature."""
        return any(item.get("data") or item.get("signature") for item in self._items)

    def take(self) -> list[dict[str, Any]] | None:
        """Return all items so far and forget them; None if there are none."""
        items, self._items = self._items, []
        for item in items:
            for key in _APPENDED:
                if isinstance(item.get(key), list):
                    item[key] = "".join(item[key])
        return items or None
