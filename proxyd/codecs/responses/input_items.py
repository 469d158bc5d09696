"""Translate a conversation: Anthropic messages -> input items of the Responses API (docs/spec/responses.md#request).

Blocks of the assistant become items in their order: OpenAI refuses a reasoning item without the item that it led to,
and an item without its reasoning (docs/spec/responses.md#item-order). No item has an id, since with ``store: false``
the server looks for it in vain (docs/spec/responses.md#no-ids).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from proxyd.codecs.anthropic.thinking_signature import Signature, decode_signature
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.content_blocks import Part, arguments_of, is_blank
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
from proxyd.codecs.translation.translated import hex_digest
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["to_input_items"]

#: Most explicit cache breakpoints of one request (docs/spec/responses.md#cache).
_MAX_BREAKPOINTS = 4

#: One input item.
InputItem = dict[str, Any]


def to_input_items(
    payload: dict[str, Any],
    dialect: Dialect,
    *,
    model: str,
    vision: bool,
    instructions: str | None,
    is_refused: Callable[[str], bool],
    notes: Notes,
    inputs: ToolInputs,
) -> Generator[None, None, Conversation]:
    """Translate the conversation, yielding now and then: a long history would block the event loop.

    Args:
        model: the upstream's name of the model; reasoning of another model is not sent to it.
        instructions: text to append to the instructions.
        is_refused: whether the upstream has refused this encrypted reasoning.
        inputs: tool inputs of `payload` that were serialised before.

    Raises:
        ClientError: a message is malformed.
    """
    return (
        yield from _History(dialect, model, vision, is_refused, notes, inputs).read(payload, instructions)
    )


class _History(ConversationReader):
    """Builds the input items turn by turn."""

    def __init__(
        self,
        dialect: Dialect,
        model: str,
        vision: bool,
        is_refused: Callable[[str], bool],
        notes: Notes,
        inputs: ToolInputs,
    ) -> None:
        super().__init__(dialect, vision, notes, inputs)
        self._model = model
        self._is_refused = is_refused
        self._items: list[InputItem] = []

    def _finish(self) -> list[InputItem]:
        """Return the items, fitted to what the upstream takes."""
        items = self._items
        first = next((n for n, item in enumerate(items) if not _is_instruction(item)), None)
        if first is None:
            self._notes.add("messages", "got a user message", "no message has any content")
            self._add_message("user", self._blocks.text("(no content)"))
        elif self._dialect.strict_alternation and items[first].get("role") != "user":
            self._notes.add(
                "messages", "got a user message at the start", "the upstream's template wants one"
            )
            items.insert(first, _message("user", [_text("(the conversation goes on)")]))
        if self._dialect.cache_control:
            self._limit_breakpoints()
        return items

    def _limit_breakpoints(self) -> None:
        """Keep the last breakpoints, as many as a request may have."""
        marked = [part for item in self._items for part in _parts_in(item) if _BREAKPOINT in part]
        for part in marked[:-_MAX_BREAKPOINTS]:
            del part[_BREAKPOINT]

    # -- the assistant

    def _add_assistant_turn(self, messages: list[Any], start: int) -> None:
        begin = len(self._items)
        for number, message in enumerate(messages, start):
            content = message.get("content")
            path = f"messages.{number}.content"
            if not isinstance(content, list):
                self._add_answer(self._text_parts(text_in(content, number)), path)
                continue
            for position, block in enumerate(content):
                self._add_block(block, f"{path}.{position}")
        while len(self._items) > begin and self._items[-1]["type"] == "reasoning":
            self._items.pop()
            self._notes.add("messages[].content[].thinking", "dropped", "nothing follows it in its turn")
        if self._dialect.message_phases:
            _set_phases(self._items[begin:])

    def _add_block(self, block: Any, path: str) -> None:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            self._add_answer(self._text_parts(block.get("text")), path)
        elif kind == "tool_use":
            self._add_call(block)
        elif kind in ("thinking", "redacted_thinking"):
            self._count(block)
            self._add_reasoning(block, path)
        else:
            self._count(block)
            if kind == "tool_result":
                self._add_answer(self._result_without_call(block, path), path)
            elif kind == "compaction":
                # It summarises what both sides said; as a message of the assistant the model would imitate it.
                if parts := self._blocks.block(block, path):
                    self._add_message("user", parts)
            else:
                self._add_answer(self._blocks.block(block, path), path)

    def _add_answer(self, parts: list[Part], path: str) -> None:
        texts = [part["text"] for part in parts if part["type"] == "text"]
        if len(texts) < len(parts):
            self._notes.add(path, "dropped", "an assistant message holds text only")
        if texts:
            self._items.append({"type": "message", "role": "assistant", "content": "\n\n".join(texts)})

    def _add_call(self, block: dict[str, Any]) -> None:
        client_id, name, value = id_of(block.get("id")), block.get("name"), block.get("input")
        written = self._inputs.as_json(value)
        self.tokens += call_tokens(name, value, written)
        upstream_ids = self._open_calls.setdefault(client_id, [])
        upstream_id = self._ids.of(client_id, is_repeated=bool(upstream_ids))
        upstream_ids.append(upstream_id)
        self._items.append(
            {
                "type": "function_call",
                "call_id": upstream_id,
                "name": to_upstream_name(name, self._dialect),
                "arguments": arguments_of(value) if written is None else written,
            }
        )

    def _add_reasoning(self, block: dict[str, Any], path: str) -> None:
        is_redacted = block.get("type") == "redacted_thinking"
        encoded = block.get("data" if is_redacted else "signature")
        signature = decode_signature(encoded) if isinstance(encoded, str) else None
        text = "" if is_redacted else block.get("thinking")
        text = text if isinstance(text, str) else ""
        if signature is None or signature.model != self._model:
            self._notes.add(path, "dropped", "only the model that wrote it can read it")
            return
        item = self._reasoning_item(signature, text)
        if isinstance(item, str):
            self._notes.add(path, "dropped", item)
            return
        phase = signature.response_item.get("phase")
        if phase and self._dialect.message_phases:
            item[_PHASE] = phase  # moved to the message that follows
        self._items.append(item)

    def _reasoning_item(self, signature: Signature, text: str) -> InputItem | str:
        """Return the item of reasoning of this model, or the reason why there is none."""
        encrypted, style = signature.response_item.get("encrypted_content"), self._dialect.reasoning_items
        item: InputItem = {"type": "reasoning", "summary": []}
        if style == "content":
            if is_blank(text):
                return "there is no text in it"
            item["content"] = [{"type": "reasoning_text", "text": text}]
        elif style == "none":
            return "the upstream takes no reasoning back"
        elif not encrypted:
            return "the upstream sent no encrypted content with it"
        elif self._is_refused(encrypted):
            return "the upstream could not read it"
        else:
            if text and signature.source != "content":
                item["summary"] = [{"type": "summary_text", "text": text}]
            item["encrypted_content"] = encrypted
        if self._dialect.reasoning_item_ids:
            item = {"type": "reasoning", "id": f"rs_{hex_digest(encrypted or text)[:48]}", **item}
        return item

    # -- the user

    def _add_message(self, role: str, parts: list[Part]) -> None:
        content = self._content_of(parts)
        last = self._items[-1] if self._items else None
        is_neighbour = last is not None and last.get("role") == role == "user"
        if last is not None and is_neighbour and self._dialect.strict_alternation:
            last["content"] = self._joined([*last["content"], *content])
        else:
            self._items.append(_message(role, content))

    def _add_result(self, block: dict[str, Any], upstream_id: str, path: str) -> list[Part]:
        held: list[Part] = []
        lifted: list[Part] = []
        for part in self._blocks.parts(block.get("content"), f"{path}.content"):
            is_held = part["type"] == "text" or self._dialect.images_in_tool_results
            (held if is_held else lifted).append(part)
        if not held:
            held = self._blocks.text("(shown below)" if lifted else NO_OUTPUT)
        if block.get("is_error") is True:
            if held[0]["type"] == "text":
                held[0] = {**held[0], "text": as_error(held[0]["text"])}
            else:
                held.insert(0, {"type": "text", "text": "Error:"})
        if self._dialect.cache_control and isinstance(block.get("cache_control"), dict):
            held[-1] = {**held[-1], "cache_control": True}
        if lifted:
            kind = "Image" if lifted[0]["type"] == "image_url" else "Document"
            lifted.insert(0, {"type": "text", "text": f"{kind} from tool call {upstream_id}:"})
        is_text = all(part["type"] == "text" and "cache_control" not in part for part in held)
        output = "\n".join([part["text"] for part in held]) if is_text else [_part(part) for part in held]
        self._items.append({"type": "function_call_output", "call_id": upstream_id, "output": output})
        return lifted

    def _add_missing_result(self, upstream_id: str) -> None:
        self._items.append({"type": "function_call_output", "call_id": upstream_id, "output": NO_RESULT})

    def _parts_of_result(self, block: dict[str, Any], path: str) -> list[Part]:
        parts = self._blocks.parts(block.get("content"), f"{path}.content") or self._blocks.text(NO_OUTPUT)
        if block.get("is_error") is True and parts[0]["type"] == "text":
            parts[0] = {**parts[0], "text": as_error(parts[0]["text"])}
        return parts

    def _content_of(self, parts: list[Part]) -> list[dict[str, Any]]:
        return self._joined([_part(part) for part in parts])

    def _joined(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Join neighbouring texts: some servers join them without anything in between.

        With breakpoints they stay apart, since a breakpoint moves from turn to turn, and the texts before it must not
        change.
        """
        if self._dialect.cache_control or len(parts) == 1:
            return parts
        joined: list[dict[str, Any]] = []
        for part in parts:
            if joined and part["type"] == joined[-1]["type"] == "input_text":
                joined[-1] = _text(f"{joined[-1]['text']}\n\n{part['text']}")
            else:
                joined.append(part)
        return joined


