"""A prompt cache as strict as a vendor's: of a prompt it reads what begins like an earlier one of the same key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PrefixCache"]

#: Fields that are before the conversation in the prompt, or without which there is another cache.
_SETTINGS = ("model", "reasoning", "text", "service_tier", "tools", "systemInstruction", "toolConfig")


@dataclass
class PrefixCache:
    """Counts in characters of the prompt as a model would get it: tools first, then the items.

    Attributes:
        read: characters that were read from the cache, of all prompts but the first of each key.
        possible: what a client would have read that only ever appends to its last prompt.
    """

    read: int = 0
    possible: int = 0
    _prompts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, body: dict[str, Any]) -> int:
        """Take a request; return how many characters of its prompt were cached."""
        items = body["input"] if "input" in body else body["contents"]
        settings = {name: value for name, value in body.items() if name in _SETTINGS}
        prompt = "".join(json.dumps(part) for part in (settings, *_without_ends(items)))
        known = self._prompts.setdefault(body.get("prompt_cache_key") or "", [])
        cached = max((_common(prompt, other) for other in known), default=0)
        if known:
            self.read += cached
            self.possible += min(len(known[-1]), len(prompt))
        known.append(prompt)
        return cached

    @property
    def share(self) -> float:
        """What was read of what a perfect client gets."""
        return self.read / self.possible if self.possible else 0.0


def _without_ends(items: list[Any]) -> list[Any]:
    """Return the parts of contents in place of the contents: a content that grows keeps what it had."""
    return [part for item in items for part in item.get("parts", [item])]


def _common(first: str, second: str) -> int:
    """Return the length of the common beginning, by halving: comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
