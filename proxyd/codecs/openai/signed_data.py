"""Data that only its sender can read: signatures and encrypted reasoning, gathered from a stream and returned.

Upstreams check on the next turn what they have signed, and each puts it elsewhere
(docs/spec/messages-to-chat.md#signed-data). So it is kept with its place, and goes back to the same place: nobody but
the sender can have written it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from proxyd.codecs.openai.reasoning_fields import ReasoningDetails

__all__ = ["GOOGLES_PLACE", "SignedData", "is_signed", "sign_call", "signature_in_call"]

#: Where Google's OpenAI layer puts a call's signature.
GOOGLES_PLACE = "extra_content.google.thought_signature"

_CALL_SIGNATURES = ("thought_signature", "thoughtSignature")
#: Objects in a call that hold a signature: Google's layers by vendor, LiteLLM.
_CALL_HOLDERS = ("extra_content", "provider_specific_fields", "extra_fields")
_PLACE = re.compile(r"(?:function\.)?(?:[A-Za-z_]\w{0,39}\.){0,2}thought_?[sS]ignature", re.ASCII)

#: Fields of a message that are signatures: GitHub Copilot and gateways in front of Anthropic, OpenAI and Gemini.
_SIGNATURES = frozenset(
    {
        "reasoning_opaque",
        "cot_id",
        "reasoning_signature",
        "thinking_signature",
        "thought_signature",
        "thoughtSignature",
        "thought_signatures",
        "signature",
        "encrypted_content",
        "reasoning_encrypted_content",
        "encrypted_reasoning",
    }
)
#: Fields of a message that hold more, and are returned if it is signed.
_HOLDERS = ("extra_content", "provider_specific_fields")
_MAX_NESTING = 4


class SignedData:
    """The signed data of one message, to be sent back unchanged and in its places.

    Attributes:
        details: the items of ``reasoning_details``.
    """

    __slots__ = ("_blocks", "_fields", "details")

    def __init__(self) -> None:
        self.details = ReasoningDetails()
        self._blocks: list[dict[str, Any]] = []
        self._fields: dict[str, Any] = {}

    def add(self, delta: Mapping[str, Any]) -> None:
        """Add what one delta holds."""
        details, blocks = delta.get("reasoning_details"), delta.get("thinking_blocks")
        if isinstance(details, list):
            self.details.add(details)
        if isinstance(blocks, list):
            for block in blocks:
                self._add_block(block)
        for name, value in delta.items():
            if name in _SIGNATURES and value and isinstance(value, (str, list)):
                self._fields[name] = value
            elif name in _HOLDERS and isinstance(value, dict) and is_signed(value):
                self._fields[name] = _merged(self._fields.get(name), value)

    def _add_block(self, block: Any) -> None:
        """Add one of LiteLLM's ``thinking_blocks``: a part of a block, of which the last has the signature."""
        if not isinstance(block, dict):
            return
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.get("signature") or last.get("type") != block.get("type") or "data" in last:
            last = {}
            self._blocks.append(last)
        for key, value in block.items():
            if key == "thinking" and isinstance(value, str):
                last[key] = last.get(key, "") + value
            elif value or key not in last:
                last[key] = value

    @property
    def is_waiting(self) -> bool:
        """Something was added that must be put into a signature."""
        return bool(self._fields) or self.details.is_signed or is_signed(self._blocks)

    def take(self) -> tuple[list[dict[str, Any]] | None, dict[str, Any] | None]:
        """Return the ``reasoning_details`` and the other fields so far, and forget them; None for what there is not."""
        fields, self._fields = self._fields, {}
        blocks, self._blocks = self._blocks, []
        if is_signed(blocks):
            fields["thinking_blocks"] = blocks
        return self.details.take(), fields or None


def is_signed(value: Any, depth: int = _MAX_NESTING) -> bool:
    """Whether a value holds a signature, or data that only its sender can read, at any depth."""
    if depth == 0:
        return False
    if isinstance(value, list):
        return any(is_signed(item, depth - 1) for item in value)
    if not isinstance(value, dict):
        return False
    return any(
        (item and (key in _SIGNATURES or (key == "data" and isinstance(item, str))))
        or is_signed(item, depth - 1)
        for key, item in value.items()
    )


def signature_in_call(call: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the place and the value of the thought signature of a tool call, or of a part of one."""
    for prefix, holder in _holders_of(call):
        for name in _CALL_SIGNATURES:
            value = holder.get(name)
            if isinstance(value, str) and value:
                return f"{prefix}{name}", value
    return None


def _holders_of(call: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for prefix, part in (("", call), ("function.", call.get("function"))):
        if not isinstance(part, dict):
            continue
        for name in _CALL_HOLDERS:
            holder = part.get(name)
            if not isinstance(holder, dict):
                continue
            yield f"{prefix}{name}.", holder
            for vendor, inner in holder.items():
                if isinstance(inner, dict):
                    yield f"{prefix}{name}.{vendor}.", inner
        yield prefix, part


def sign_call(call: dict[str, Any], place: str, signature: str) -> None:
    """Put a signature into a tool call; an unknown place is taken for Google's."""
    *path, name = (place if _PLACE.fullmatch(place) else GOOGLES_PLACE).split(".")
    holder = call
    for part in path:
        inner = holder.get(part)
        holder[part] = holder = dict(inner) if isinstance(inner, dict) else {}
    holder[name] = signature


def _merged(before: Any, value: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(value, dict):
        return value
    return {**before, **{key: _merged(before.get(key), item) for key, item in value.items() if item}}
