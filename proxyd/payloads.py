"""A request's body as the JSON object that it has to be.

A conversation sends the same tools with each request, two fifths of its bytes. Where those are known (`tool_lists`), a
short text stands in for them while the rest is parsed. That is exact: nobody else can know the text, so if it comes out
as the value of ``tools``, this is where the list stood, and it is a value by itself. In any other case, such as a list
that stands further in or among the letters of a text, the body is parsed as it came.
"""

from __future__ import annotations

import secrets
from typing import Any

from proxyd import jsonio
from proxyd.codecs import tool_lists
from proxyd.errors import ClientError

__all__ = ["parse_object"]

_STAND_IN = secrets.token_hex(16)
_STAND_IN_JSON = jsonio.dumps(_STAND_IN)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is. Its tools may be those of other requests, which nobody changes.

    Raises:
        ClientError: it is something else.
    """
    if not body or body.isspace():
        raise ClientError("the request body is empty; a JSON object was expected")
    known = tool_lists.known_in(body)
    if known is not None:
        payload = _with_known_tools(body, *known)
        if payload is not None:
            return payload
    try:
        value = jsonio.loads(body)
    except jsonio.JSONError as exc:
        raise ClientError(f"the request body is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ClientError("the request body must be a JSON object")
    return value


def _with_known_tools(body: bytes, known: tool_lists.ToolList, at: int) -> dict[str, Any] | None:
    """`body` parsed, if the bytes of a known list at `at` are the value of its ``tools``."""
    assert known.raw is not None, "it was found by its bytes"
    view = memoryview(body)  # slices of which are no copies
    try:
        payload = jsonio.loads(b"".join((view[:at], _STAND_IN_JSON, view[at + len(known.raw) :])))
    except jsonio.JSONError:
        return None  # what is wrong, and where, is said of the body as it came
    if not isinstance(payload, dict) or payload.get("tools") != _STAND_IN:
        return None
    payload["tools"] = known.tools
    return payload
