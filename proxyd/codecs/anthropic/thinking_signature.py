"""Encode an upstream's reasoning data in the ``signature`` of thinking blocks.

Claude Code sends thinking blocks back unchanged. So data that an upstream expects in the next turn is stored in their
``signature`` (docs/spec/messages-to-chat.md#reasoning), and the proxy keeps no state. The format is ``cpx1.`` and the
base64url of a JSON object: ``m`` the upstream's model, ``f`` the field of the text, ``d`` its ``reasoning_details``,
``t`` thought signatures by the client's tool call id, ``p`` their places in the call where these are not Google's,
``o`` other fields of the message that its sender wants back, ``r`` fields of a reasoning item of the Responses API,
``g`` thought signatures of other parts than calls in the Gemini API. Absent members are omitted.

It is neither secret nor authenticated: a forged one affects only the client's own upstream.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyd import jsonio

__all__ = ["PREFIX", "Signature", "decode_signature", "encode_signature"]

PREFIX = "cpx1."


@dataclass(frozen=True, slots=True)
class Signature:
    """Content of a signature of the proxy.

    Args:
        model: the upstream's name of the model that produced the block.
        source: the field that contained the text, or None.
        details: the items of ``reasoning_details``, unchanged and in order.
        tool_signatures: tool call id -> thought signature.
        tool_places: tool call id -> the path of its signature in the call.
        fields: other fields of the upstream's message, unchanged.
        response_item: of a reasoning item: its ``encrypted_content``, and the ``phase`` of the message that follows it.
        part_signatures: kind of a part (``thought`` for this block's own text, ``text`` for the text behind it) -> its
            thought signature.
    """

    model: str
    source: str | None
    details: list[dict[str, Any]]
    tool_signatures: Mapping[str, str]
    tool_places: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    response_item: Mapping[str, str] = field(default_factory=dict)
    part_signatures: Mapping[str, str] = field(default_factory=dict)


def encode_signature(
    model: str,
    source: str | None,
    details: list[Any] | None,
    tool_signatures: Mapping[str, str] | None,
    *,
    tool_places: Mapping[str, str] | None = None,
    fields: Mapping[str, Any] | None = None,
    response_item: Mapping[str, str] | None = None,
    part_signatures: Mapping[str, str] | None = None,
) -> str:
    """Build the signature of one thinking block."""
    payload: dict[str, Any] = {"m": model}
    members = {
        "f": source,
        "d": details,
        "t": tool_signatures,
        "p": tool_places,
        "o": fields,
        "r": response_item,
        "g": part_signatures,
    }
    payload.update({name: value for name, value in members.items() if value})
    return PREFIX + base64.urlsafe_b64encode(jsonio.dumps(payload)).rstrip(b"=").decode()


def decode_signature(signature: str) -> Signature | None:
    """Parse `signature`; None for a foreign or damaged one."""
    if not signature.startswith(PREFIX):
        return None
    encoded = signature[len(PREFIX) :]
    try:
        payload = jsonio.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError:
        return None
    if not isinstance(payload, dict) or not isinstance(payload.get("m"), str):
        return None
    name, details, fields = payload.get("f"), payload.get("d"), payload.get("o")
    return Signature(
        model=payload["m"],
        source=name if isinstance(name, str) else None,
        details=[item for item in details if isinstance(item, dict)] if isinstance(details, list) else [],
        tool_signatures=_texts(payload.get("t")),
        tool_places=_texts(payload.get("p")),
        fields=fields if isinstance(fields, dict) else {},
        response_item=_texts(payload.get("r")),
        part_signatures=_texts(payload.get("g")),
    )


def _texts(value: Any) -> dict[str, str]:
    return (
        {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
    )
