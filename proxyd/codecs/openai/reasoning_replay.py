"""Reasoning on its way back to the upstream that produced it (docs/spec/messages-to-chat.md#reasoning)."""

from __future__ import annotations

from typing import Any

from proxyd.codecs.anthropic.thinking_signature import decode_signature
from proxyd.codecs.openai.content_blocks import is_blank
from proxyd.codecs.openai.dialect import Dialect
from proxyd.codecs.openai.translation_notes import Notes

__all__ = ["Reasoning"]

#: Fields in which a server that sent reasoning takes it back, when nothing else is known of it.
_RETURNABLE = ("reasoning_content", "reasoning")


class Reasoning:
    """The reasoning of one assistant turn.

    Data of another model (another ``m`` in the signature, or a signature that is not ours) is dropped: its
    vendor alone can read it. Its text is kept, since it is text.
    """

    __slots__ = ("_details", "_fields", "_is_own", "_model", "_texts", "_tool_signatures")

    def __init__(self, model: str) -> None:
        self._model = model
        self._texts: list[str] = []
        self._fields: set[str | None] = set()
        self._is_own = True
        self._details: list[dict[str, Any]] = []
        self._tool_signatures: dict[str, str] = {}

    def add(self, block: dict[str, Any]) -> None:
        """Take one thinking block, whatever its signature."""
        encoded = block.get("signature")
        signature = decode_signature(encoded) if isinstance(encoded, str) else None
        is_ours = signature is not None and signature.model == self._model
        text = block.get("thinking")
        if isinstance(text, str) and text:
            self._texts.append(text)
            self._fields.add(signature.field if signature is not None and is_ours else None)
            self._is_own = self._is_own and is_ours
        if signature is not None and is_ours:
            self._details += signature.details
            self._tool_signatures.update(signature.tool_signatures)

    def give_back(
        self, message: dict[str, Any], client_ids: list[str], dialect: Dialect, notes: Notes
    ) -> None:
        """Put it into the assistant message, in the form and as far as the dialect takes it.

        Args:
            client_ids: the client's ids of the message's tool calls, in order.
        """
        calls = message.get("tool_calls", ())
        if dialect.thought_signatures and calls:
            self._sign(calls, client_ids, dialect)
        if dialect.reasoning_with_calls_only and not calls:
            return
        text = "".join(self._texts)
        style = dialect.reasoning_return
        if style == "details" and self._details:
            message["reasoning_details"] = self._details
        elif style in ("field", "details") and dialect.reasoning_field is not None:
            if not is_blank(text):
                message[dialect.reasoning_field] = text
            elif calls and dialect.reasoning_placeholder is not None:
                message[dialect.reasoning_field] = dialect.reasoning_placeholder
        elif is_blank(text):
            return
        elif style == "tags":
            tag = dialect.think_tags[0] if dialect.think_tags else "think"
            thought = f"<{tag}>{text}</{tag}>\n"
            content = message["content"]
            if isinstance(content, list):
                message["content"] = [{"type": "text", "text": thought}, *content]
            else:
                message["content"] = thought + (content or "")
        elif style == "chunks" and self._is_own:  # a model that does not think refuses thinking chunks
            chunk = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            message["content"] = [chunk, *(content or ())]
        elif style == "received" and len(self._fields) == 1 and (name := next(iter(self._fields))):
            if name in _RETURNABLE:
                message[name] = text
            elif name == "reasoning_details" and self._details:
                message[name] = self._details
        else:
            notes.add("messages[].content[].thinking", "dropped", "the upstream takes no reasoning back")

    def _sign(self, calls: list[dict[str, Any]], client_ids: list[str], dialect: Dialect) -> None:
        """Gemini: each call gets back its own signature; the first one, if all are lost, the one that skips
        the check."""
        found = False
        for call, client_id in zip(calls, client_ids, strict=True):
            signature = self._tool_signatures.get(client_id)
            if signature:
                found = True
                call["extra_content"] = {"google": {"thought_signature": signature}}
        if not found and dialect.thought_signature_placeholder is not None:
            placeholder = dialect.thought_signature_placeholder
            calls[0]["extra_content"] = {"google": {"thought_signature": placeholder}}
