"""What the log says of a response that has no known form (docs/spec/operations.md#e7).

Whatever has no known form may be what a model said, or a prompt that was echoed, so only pages are quoted: a login page
or a gateway's error shows by its first words which server responded. Of JSON the log gets the names of the members and
the types of their values.
"""

from __future__ import annotations

import re
from typing import Any

from proxyd import jsonio

__all__ = ["outline_of"]

_MAX_CHARS = 200
#: JSON texts above this size are not parsed for the log.
_MAX_PARSED_BYTES = 64 * 1024
_PAGE = re.compile(rb"\s{0,99}<(?:!doctype|html|head|\?xml)\b", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\Z")
_MAX_DEPTH = 4
_TYPES = {str: "text", bool: "bool", int: "number", float: "number", type(None): "null"}


def outline_of(body: bytes) -> str:
    """Return at most 200 characters about the body of a response."""
    if _PAGE.match(body):
        return body[:_MAX_CHARS].decode("utf-8", "replace")
    if body[:1] in (b"{", b"[") and len(body) <= _MAX_PARSED_BYTES:
        try:
            return _shape(jsonio.loads(body), _MAX_DEPTH)[:_MAX_CHARS]
        except jsonio.JSONError:
            pass
    return f"{len(body)} bytes that are neither a page nor JSON"


def _shape(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        if not depth:
            return "{…}"
        members = (
            f"{name if _NAME.match(name) else '…'}: {_shape(member, depth - 1)}"
            for name, member in list(value.items())[:20]
        )
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + (_shape(value[0], depth - 1) if value and depth else "") + "]"
    return _TYPES[type(value)]
