"""Count the tokens of a translated request with ``countTokens`` (docs/spec/gemini.md#counting)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd import jsonio

__all__ = ["counted_tokens", "counting_body"]

#: What of a request counts as its input.
_COUNTED = ("systemInstruction", "tools", "contents")


def counting_body(model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that counts the tokens of `body`.

    Args:
        model: its name as it stands in the address. At Vertex AI it begins with ``publishers/``, and the fields are not
            wrapped.
    """
    fields = {name: body[name] for name in _COUNTED if name in body}
    if model.startswith("publishers/"):
        return fields
    return {"generateContentRequest": {"model": model, **fields}}


def counted_tokens(response: bytes) -> int | None:
    """Return the number in a response of ``countTokens``; None if there is none."""
    try:
        value = jsonio.loads(response)
    except jsonio.JSONError:
        return None
    number = value.get("totalTokens") if isinstance(value, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else None
