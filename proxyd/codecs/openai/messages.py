"""The conversation: Anthropic messages -> Chat Completions messages
(docs/spec/messages-to-chat.md#messages, #reasoning, #tool-ids).

The conversation is read in turns, as Anthropic's servers read it: neighbouring assistant messages are one
turn, and so are neighbouring user and system messages. OpenAI wants each tool call answered directly after
the message that made it, so one turn of the user becomes, in this order:

1. a ``tool`` message per result that answers a call of the assistant's turn before;
2. a made-up ``tool`` message per call that was left without a result;
3. everything else in its order: system messages, and user messages with what tool messages cannot hold, such
as
   images, and with the results that answer nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from copy import deepcopy
from operator import itemgetter
from typing import Any, NamedTuple

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.openai.content_blocks import Blocks, Part, arguments_of, collapse
from proxyd.codecs.openai.dialect import Dialect
from proxyd.codecs.openai.messages_fast import Message, UsualHistory, as_error
from proxyd.codecs.openai.reasoning_replay import Reasoning
from proxyd.codecs.openai.token_estimate import (
    TOKENS_PER_MESSAGE,
    block_tokens,
    call_tokens,
    content_tokens,
    text_tokens,
)
from proxyd.codecs.openai.tools import to_upstream_name
from proxyd.codecs.openai.translation_notes import Notes
from proxyd.errors import ClientError

__all__ = ["Conversation", "to_openai_messages"]

#: First words of the system block in which Claude Code names its version. Its hash changes between
#: conversations, and ahead of everything else it would defeat the upstream's prefix cache.
ATTRIBUTION = "x-anthropic-billing-header:"

#: Messages between two steps: some milliseconds' work.
_STEP_MESSAGES = 256

_ROLES = frozenset(("user", "assistant", "system"))
_ROLE = itemgetter("role")

NO_OUTPUT = "(no output)"
NO_RESULT = "(no result: interrupted)"


class Conversation(NamedTuple):
    """A conversation as the upstream is given it.

    Attributes:
        messages: those of the upstream request.
        tool_ids: the client's ids of all tool calls in it.
        tokens: the estimate of system, messages and blocks (`proxyd.codecs.openai.token_estimate`), without tools.
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
    """The conversation of the upstream request, made in steps: a long history takes longer than a loop may be held.

    Args:
        model: the upstream's name of the model; reasoning data of another one is not sent to it.
        instructions: text to be added to the system message.
        inputs: those of `payload`, as far as they have been written.

    Raises:
        ClientError: a message is not a message at all.
    """
    history = _History(dialect, model, vision, notes, inputs)
    history.system(payload.get("system"), instructions)
    yield from history.turns(payload["messages"])
    return Conversation(history.finish(), history.tool_ids, history.tokens)


