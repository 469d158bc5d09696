"""Read the conversation of a Messages request, for translations to any upstream dialect
(docs/spec/messages-to-chat.md#messages, #tool-ids).

The conversation is read in turns, as Anthropic's servers read it: neighbouring assistant messages are one turn, and so
are neighbouring user and system messages. Upstreams want each tool call followed directly by its result, so one turn of
the user becomes, in this order:

1. the results of calls in the assistant's turn before;
2. a placeholder result per call without one;
3. everything else in its order: system messages, and user messages with what results cannot hold, and with the results
   that belong to no call.

A subclass writes what is read in the upstream's form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator
from operator import itemgetter
from typing import Any, NamedTuple

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.content_blocks import Blocks, Part
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.token_estimate import (
    TOKENS_PER_MESSAGE,
    block_tokens,
    content_tokens,
    text_tokens,
)
from proxyd.codecs.translation.tool_ids import UpstreamIds
from proxyd.codecs.translation.translation_notes import Notes
from proxyd.errors import ClientError

__all__ = [
    "ATTRIBUTION",
    "NO_OUTPUT",
    "NO_RESULT",
    "Conversation",
    "ConversationReader",
    "as_error",
    "id_of",
    "text_in",
]

#: Beginning of the system block in which Claude Code names its version. Its hash changes between
#: conversations, and at the start of the prompt it would defeat the upstream's prefix cache.
ATTRIBUTION = "x-anthropic-billing-header:"

#: Messages translated between two yields: a few milliseconds of work.
_STEP_MESSAGES = 256

_ROLES = frozenset(("user", "assistant", "system"))
_ROLE = itemgetter("role")

NO_OUTPUT = "(no output)"
NO_RESULT = "(no result: interrupted)"


class Conversation(NamedTuple):
    """The conversation of an upstream request.

    Attributes:
        items: messages or items, in the upstream's form.
        tool_ids: the client's ids of all tool calls.
        tokens: the estimate of system, messages and blocks (`proxyd.codecs.translation.token_estimate`), without tools.
    """

    items: list[dict[str, Any]]
    tool_ids: Collection[str]
    tokens: int


class ConversationReader(ABC):
    """Reads the conversation turn by turn.

    Each block is counted where it is read, whatever becomes of it.

    Attributes:
        tokens: the estimate of what was read so far.
    """

    def __init__(self, dialect: Dialect, vision: bool, notes: Notes, inputs: ToolInputs) -> None:
        self.tokens = 0
        self._dialect = dialect
        self._notes = notes
        self._inputs = inputs
        self._blocks = Blocks(dialect, vision, notes)
        self._ids = UpstreamIds(dialect.tool_id_style)
        self._last_user = -1  # index of the user's last message
        #: Calls of the assistant's last turn without a result: client id -> upstream ids, in order.
        self._open_calls: dict[str, list[str]] = {}

    def read(self, payload: dict[str, Any], instructions: str | None) -> Generator[None, None, Conversation]:
        """Read the whole conversation, yielding now and then: a long history would block the event loop.

        Args:
            instructions: text to append to the system prompt.

        Raises:
            ClientError: a message is malformed.
        """
        self._add_system(payload.get("system"), instructions)
        yield from self._add_turns(payload["messages"])
        return Conversation(self._finish(), self._ids.client_ids, self.tokens)

    # -- what a subclass writes

    @abstractmethod
    def _add_assistant_turn(self, messages: list[Any], start: int) -> None:
        """Add a turn of the assistant; `start` is the number of its first message."""

    @abstractmethod
    def _add_message(self, role: str, parts: list[Part]) -> None:
        """Add a message of the user, or one with instructions; `parts` is not empty."""

    @abstractmethod
    def _add_result(self, block: dict[str, Any], upstream_id: str, path: str) -> list[Part]:
        """Add the result of a call, and return the parts that it cannot hold."""

    @abstractmethod
    def _add_missing_result(self, upstream_id: str) -> None:
        """Add a placeholder for the result of a call that has none."""

    @abstractmethod
    def _parts_of_result(self, block: dict[str, Any], path: str) -> list[Part]:
        """Return the content of a result that belongs to no call."""

    @abstractmethod
    def _finish(self) -> list[dict[str, Any]]:
        """Return what was written, fitted to what the upstream takes."""

    def _add_system(self, system: Any, instructions: str | None) -> None:
        self.tokens += content_tokens(system, self._inputs)
        if system is not None and not isinstance(system, (str, list)):
            kind = type(system).__name__
            raise ClientError(f"system: expected a string or an array of text blocks, got {kind}; send one")
        parts = self._blocks.parts(self._without_attribution(system, "system"), "system")
        parts = [part for part in parts if part["type"] == "text"]
        if instructions:
            parts += self._blocks.text(instructions)
        if parts:
            self._add_message(self._dialect.system_role, parts)

    def _without_attribution(self, content: Any, path: str) -> Any:
        """Drop Claude Code's attribution from a system prompt or message."""
        if isinstance(content, str) and content.startswith(ATTRIBUTION):
            self._notes.add(path, "lost its first line", "Claude Code's attribution, noise upstream")
            return content.partition("\n")[2]
        if not isinstance(content, list) or not any(map(_is_attribution, content)):
            return content
        kept = list(content)
        for number, block in enumerate(content):
            if _is_attribution(block):
                kept[number] = {"type": "text", "text": ""}  # keeps the numbers of the blocks after it
                self._notes.add(f"{path}.{number}", "dropped", "Claude Code's attribution, noise upstream")
        return kept

    def _add_turns(self, messages: list[Any]) -> Generator[None, None, None]:
        roles = _roles(messages)
        if "user" in roles:
            self._last_user = len(roles) - 1 - roles[::-1].index("user")
        self.tokens += TOKENS_PER_MESSAGE * len(messages)
        start, next_yield, total = 0, _STEP_MESSAGES, len(messages)
        while start < total:
            if start >= next_yield:
                next_yield = start + _STEP_MESSAGES
                yield
            is_assistant, end = roles[start] == "assistant", start + 1
            while end < total and (roles[end] == "assistant") is is_assistant:
                end += 1
            add_turn = self._add_assistant_turn if is_assistant else self._add_user_turn
            add_turn(messages[start:end], start)
            start = end
        self._add_missing_results()

    # -- both

    def _text_parts(self, text: Any, cache_control: Any = None) -> list[Part]:
        """Count a text and return its parts."""
        if isinstance(text, str):
            self.tokens += text_tokens(text)
        return self._blocks.text(text, cache_control)

    def _count(self, block: Any) -> None:
        if isinstance(block, dict):
            self.tokens += block_tokens(block, self._inputs)

    # -- the user

    def _add_user_turn(self, turn: list[Any], start: int) -> None:
        following: list[tuple[str, list[Part]]] = []
        for number, message in enumerate(turn, start):
            content = message.get("content")
            if message["role"] == "user":
                role = "user"
                if isinstance(content, list):
                    parts = self._user_parts(content, number)
                else:
                    parts = self._text_parts(text_in(content, number))
            else:
                self.tokens += content_tokens(content, self._inputs)
                if message.get("clear_at") == "next_user_message" and number < self._last_user:
                    self._notes.add(f"messages.{number}", "dropped", "it was to be seen for one turn only")
                    continue
                role = "user" if self._dialect.leading_system_only else self._dialect.system_role
                parts = self._system_parts(content, number)
            if parts:
                following.append((role, parts))
        self._add_missing_results()
        for role, parts in following:
            self._add_message(role, parts)

    def _user_parts(self, content: list[Any], number: int) -> list[Part]:
        """Add the tool messages of a user message and return the parts that follow them."""
        parts: list[Part] = []
        for position, block in enumerate(content):
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "text":
                parts += self._text_parts(block.get("text"), block.get("cache_control"))
                continue
            path = f"messages.{number}.content.{position}"
            if kind != "tool_result":
                self._count(block)
                parts += self._blocks.block(block, path)
                continue
            self.tokens += TOKENS_PER_MESSAGE + content_tokens(block.get("content"), self._inputs)
            client_id = id_of(block.get("tool_use_id"))
            upstream_ids = self._open_calls.get(client_id)
            if not upstream_ids:
                parts += self._result_without_call(block, path)
                continue
            upstream_id = upstream_ids.pop(0)
            if not upstream_ids:
                del self._open_calls[client_id]
            parts += self._add_result(block, upstream_id, path)
        return parts

    def _system_parts(self, content: Any, number: int) -> list[Part]:
        path = f"messages.{number}.content"
        content = self._without_attribution(content, path)
        if not isinstance(content, list):
            content = text_in(content, number)
        parts = [part for part in self._blocks.parts(content, path) if part["type"] == "text"]
        if not self._dialect.leading_system_only or not parts:
            return parts
        self._notes.add(
            path, "became text of the user", "the upstream takes a system message at the start only"
        )
        text = "\n\n".join([part["text"] for part in parts])
        return self._blocks.text(f"<system-reminder>\n{text}\n</system-reminder>")

    def _result_without_call(self, block: dict[str, Any], path: str) -> list[Part]:
        self._notes.add(path, "became text", "its tool call is not in the message before")
        return [*self._blocks.text("Result of an earlier tool call:"), *self._parts_of_result(block, path)]

    def _add_missing_results(self) -> None:
        """Add a placeholder result for each call that got none."""
        for upstream_ids in self._open_calls.values():
            for upstream_id in upstream_ids:
                self._notes.add("messages", "got a tool result", "a tool call has none")
                self._add_missing_result(upstream_id)
        self._open_calls.clear()


