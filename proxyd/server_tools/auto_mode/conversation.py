"""What the check of a response needs of its request, taken from it before the request is released.

It is bounded, however long the conversation is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxyd.server_tools.auto_mode.calls import ToolUse, needs_no_check
from proxyd.server_tools.auto_mode.memory import SessionMemory, digest
from proxyd.server_tools.auto_mode.transcript import (
    MAX_CHARS,
    quoted,
    steps_of,
    transcript,
    user_words,
    words_within,
)

__all__ = ["Conversation"]

#: Parts of the client's context that only list earlier calls.
_HISTORY = frozenset({"prior_turn_context", "refused_calls", "classifier_facts"})
_MAX_TASK = 1000


class Conversation:
    """The conversation of one request.

    Args:
        context: the request's ``classifier_context``.
        messages: the request's conversation.
        is_subagent: it is a subagent's; its texts of the user come from the main model.

    Attributes:
        settings: the context without its history.
        words, steps: lines of JSON, see `transcript`.
    """

    __slots__ = ("_calls", "_words_digest", "context", "memory", "settings", "steps", "words")

    def __init__(
        self, context: Mapping[str, Any], messages: Any, memory: SessionMemory, *, is_subagent: bool = False
    ) -> None:
        self.context = context
        self.memory = memory
        self.settings = {name: value for name, value in context.items() if name not in _HISTORY}
        own_words = user_words(messages)
        if own_words and not is_subagent:
            memory.words = tuple(words_within(own_words))
        self.words: Sequence[str] = memory.words
        self._words_digest = digest(list(self.words), own_words, is_subagent)
        task: list[str] = []
        if is_subagent:
            task = [quoted({"task_from_the_main_assistant": text[:_MAX_TASK]}) for text in own_words[:1]]
        room = MAX_CHARS - sum(len(line) + 1 for line in (*self.words, *task))
        self.steps = [*task, *transcript(messages, room=room)]
        self._calls = {
            digest(name, value)
            for name, value in steps_of(messages)
            if not needs_no_check(ToolUse("", name, value if isinstance(value, Mapping) else None), {})
        }

    def key_of(self, call: ToolUse, *judge: str) -> bytes:
        """Return what stands for a call in this context before this judge: the same for another one that is the same.

        The context is the settings, the user's words and all other calls that may have changed something.
        """
        own = digest(call.name, call.input)
        return digest(list(judge), self.settings, self._words_digest, sorted(self._calls - {own}), own)