class _History(UsualHistory):
    """Each block is counted where it is met, whatever becomes of it.

    Nearly all of a long history are turns that `openai_usual` knows. They take its short way; anything else in a turn
    sends it the long way.
    """

    def __init__(self, dialect: Dialect, model: str, vision: bool, notes: Notes, inputs: ToolInputs) -> None:
        super().__init__(dialect, inputs)
        self._model = model
        self._notes = notes
        self._blocks = Blocks(dialect, vision, notes)
        #: Whether the upstream wants something in its place where there is none.
        self._needs_reasoning = dialect.thought_signatures or dialect.reasoning_placeholder is not None
        self._last_user = -1  # number of the last message of the user's

    @property
    def tool_ids(self) -> Collection[str]:
        return self._ids.client_ids

    def system(self, system: Any, instructions: str | None) -> None:
        parts: list[Part] = []
        self.tokens += content_tokens(system, self._inputs)
        if isinstance(system, list):
            for number, block in enumerate(system):
                if _is_attribution(block):
                    self._notes.add(
                        f"system.{number}", "dropped", "Claude Code's attribution, noise upstream"
                    )
                else:
                    parts += self._blocks.block(block, f"system.{number}")
        elif isinstance(system, str):
            if system.startswith(ATTRIBUTION):
                self._notes.add("system", "lost its first line", "Claude Code's attribution, noise upstream")
                system = system.partition("\n")[2]
            parts = self._blocks.text(system)
        elif system is not None:
            kind = type(system).__name__
            raise ClientError(f"system: expected a string or an array of text blocks, got {kind}; send one")
        parts = [part for part in parts if part["type"] == "text"]
        if instructions:
            parts += self._blocks.text(instructions)
        if parts:
            self._messages.append({"role": self._dialect.system_role, "content": collapse(parts)})

    def turns(self, messages: list[Any]) -> Generator[None, None, None]:
        roles = _roles(messages)
        if "user" in roles:
            self._last_user = len(roles) - 1 - roles[::-1].index("user")
        self.tokens += TOKENS_PER_MESSAGE * len(messages)
        start, step, total = 0, _STEP_MESSAGES, len(messages)
        while start < total:
            if start >= step:
                step = start + _STEP_MESSAGES
                yield
            is_assistant, end = roles[start] == "assistant", start + 1
            while end < total and (roles[end] == "assistant") is is_assistant:
                end += 1
            if end - start > 1 or not self._short_way(messages[start]):
                turn = messages[start:end]
                if is_assistant:
                    self._assistant_turn(turn, start)
                else:
                    self._user_turn(turn, start)
            start = end
        self._answer_the_rest()

    def finish(self) -> list[Message]:
        """The messages, made to fit the upstream's template."""
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
            messages = _in_turns(messages)
        last = messages[-1]
        if last["role"] == "assistant" and self._dialect.prefill_message:
            last.update(self._dialect.prefill_message)
        return messages

    def _short_way(self, message: dict[str, Any]) -> bool:
        """Deal with a turn of one message, if it is as nearly all are; else nothing has happened."""
        content = message.get("content")
        if not isinstance(content, list):
            return False
        role = message["role"]
        if role == "assistant":
            return not self._needs_reasoning and self._usual_assistant(content)
        texts = self._usual_user(content) if role == "user" else None
        if texts is None:
            return False
        if self._awaited:
            self._answer_the_rest()
        if texts:
            self._go_on([{"role": "user", "content": "\n\n".join(texts)}])
        return True

    # -- the assistant

    def _assistant_turn(self, turn: list[Any], start: int) -> None:
        parts: list[Part] = []
        uses: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        summary: list[Part] = []
        reasoning: Reasoning | None = None
        is_text = True
        for number, message in enumerate(turn, start):
            content = message.get("content")
            if not isinstance(content, list):
                parts += self._said(_text_in(content, number))
                continue
            for position, block in enumerate(content):
                kind = block.get("type") if isinstance(block, dict) else None
                if kind == "text":
                    parts += self._said(block.get("text"), block.get("cache_control"))
                    continue
                if kind == "tool_use":
                    uses.append(block)
                    calls.append(self._call(block))
                    continue
                self._count(block)
                if kind == "thinking":
                    reasoning = reasoning or Reasoning(self._model)
                    reasoning.add(block)
                    continue
                is_text = False
                path = f"messages.{number}.content.{position}"
                if kind == "redacted_thinking":
                    self._notes.add(path, "dropped", "only Anthropic's servers can read it")
                elif kind == "tool_result":
                    parts += self._result_without_call(block, path)
                elif kind == "compaction":
                    # The summary stands for what both said before; as the assistant's words it would be
                    # imitated.
                    summary += self._blocks.block(block, path)
                else:
                    parts += self._blocks.block(block, path)
        if summary:
            self._go_on([{"role": "user", "content": collapse(summary)}])
        if not is_text:
            texts = [part for part in parts if part["type"] == "text"]
            if len(texts) < len(parts):
                self._notes.add("messages[].content[]", "dropped", "an assistant message holds text only")
            parts = texts
        if not parts and not calls:
            return
        message = {"role": "assistant", "content": collapse(parts) if parts else None}
        if calls:
            message["tool_calls"] = calls
        if reasoning is not None or self._needs_reasoning:
            reasoning = reasoning or Reasoning(self._model)
            client_ids = [_id_of(block.get("id")) for block in uses]
            reasoning.give_back(message, client_ids, self._dialect, self._notes)
        self._messages.append(message)

    def _call(self, block: dict[str, Any]) -> dict[str, Any]:
        client_id, name, value = _id_of(block.get("id")), block.get("name"), block.get("input")
        written = self._inputs.as_json(value)
        self.tokens += call_tokens(name, value, written)
        awaited = self._awaited.get(client_id)
        if awaited is None:
            upstream_id = self._ids.of(client_id)
            self._awaited[client_id] = [upstream_id]
        else:
            upstream_id = self._ids.of(client_id, is_repeated=True)
            awaited.append(upstream_id)
        return {
            "id": upstream_id,
            "type": "function",
            "function": {
                "name": to_upstream_name(name, self._dialect),
                "arguments": arguments_of(value) if written is None else written,
            },
        }

    # -- both

    def _said(self, text: Any, cache_control: Any = None) -> list[Part]:
        """The parts of a text, which is counted."""
        if isinstance(text, str):
            self.tokens += text_tokens(text)
        return self._blocks.text(text, cache_control)

    def _count(self, block: Any) -> None:
        if isinstance(block, dict):
            self.tokens += block_tokens(block, self._inputs)

    # -- the user

    def _user_turn(self, turn: list[Any], start: int) -> None:
        following: list[Message] = []
        for number, message in enumerate(turn, start):
            content = message.get("content")
            if message["role"] == "user":
                role = "user"
                if isinstance(content, list):
                    parts = self._user_parts(content, number)
                else:
                    parts = self._said(_text_in(content, number))
            else:
                self.tokens += content_tokens(content, self._inputs)
                if message.get("clear_at") == "next_user_message" and number < self._last_user:
                    self._notes.add(f"messages.{number}", "dropped", "it was to be seen for one turn only")
                    continue
                role = "user" if self._dialect.leading_system_only else self._dialect.system_role
                parts = self._system_parts(content, number)
            if parts:
                following.append({"role": role, "content": collapse(parts)})
        if self._awaited:
            self._answer_the_rest()
        if following:
            self._go_on(following)

    def _go_on(self, following: list[Message]) -> None:
        """Add messages; what the user says directly behind a tool message joins it where the template wants that."""
        if self._dialect.text_after_tool_joins_it and self._messages and self._messages[-1]["role"] == "tool":
            while following and following[0]["role"] == "user":
                tool = self._messages[-1]
                tool["content"] = _joined(tool["content"], following.pop(0)["content"])
        self._messages += following

    def _user_parts(self, content: list[Any], number: int) -> list[Part]:
        """What follows the tool messages, which are sent on the way."""
        parts: list[Part] = []
        for position, block in enumerate(content):
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "text":
                parts += self._said(block.get("text"), block.get("cache_control"))
                continue
            if kind != "tool_result":
                self._count(block)
                parts += self._blocks.block(block, f"messages.{number}.content.{position}")
                continue
            self.tokens += TOKENS_PER_MESSAGE + content_tokens(block.get("content"), self._inputs)
            client_id = _id_of(block.get("tool_use_id"))
            awaited = self._awaited.get(client_id)
            if not awaited:
                parts += self._result_without_call(block, f"messages.{number}.content.{position}")
                continue
            upstream_id = awaited.pop(0)
            if not awaited:
                del self._awaited[client_id]
            parts += self._answer(block, upstream_id, f"messages.{number}.content.{position}")
        return parts

    def _system_parts(self, content: Any, number: int) -> list[Part]:
        path = f"messages.{number}.content"
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

    def _answer(self, block: dict[str, Any], upstream_id: str, path: str) -> list[Part]:
        """Send the tool message for one result; what it cannot hold is returned."""
        held, lifted = self._result_parts(block, path)
        if lifted:
            kind = "Image" if lifted[0]["type"] == "image_url" else "Document"
            lifted.insert(0, {"type": "text", "text": f"{kind} from tool call {upstream_id}:"})
        content = collapse(held, "\n")
        self._messages.append({"role": "tool", "tool_call_id": upstream_id, "content": content})
        return lifted

    def _result_parts(self, block: dict[str, Any], path: str) -> tuple[list[Part], list[Part]]:
        """The parts of a tool result that a tool message can hold, and those that it cannot."""
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

    def _result_without_call(self, block: dict[str, Any], path: str) -> list[Part]:
        self._notes.add(path, "became text", "the call it answers is not in the message before")
        held, lifted = self._result_parts(block, path)
        return [*self._blocks.text("Result of an earlier tool call:"), *held, *lifted]

    def _answer_the_rest(self) -> None:
        for upstream_ids in self._awaited.values():
            for upstream_id in upstream_ids:
                self._notes.add("messages", "got a tool result", "a tool call has none")
                self._messages.append({"role": "tool", "tool_call_id": upstream_id, "content": NO_RESULT})
        self._awaited.clear()


def _roles(messages: list[Any]) -> list[str]:
    """The role of each message.

    Raises:
        ClientError: one is no message. The history is never refused for its blocks, but this is not a history.
    """
    try:
        roles = list(map(_ROLE, messages))
        if _ROLES.issuperset(roles):
            return roles
    except (TypeError, KeyError):
        pass  # it is not even an object, has no role, or one that is no word
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            kind = type(message).__name__
            raise ClientError(f"messages.{number}: expected an object, got {kind}; send role and content")
        if not isinstance(message.get("role"), str) or message["role"] not in _ROLES:
            break
    raise ClientError(f"messages.{number}.role: expected user, assistant or system; send one of these")


def _text_in(content: Any, number: int) -> str | None:
    """The content of a message that is no list of blocks.

    Raises:
        ClientError: it is nothing else that a message may hold.
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


def _in_turns(messages: list[Message]) -> list[Message]:
    """User messages in a row merged, and those of the assistant kept apart: what the user said in between was
    blank."""
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
