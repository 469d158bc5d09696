"""Translate a conversation: Anthropic messages -> Chat Completions messages
(docs/spec/messages-to-chat.md#messages, #reasoning, #tool-ids).

The conversation is read in turns, as Anthropic's servers read it: neighbouring assistant messages are one
turn, and so are neighbouring user and system messages. OpenAI wants each tool call followed directly by its
result, so one turn of the user becomes, in this order:

1. a ``tool`` message per result of a call in the assistant's turn before;
2. a placeholder ``tool`` message per call without a result;
3. everything else in its order: system messages, and user messages with what tool messages cannot hold, such
   as images, and with the results that belong to no call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.openai.reasoning_replay import Reasoning
from proxyd.codecs.translation.content_blocks import Blocks, Part, arguments_of, collapse
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.token_estimate import (
    TOKENS_PER_MESSAGE,
    block_tokens,
    call_tokens,
    content_tokens,
    text_tokens,
)
from proxyd.codecs.translation.tool_ids import UpstreamIds
from proxyd.codecs.translation.tools import to_upstream_name
from proxyd.codecs.translation.translation_notes import Notes
from proxyd.errors import ClientError

__all__ = ["Conversation", "to_openai_messages"]

#: Beginning of the system block in which Claude Code names its version. Its hash changes between
#: conversations, and at the start of the prompt it would defeat the upstream's prefix cache.
ATTRIBUTION = "x-anthropic-billing-header:"

#: Messages translated between two yields: a few milliseconds of work.
_STEP_MESSAGES = 256

_ROLES = frozenset(("user", "assistant", "system"))
_ROLE = itemgetter("role")

NO_OUTPUT = "(no output)"
NO_RESULT = "(no result: interrupted)"

#: One Chat Completions message.
Message = dict[str, Any]


class Conversation(NamedTuple):
    """The conversation of an upstream request.

    Attributes:
        messages: in the upstream's format.
        tool_ids: the client's ids of all tool calls.
        tokens: the estimate of system, messages and blocks (`proxyd.codecs.translation.token_estimate`), without tools.
    """

    messages: list[Message]
    tool_ids: Collection[str]
    tokens: int


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
    history = _History(dialect, model, vision, notes, inputs)
    history.add_system(payload.get("system"), instructions)
    yield from history.add_turns(payload["messages"])
    return Conversation(history.finish(), history.tool_ids, history.tokens)


@dataclass(slots=True)
class _AssistantTurn:
    """One turn of the assistant while its blocks are read.

    Args:
        parts: its content.
        client_ids: the client's ids of `calls`.
        summary: parts of compaction blocks, which the upstream gets as the user's.
        reasoning: None as long as there is none.
    """

    parts: list[Part] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    client_ids: list[str] = field(default_factory=list)
    summary: list[Part] = field(default_factory=list)
    reasoning: Reasoning | None = None


class _History:
    """Builds the upstream's messages turn by turn.

    Each block is counted where it is read, whatever becomes of it.

    Attributes:
        tokens: the estimate of what was added so far.
    """

    def __init__(self, dialect: Dialect, model: str, vision: bool, notes: Notes, inputs: ToolInputs) -> None:
        self.tokens = 0
        self._dialect = dialect
        self._model = model
        self._notes = notes
        self._inputs = inputs
        self._blocks = Blocks(dialect, vision, notes)
        self._ids = UpstreamIds(dialect.tool_id_style)
        #: Whether the upstream wants a placeholder where a turn has no reasoning.
        self._needs_reasoning = dialect.thought_signatures or dialect.reasoning_placeholder is not None
        self._last_user = -1  # index of the user's last message
        self._messages: list[Message] = []
        #: Calls of the assistant's last turn without a result: client id -> upstream ids, in order.
        self._open_calls: dict[str, list[str]] = {}

    @property
    def tool_ids(self) -> Collection[str]:
        return self._ids.client_ids

    def add_system(self, system: Any, instructions: str | None) -> None:
        self.tokens += content_tokens(system, self._inputs)
        if system is not None and not isinstance(system, (str, list)):
            kind = type(system).__name__
            raise ClientError(f"system: expected a string or an array of text blocks, got {kind}; send one")
        parts = self._blocks.parts(self._without_attribution(system, "system"), "system")
        parts = [part for part in parts if part["type"] == "text"]
        if instructions:
            parts += self._blocks.text(instructions)
        if parts:
            self._messages.append({"role": self._dialect.system_role, "content": collapse(parts)})

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

    def add_turns(self, messages: list[Any]) -> Generator[None, None, None]:
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

    def finish(self) -> list[Message]:
        """Return the messages, fitted to the upstream's template."""
        messages = self._messages
        first = next((n for n, m in enumerate(messages) if m["role"] not in ("system", "developer")), None)
        if first is None:
            self._notes.add("messages", "got a user message", "no message has any content")
            messages.append({"role": "user", "content": "(no content)"})
        elif self._dialect.strict_alternation and messages[first]["role"] != "user":
            self._notes.add(
                "messages", "got a user message at the start", "the upstream's template wants one"
            )
            messages.insert(first, {"role": "user", "content": "(the conversation goes on)"})
        if self._dialect.strict_alternation:
            messages = _alternating(messages)
        last = messages[-1]
        if last["role"] == "assistant" and self._dialect.prefill_message:
            last.update(self._dialect.prefill_message)
        return messages

    # -- the assistant

    def _add_assistant_turn(self, messages: list[Any], start: int) -> None:
        turn = _AssistantTurn()
        for number, message in enumerate(messages, start):
            content = message.get("content")
            if not isinstance(content, list):
                turn.parts += self._text_parts(_text_in(content, number))
                continue
            for position, block in enumerate(content):
                kind = block.get("type") if isinstance(block, dict) else None
                read = _ASSISTANT_READERS.get(kind) if isinstance(kind, str) else None
                (read or _History._read_other)(self, turn, block, f"messages.{number}.content.{position}")
        self._finish_assistant_turn(turn)

    def _read_text(self, turn: _AssistantTurn, block: dict[str, Any], path: str) -> None:
        turn.parts += self._text_parts(block.get("text"), block.get("cache_control"))

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
        client_id, name, value = _id_of(block.get("id")), block.get("name"), block.get("input")
        written = self._inputs.as_json(value)
        self.tokens += call_tokens(name, value, written)
        upstream_ids = self._open_calls.setdefault(client_id, [])
        upstream_id = self._ids.of(client_id, is_repeated=bool(upstream_ids))
        upstream_ids.append(upstream_id)
        function = {
            "name": to_upstream_name(name, self._dialect),
            "arguments": arguments_of(value) if written is None else written,
        }
        turn.client_ids.append(client_id)
        turn.calls.append({"id": upstream_id, "type": "function", "function": function})

    def _finish_assistant_turn(self, turn: _AssistantTurn) -> None:
        if turn.summary:
            self._append([{"role": "user", "content": collapse(turn.summary)}])
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
        following: list[Message] = []
        for number, message in enumerate(turn, start):
            content = message.get("content")
            if message["role"] == "user":
                role = "user"
                if isinstance(content, list):
                    parts = self._user_parts(content, number)
                else:
                    parts = self._text_parts(_text_in(content, number))
            else:
                self.tokens += content_tokens(content, self._inputs)
                if message.get("clear_at") == "next_user_message" and number < self._last_user:
                    self._notes.add(f"messages.{number}", "dropped", "it was to be seen for one turn only")
                    continue
                role = "user" if self._dialect.leading_system_only else self._dialect.system_role
                parts = self._system_parts(content, number)
            if parts:
                following.append({"role": role, "content": collapse(parts)})
        self._add_missing_results()
        self._append(following)

    def _append(self, following: list[Message]) -> None:
        """Add messages; user messages right after a tool message are merged into it where the template wants that."""
        if self._dialect.text_after_tool_joins_it and self._messages and self._messages[-1]["role"] == "tool":
            while following and following[0]["role"] == "user":
                tool = self._messages[-1]
                tool["content"] = _joined(tool["content"], following.pop(0)["content"])
        self._messages += following

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
            client_id = _id_of(block.get("tool_use_id"))
            upstream_ids = self._open_calls.get(client_id)
            if not upstream_ids:
                parts += self._result_without_call(block, path)
                continue
            upstream_id = upstream_ids.pop(0)
            if not upstream_ids:
                del self._open_calls[client_id]
            parts += self._add_tool_message(block, upstream_id, path)
        return parts

    def _system_parts(self, content: Any, number: int) -> list[Part]:
        path = f"messages.{number}.content"
        content = self._without_attribution(content, path)
        if not isinstance(content, list):
            content = _text_in(content, number)
        parts = [part for part in self._blocks.parts(content, path) if part["type"] == "text"]
        if not self._dialect.leading_system_only or not parts:
            return parts
        self._notes.add(
            path, "became text of the user", "the upstream takes a system message at the start only"
        )
        text = "\n\n".join([part["text"] for part in parts])
        return self._blocks.text(f"<system-reminder>\n{text}\n</system-reminder>")

    def _add_tool_message(self, block: dict[str, Any], upstream_id: str, path: str) -> list[Part]:
        """Add the tool message of one result and return the parts that it cannot hold."""
        held, lifted = self._result_parts(block, path)
        if lifted:
            kind = "Image" if lifted[0]["type"] == "image_url" else "Document"
            lifted.insert(0, {"type": "text", "text": f"{kind} from tool call {upstream_id}:"})
        content = collapse(held, "\n")
        self._messages.append({"role": "tool", "tool_call_id": upstream_id, "content": content})
        return lifted

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
            held[0] = {**held[0], "text": _as_error(held[0]["text"])}
        if self._dialect.cache_control and isinstance(block.get("cache_control"), dict):
            held[-1] = {**held[-1], "cache_control": deepcopy(block["cache_control"])}
        return held, lifted

    def _result_without_call(self, block: dict[str, Any], path: str) -> list[Part]:
        self._notes.add(path, "became text", "its tool call is not in the message before")
        held, lifted = self._result_parts(block, path)
        return [*self._blocks.text("Result of an earlier tool call:"), *held, *lifted]

    def _add_missing_results(self) -> None:
        """Add a placeholder result for each call that got none."""
        for upstream_ids in self._open_calls.values():
            for upstream_id in upstream_ids:
                self._notes.add("messages", "got a tool result", "a tool call has none")
                self._messages.append({"role": "tool", "tool_call_id": upstream_id, "content": NO_RESULT})
        self._open_calls.clear()


