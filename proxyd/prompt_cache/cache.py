"""The one cache of what conversations repeat. The daemon owns it, and passes it to whoever parses requests."""

from __future__ import annotations

from typing import Any

from proxyd.codecs.cache.tools import tool_list_for
from proxyd.prompt_cache.prefix import Prefixes
from proxyd.prompt_cache.tool_lists import ToolLists

__all__ = ["PromptCache"]


class PromptCache:
    """Parsed prefixes, tool lists and system prompts of the last conversations, all bounded.

    Args:
        is_on: keep anything (the setting ``prompt_cache``).
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self.prefixes = Prefixes()
        self.tool_lists = ToolLists()

    def switch(self, *, is_on: bool) -> None:
        """Turn it on or off; off forgets everything at once."""
        self._is_on = is_on
        if not is_on:
            self.prefixes.clear()
            self.tool_lists.clear()

    def keep(self, payload: dict[str, Any], body: bytes) -> None:
        """Keep what the next request of this conversation will repeat, and share the objects of the ones before.

        Args:
            payload: the parsed request; its tools and system prompt may be replaced by equal objects.
            body: its bytes.
        """
        if self._is_on:
            self.tool_lists.share(payload, body)
            self.prefixes.remember(payload, body)
        elif isinstance(payload.get("tools"), list):
            payload["tools"] = tool_list_for(payload["tools"])  # what is derived of it serves this request

    def evict_unused(self) -> None:
        """Forget prefixes that were not used for long."""
        self.prefixes.evict_unused()