_BREAKPOINT = "prompt_cache_breakpoint"
#: Key of a reasoning item while its turn is read: the phase of the message that follows it.
_PHASE = "phase"


def _message(role: str, content: list[dict[str, Any]]) -> InputItem:
    return {"type": "message", "role": role, "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _part(part: Part) -> dict[str, Any]:
    """Return a content part as the Responses API has it."""
    kind = part["type"]
    if kind == "image_url":
        made = {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
    elif kind == "file":
        made = {"type": "input_file", **part["file"]}
    else:
        made = _text(part["text"])
    if part.get("cache_control"):
        made[_BREAKPOINT] = {"mode": "explicit"}
    return made


def _parts_in(item: InputItem) -> list[dict[str, Any]]:
    content = item.get("output" if item["type"] == "function_call_output" else "content")
    return content if isinstance(content, list) else []


def _is_instruction(item: InputItem) -> bool:
    return item.get("role") in ("system", "developer")


def _set_phases(items: list[InputItem]) -> None:
    """Set the phase of the messages of one turn: that of the signature before them, or what their place says.

    No field of the client holds it: text before a call is commentary, text without one is the final answer
    (docs/spec/responses.md#phase).
    """
    calls = [number for number, item in enumerate(items) if item["type"] == "function_call"]
    last_call = calls[-1] if calls else -1
    known: str | None = None
    for number, item in enumerate(items):
        if item["type"] == "reasoning":
            known = item.pop(_PHASE, None)
        elif item["type"] == "message" and item["role"] == "assistant":
            item["phase"] = known or ("commentary" if number < last_call else "final_answer")
            known = None
        else:
            known = None