#: Reader of an assistant's block, by its type; `_History._read_other` reads the rest.
_ASSISTANT_READERS: Mapping[str, Callable[[_History, _AssistantTurn, dict[str, Any], str], None]] = {
    "text": _History._read_text,
    "tool_use": _History._read_tool_use,
    "thinking": _History._read_thinking,
    "redacted_thinking": _History._read_redacted_thinking,
    "tool_result": _History._read_misplaced_result,
    "compaction": _History._read_compaction,
}


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


def _text_in(content: Any, number: int) -> str | None:
    """Return the content of a message that is not a list of blocks.

    Raises:
        ClientError: it is not a text either.
    """
    if content is None or isinstance(content, str):
        return content
    kind = type(content).__name__
    raise ClientError(f"messages.{number}.content: expected a string or an array, got {kind}; send one")


def _id_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_attribution(block: Any) -> bool:
    text = block.get("text") if isinstance(block, dict) else None
    return isinstance(text, str) and text.startswith(ATTRIBUTION)


def _as_error(text: str) -> str:
    """Mark a result's text as an error: the upstream has no field for it."""
    return text if text[: len("error")].lower().startswith("error") else f"Error: {text}"


def _alternating(messages: list[Message]) -> list[Message]:
    """Merge neighbouring user messages, and put a user message between neighbouring assistant messages, where the
    user's own was blank."""
    result: list[Message] = []
    for message in messages:
        before: Message = result[-1] if result else {"role": ""}
        if message["role"] == before["role"] == "user":
            before["content"] = _joined(before["content"], message["content"])
            continue
        if message["role"] == before["role"] == "assistant":
            result.append({"role": "user", "content": "(no content)"})
        result.append(message)
    return result


def _joined(first: str | list[Part], second: str | list[Part]) -> str | list[Part]:
    return collapse(_as_parts(first) + _as_parts(second))


def _as_parts(content: str | list[Part]) -> list[Part]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
