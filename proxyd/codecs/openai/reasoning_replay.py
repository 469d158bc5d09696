"""Send reasoning of earlier turns back to the upstream that produced it (docs/spec/messages-to-chat.md#reasoning)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxyd.codecs.anthropic.thinking_signature import decode_signature
from proxyd.codecs.openai.signed_data import GOOGLES_PLACE, is_signed, sign_call
from proxyd.codecs.translation.content_blocks import is_blank
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["Reasoning"]

#: Fields in which a server takes back the reasoning that it sent in them, when nothing else is known of it.
_RETURNABLE = ("reasoning_content", "reasoning", "reasoning_text", "cot_summary")

#: Styles in which something may be sent for reasoning without text: its data, or a placeholder.
_STYLES_WITHOUT_TEXT = ("field", "details")


class Reasoning:
    """The reasoning of one assistant turn.

    Data of another model (another ``m`` in the signature, or a signature that is not ours) is dropped: only its
    vendor can read it. Its text is kept.
    """

    __slots__ = (
        "_details",
        "_fields",
        "_is_own",
        "_model",
        "_signed_fields",
        "_texts",
        "_tool_places",
        "_tool_signatures",
    )

    def __init__(self, model: str) -> None:
        self._model = model
        self._texts: list[str] = []
        self._fields: set[str | None] = set()
        self._is_own = True
        self._details: list[dict[str, Any]] = []
        self._tool_signatures: dict[str, str] = {}
        self._tool_places: dict[str, str] = {}
        self._signed_fields: dict[str, Any] = {}

    def add(self, block: dict[str, Any]) -> None:
        """Add one thinking block, whatever its signature."""
        encoded = block.get("signature")
        signature = decode_signature(encoded) if isinstance(encoded, str) else None
        is_ours = signature is not None and signature.model == self._model
        text = block.get("thinking")
        if isinstance(text, str) and text:
            self._texts.append(text)
            self._fields.add(signature.source if signature is not None and is_ours else None)
            self._is_own = self._is_own and is_ours
        if signature is not None and is_ours:
            self._details += signature.details
            self._tool_signatures.update(signature.tool_signatures)
            self._tool_places.update(signature.tool_places)
            for name, value in signature.fields.items():
                before = self._signed_fields.get(name)
                if isinstance(before, list) and isinstance(value, list):
                    value = [*before, *value]
                self._signed_fields[name] = value

    def write_to(
        self, message: dict[str, Any], client_ids: list[str], dialect: Dialect, notes: Notes
    ) -> None:
        """Write the reasoning into an assistant message, in the form that the dialect takes.

        Args:
            client_ids: the client's ids of the message's tool calls, in order.
        """
        calls = message.get("tool_calls", ())
        if calls:
            self._sign(calls, client_ids, dialect)
        if dialect.signed_data:
            self._write_signed(message)
        if dialect.reasoning_with_calls_only and not calls:
            return
        text = "".join(self._texts)
        style = dialect.reasoning_return
        if is_blank(text) and style not in _STYLES_WITHOUT_TEXT:
            return
        write = _WRITERS.get(style)
        is_sent = write is not None and write(self, message, text, dialect)
        if not is_sent and not is_blank(text):
            notes.add("messages[].content[].thinking", "dropped", "the upstream takes no reasoning back")

    def _write_signed(self, message: dict[str, Any]) -> None:
        """Return signed data to the fields in which it came."""
        if is_signed(self._details):
            message["reasoning_details"] = self._details
        for name, value in self._signed_fields.items():
            message.setdefault(name, value)

    # Writers, one per `Dialect.reasoning_return`. They return False where the reasoning cannot be sent.

    def _write_field(self, message: dict[str, Any], text: str, dialect: Dialect) -> bool:
        if dialect.reasoning_field is None:
            return False
        if not is_blank(text):
            message[dialect.reasoning_field] = text
        elif message.get("tool_calls") and dialect.reasoning_placeholder is not None:
            message[dialect.reasoning_field] = dialect.reasoning_placeholder
        return True

    def _write_details(self, message: dict[str, Any], text: str, dialect: Dialect) -> bool:
        if not self._details:
            return self._write_field(message, text, dialect)
        message["reasoning_details"] = self._details
        return True

    def _write_received(self, message: dict[str, Any], text: str, dialect: Dialect) -> bool:
        field = next(iter(self._fields)) if len(self._fields) == 1 else None
        if field is None:
            return False
        if field in _RETURNABLE:
            message[field] = text
        elif field == "reasoning_details" and self._details:
            message[field] = self._details
        return True

    def _write_tags(self, message: dict[str, Any], text: str, dialect: Dialect) -> bool:
        tag = dialect.think_tags[0] if dialect.think_tags else "think"
        thought = f"<{tag}>{text}</{tag}>\n"
        content = message["content"]
        if isinstance(content, list):
            message["content"] = [{"type": "text", "text": thought}, *content]
        else:
            message["content"] = thought + (content or "")
        return True

    def _write_chunks(self, message: dict[str, Any], text: str, dialect: Dialect) -> bool:
        if not self._is_own:  # a model that does not think refuses thinking chunks
            return False
        chunk = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        message["content"] = [chunk, *(content or ())]
        return True

    def _sign(self, calls: list[dict[str, Any]], client_ids: list[str], dialect: Dialect) -> None:
        """Return each call's own signature; if all are lost, the first call gets the placeholder that skips Gemini's
        check.
        """
        found = False
        for call, client_id in zip(calls, client_ids, strict=True):
            signature = self._tool_signatures.get(client_id)
            if signature and dialect.signed_data:
                found = True
                sign_call(call, self._tool_places.get(client_id, GOOGLES_PLACE), signature)
        if dialect.thought_signatures and not found and dialect.thought_signature_placeholder is not None:
            sign_call(calls[0], GOOGLES_PLACE, dialect.thought_signature_placeholder)


_WRITERS: Mapping[str, Callable[[Reasoning, dict[str, Any], str, Dialect], bool]] = {
    "field": Reasoning._write_field,
    "received": Reasoning._write_received,
    "details": Reasoning._write_details,
    "tags": Reasoning._write_tags,
    "chunks": Reasoning._write_chunks,
}
