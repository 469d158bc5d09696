"""Translate a conversation: Anthropic messages -> Chat Completions messages
(docs/spec/messages-to-chat.md#messages, #reasoning, #tool-ids).

A turn of the assistant becomes one message with its tool calls, and each result of a call a ``tool`` message, which
holds text. What it cannot hold, such as images, follows in a message of the user.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.openai.message_shape import Message, fitted, joined
from proxyd.codecs.openai.reasoning_replay import Reasoning
from proxyd.codecs.translation.content_blocks import Part, arguments_of, collapse
from proxyd.codecs.translation.conversation import (
    NO_OUTPUT,
    NO_RESULT,
    Conversation,
    ConversationReader,
    as_error,
    id_of,
    text_in,
)
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.token_estimate import call_tokens
from proxyd.codecs.translation.tools import to_upstream_name
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["to_openai_messages"]

#: Blocks that do not interrupt the text of a message: the upstream got thinking beside it.
_WITHIN_TEXT = frozenset(("text", "thinking", "redacted_thinking"))


def to_openai_messages(
    payload: dict[str, Any],
    dialect: Dialect,
    *,
    model: str,
    vision: bool,
    instructions: str | None,
    notes: Notes,
    inputs: ToolInputs,
) -> Generator[None, None, Conversation]:
    """Translate the conversation, yielding now and then: a long history would block the event loop.

    Args:
        model: the upstream's name of the model; reasoning data of another model is not sent to it.
        instructions: text to append to the system message.
        inputs: tool inputs of `payload` that were serialised before.

    Raises:
        ClientError: a message is malformed.
    """
    return (yield from _History(dialect, model, vision, notes, inputs).read(payload, instructions))


@dataclass(slots=True)
class _AssistantTurn:
    """One turn of the assistant while its blocks are read.

    Args:
        parts: its content.
        ends_with_text: the block before was text, perhaps followed by thinking: a text block continues it.
        client_ids: the client's ids of `calls`.
        summary: parts of compaction blocks, which the upstream gets as the user's.
        reasoning: None as long as there is none.
    """

    parts: list[Part] = field(default_factory=list)
    ends_with_text: bool = False
    calls: list[dict[str, Any]] = field(default_factory=list)
    client_ids: list[str] = field(default_factory=list)
    summary: list[Part] = field(default_factory=list)
    reasoning: Reasoning | None = None


class _History(ConversationReader):
    """Builds the upstream's messages turn by turn."""

    def __init__(self, dialect: Dialect, model: str, vision: bool, notes: Notes, inputs: ToolInputs) -> None:
        super().__init__(dialect, vision, notes, inputs)
        self._model = model
        #: Whether the upstream wants a placeholder where a turn has no reasoning.
        self._needs_reasoning = dialect.thought_signatures or dialect.reasoning_placeholder is not None
        self._messages: list[Message] = []
        #: Upstream id of a call -> the name of its tool, where results name it.
        self._names: dict[str, str] = {}

    def _finish(self) -> list[Message]:
        """Return the messages, fitted to the upstream's template."""
        return fitted(self._messages, self._dialect, self._notes)

    # -- the assistant

    def _add_assistant_turn(self, messages: list[Any], start: int) -> None:
        turn = _AssistantTurn()
        for number, message in enumerate(messages, start):
            content = message.get("content")
            turn.ends_with_text = False
            if not isinstance(content, list):
                turn.parts += self._text_parts(text_in(content, number))
                continue
            for position, block in enumerate(content):
                kind = block.get("type") if isinstance(block, dict) else None
                if kind not in _WITHIN_TEXT:
                    turn.ends_with_text = False
                read = _ASSISTANT_READERS.get(kind) if isinstance(kind, str) else None
                (read or _History._read_other)(self, turn, block, f"messages.{number}.content.{position}")
        self._finish_assistant_turn(turn)

    def _read_text(self, turn: _AssistantTurn, block: dict[str, Any], path: str) -> None:
        text = block.get("text")
        parts = self._text_parts(text, block.get("cache_control"))
        if turn.ends_with_text and isinstance(text, str):
            last = turn.parts[-1]
            turn.parts[-1] = {**last, **(parts[0] if parts else {}), "text": last["text"] + text}
        elif parts:
            turn.parts += parts
            turn.ends_with_text = True

    def _read_thinking(self, turn: _AssistantTurn, block: dict[str, Any], path: str) -> None:
        self._count(block)
        if turn.reasoning is None:
            turn.reasoning = Reasoning(self._model)
        turn.reasoning.add(block)

    def _read_redacted_thinking(self, turn: _AssistantTurn, block: dict[str, Any], path: str) -> None:
        self._count(block)
        self._notes.add(path, "dropped", "only Anthropic's servers can read it")

    def _read_misplaced_result(self, turn: _AssistantTurn, block: dict[str, Any], path: str) -> None:
        self._count(block)
        turn.parts += self._result_without_call(block, path)

    def _read_compaction(self, turn: _AssistantTurn, block: dict[str, Any], path: str) -> None:
        # It summarises what both sides said; as a message of the assistant the model would imitate it.
        self._count(block)
        turn.summary += self._blocks.block(block, path)

    def _read_other(self, turn: _AssistantTurn, block: Any, path: str) -> None:
        self._count(block)
        turn.parts += self._blocks.block(block, path)

    def _read_tool_use(self, turn: _AssistantTurn, block: dict[str, Any], path: str) -> None:
        client_id, name, value = id_of(block.get("id")), block.get("name"), block.get("input")
        written = self._inputs.as_json(value)
        self.tokens += call_tokens(name, value, written)
        upstream_ids = self._open_calls.setdefault(client_id, [])
        upstream_id = self._ids.of(client_id, is_repeated=bool(upstream_ids))
        upstream_ids.append(upstream_id)
        function = {
            "name": to_upstream_name(name, self._dialect),
            "arguments": arguments_of(value) if written is None else written,
        }
        if self._dialect.tool_message_names:
            self._names[upstream_id] = function["name"]
        turn.client_ids.append(client_id)
        turn.calls.append({"id": upstream_id, "type": "function", "function": function})

    def _finish_assistant_turn(self, turn: _AssistantTurn) -> None:
        if turn.summary:
            self._add_message("user", turn.summary)
        parts = [part for part in turn.parts if part["type"] == "text"]
        if len(parts) < len(turn.parts):
            self._notes.add("messages[].content[]", "dropped", "an assistant message holds text only")
        if not parts and not turn.calls:
            return
        message: Message = {"role": "assistant", "content": collapse(parts) if parts else None}
        if turn.calls:
            message["tool_calls"] = turn.calls
        if turn.reasoning is not None or self._needs_reasoning:
            reasoning = turn.reasoning or Reasoning(self._model)
            reasoning.write_to(message, turn.client_ids, self._dialect, self._notes)
        self._messages.append(message)

    # -- the user

    def _add_message(self, role: str, parts: list[Part]) -> None:
        """Add a message; one of the user right after a tool message joins it where the template wants that."""
        content = collapse(parts)
        last = self._messages[-1] if self._messages else None
        joins = self._dialect.text_after_tool_joins_it and role == "user"
        if joins and last is not None and last["role"] == "tool":
            last["content"] = joined(last["content"], content)
        else:
            self._messages.append({"role": role, "content": content})

    def _add_result(self, block: dict[str, Any], upstream_id: str, path: str) -> list[Part]:
        held, lifted = self._result_parts(block, path)
        if lifted:
            kind = "Image" if lifted[0]["type"] == "image_url" else "Document"
            lifted.insert(0, {"type": "text", "text": f"{kind} from tool call {upstream_id}:"})
        content = collapse(held, "\n")
        self._messages.append(self._tool_message(upstream_id, content))
        return lifted

    def _add_missing_result(self, upstream_id: str) -> None:
        self._messages.append(self._tool_message(upstream_id, NO_RESULT))

    def _tool_message(self, upstream_id: str, content: str | list[Part]) -> Message:
        message: Message = {"role": "tool", "tool_call_id": upstream_id}
        if upstream_id in self._names:
            message["name"] = self._names[upstream_id]
        message["content"] = content
        return message

    def _parts_of_result(self, block: dict[str, Any], path: str) -> list[Part]:
        held, lifted = self._result_parts(block, path)
        return [*held, *lifted]

    def _result_parts(self, block: dict[str, Any], path: str) -> tuple[list[Part], list[Part]]:
        """Split a tool result into the parts that a tool message can hold and those that it cannot."""
        held: list[Part] = []
        lifted: list[Part] = []
        for part in self._blocks.parts(block.get("content"), f"{path}.content"):
            is_held = part["type"] == "text" or (
                part["type"] == "image_url" and self._dialect.images_in_tool_results
            )
            (held if is_held else lifted).append(part)
        if not held:
            held = self._blocks.text("(shown below)" if lifted else NO_OUTPUT)
        if block.get("is_error") is True and held[0]["type"] == "text":
            held[0] = {**held[0], "text": as_error(held[0]["text"])}
        if self._dialect.cache_control and isinstance(block.get("cache_control"), dict):
            held[-1] = {**held[-1], "cache_control": deepcopy(block["cache_control"])}
        return held, lifted


#: Reader of an assistant's block, by its type; `_History._read_other` reads the rest.
_ASSISTANT_READERS: Mapping[str, Callable[[_History, _AssistantTurn, dict[str, Any], str], None]] = {
    "text": _History._read_text,
    "tool_use": _History._read_tool_use,
    "thinking": _History._read_thinking,
    "redacted_thinking": _History._read_redacted_thinking,
    "tool_result": _History._read_misplaced_result,
    "compaction": _History._read_compaction,
}
