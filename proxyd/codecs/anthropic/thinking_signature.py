"""The signature of the thinking blocks we send: the place where an upstream's reasoning data survives a turn.

Claude Code returns thinking blocks verbatim, so what an upstream wants back travels inside their
``signature`` (docs/spec/messages-to-chat.md#reasoning) and the proxy needs no memory of its own. The form is
``cpx1.`` and the base64url of a JSON object: ``m`` the upstream's model, ``f`` the field the text came in, ``d`` its
``reasoning_details``, ``t`` Gemini's thought signatures by tool call id (as the client knows it). Absent
members are left out.

It is not secret and not authenticated: a client that forges one only lies to its own upstream.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio

__all__ = ["PREFIX", "Signature", "decode_signature", "encode_signature"]

PREFIX = "cpx1."


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature of ours holds.

    Args:
        model: the upstream's name of the model that thought.
        field: the field its text came in, or None.
        details: the items of ``reasoning_details``, unchanged and in order.
        tool_signatures: tool call id -> thought signature.
    """

    model: str
    field: str | None
    details: list[dict[str, Any]]
    tool_signatures: Mapping[str, str]


def encode_signature(
    model: str,
    field: str | None,
    details: list[Any] | None,
    tool_signatures: Mapping[str, str] | None,
) -> str:
    """The signature for one thinking block."""
    payload: dict[str, Any] = {"m": model}
    if field:
        payload["f"] = field
    if details:
        payload["d"] = details
    if tool_signatures:
        payload["t"] = tool_signatures
    return PREFIX + base64.urlsafe_b64encode(jsonio.dumps(payload)).rstrip(b"=").decode()


def decode_signature(signature: str) -> Signature | None:
    """What `signature` holds; None for a foreign or damaged one."""
    if not signature.startswith(PREFIX):
        return None
    encoded = signature[len(PREFIX) :]
    try:
        payload = jsonio.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError:
        return None
    if not isinstance(payload, dict) or not isinstance(payload.get("m"), str):
        return None
    name, details, signatures = payload.get("f"), payload.get("d"), payload.get("t")
    return Signature(
        model=payload["m"],
        field=name if isinstance(name, str) else None,
        details=[item for item in details if isinstance(item, dict)] if isinstance(details, list) else [],
        tool_signatures=(
            {key: value for key, value in signatures.items() if isinstance(value, str)}
            if isinstance(signatures, dict)
            else {}
        ),
    )
