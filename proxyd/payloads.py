"""A request's body as the JSON object that it has to be.

A conversation sends the same system prompt and tools with each request, half of its bytes. Where those are known
(`tool_lists`), short texts stand in for them while the rest is parsed. That is exact: nobody else can know the texts,
so if one comes out as the value of ``tools``, this is where the list stood, and it is a value by itself. In any other
case, such as a list that stands further in or among the letters of a text, the body is parsed as it came.
"""

from __future__ import annotations

import secrets
from typing import Any

from proxyd import jsonio
from proxyd.codecs import tool_lists
from proxyd.errors import ClientError

__all__ = ["parse_object"]

_TOOLS, _SYSTEM = secrets.token_hex(16), secrets.token_hex(16)
#: What stands in for the tools, and for the system prompt ahead of them as well.
_TOOLS_JSON = jsonio.dumps(_TOOLS)
_BOTH_JSON = jsonio.dumps(_SYSTEM) + b',"tools":' + _TOOLS_JSON


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is. Its tools and system prompt may be those of other requests: nobody changes them.

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
    """`body` parsed, if the bytes of a known list at `at` are the value of its ``tools``, and those of a known system
    prompt ahead of it, where there is one, that of its ``system``.
    """
    assert known.raw is not None, "it was found by its bytes"
    behind, stand_in, system = at + len(known.raw), _TOOLS_JSON, known.system
    if system is not None and system.ahead and body.endswith(system.ahead, 0, at):
        at, stand_in = at - len(system.ahead), _BOTH_JSON
    view = memoryview(body)  # slices of which are no copies
    try:
        payload = jsonio.loads(b"".join((view[:at], stand_in, view[behind:])))
    except jsonio.JSONError:
        return None  # what is wrong, and where, is said of the body as it came
    if not isinstance(payload, dict) or payload.get("tools") != _TOOLS:
        return None
    payload["tools"] = known.tools
    if stand_in is _BOTH_JSON:
        if payload.get("system") != _SYSTEM:
            return None
        assert system is not None, "its bytes were there"
        payload["system"] = system.value
    return payload