def _roles(messages: list[Any]) -> list[str]:
    """Return the role of each message.

    Raises:
        ClientError: one is malformed. Blocks of the history are never refused, but without roles there is no history.
    """
    try:
        roles = list(map(_ROLE, messages))
        if _ROLES.issuperset(roles):
            return roles
    except (TypeError, KeyError):
        pass  # no object, no role, or an unhashable one
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            kind = type(message).__name__
            raise ClientError(f"messages.{number}: expected an object, got {kind}; send role and content")
        if not isinstance(message.get("role"), str) or message["role"] not in _ROLES:
            break
    raise ClientError(f"messages.{number}.role: expected user, assistant or system; send one of these")


def text_in(content: Any, number: int) -> str | None:
    """Return the content of a message that is not a list of blocks.

    Raises:
        ClientError: it is not a text either.
    """
    if content is None or isinstance(content, str):
        return content
    kind = type(content).__name__
    raise ClientError(f"messages.{number}.content: expected a string or an array, got {kind}; send one")


def id_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_attribution(block: Any) -> bool:
    text = block.get("text") if isinstance(block, dict) else None
    return isinstance(text, str) and text.startswith(ATTRIBUTION)


def as_error(text: str) -> str:
    """Mark a result's text as an error: the upstream has no field for it."""
    return text if text[: len("error")].lower().startswith("error") else f"Error: {text}"
