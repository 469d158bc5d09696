"""A request's body as the JSON object that it has to be.

A conversation sends the same system prompt and tools with each request, and nearly all of the messages of the one
before it. Where those are known (`tool_lists`, `prefixes`), short texts stand in for them while the rest is parsed.
That is exact: nobody else can know the texts, so if one comes out as the value of ``tools``, this is where the list
stood, and it is a value by itself; and so with the first of the ``messages``. In any other case, such as a list that
stands further in or among the letters of a text, the body is parsed as it came.
"""

from __future__ import annotations

import secrets
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache import tools as tool_lists
from proxyd.errors import ClientError
from proxyd.prompt_cache import prefix as prefixes

__all__ = ["parse_object"]

_TOOLS, _SYSTEM, _BEGINNING = (secrets.token_hex(16) for _ in range(3))
#: What stands in for the first messages and the bracket ahead of them.
_BEGINNING_JSON = b"[" + jsonio.dumps(_BEGINNING)
#: What stands in for the tools, and for the system prompt ahead of them as well.
_TOOLS_JSON = jsonio.dumps(_TOOLS)
_BOTH_JSON = jsonio.dumps(_SYSTEM) + b',"tools":' + _TOOLS_JSON


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is. Its tools, system prompt and first messages may be those of other requests:
    nobody changes them.

    Raises:
        ClientError: it is something else.
    """
    if not body or body.isspace():
        raise ClientError("the request body is empty; a JSON object was expected")
    payload = _with_stand_ins(body)
    if payload is not None:
        return payload
    try:
        value = jsonio.loads(body)
    except jsonio.TooManyValues as exc:
        raise ClientError(
            f"the request body has {exc}, which is the limit; send less, or parts of it as text"
        ) from None
    except jsonio.JSONError as exc:
        raise ClientError(f"the request body is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ClientError("the request body must be a JSON object")
    return value


def _with_stand_ins(body: bytes) -> dict[str, Any] | None:
    """`body` parsed, if it holds anything known and that is what it seems to be."""
    begun, known = prefixes.find_prefix(body), tool_lists.find_tool_list(body)
    if begun is None and known is None:
        return None
    pieces: list[bytes | memoryview] = []
    view, done = memoryview(body), 0  # slices of it are no copies
    if begun is not None:
        beginning, at = begun
        pieces += (view[:at], _BEGINNING_JSON)
        done = at + len(beginning.raw)
    system = None
    if known is not None:
        tools, at = known
        assert tools.raw is not None, "it was found by its bytes"
        behind, stand_in = at + len(tools.raw), _TOOLS_JSON
        if tools.system is not None and tools.system.ahead and body.endswith(tools.system.ahead, done, at):
            system = tools.system
            at, stand_in = at - len(tools.system.ahead), _BOTH_JSON
        if at < done:
            return None
        pieces += (view[done:at], stand_in)
        done = behind
    pieces.append(view[done:])
    try:
        payload = jsonio.loads(b"".join(pieces))
    except jsonio.JSONError:
        return None  # what is wrong, and where, is said of the body as it came
    if not isinstance(payload, dict):
        return None
    if begun is not None:
        messages = payload.get("messages")
        if not isinstance(messages, list) or messages[:1] != [_BEGINNING]:
            return None
        payload["messages"] = begun[0].messages + messages[1:]
    if known is not None:
        if payload.get("tools") != _TOOLS:
            return None
        payload["tools"] = known[0].tools
    if system is not None:
        if payload.get("system") != _SYSTEM:
            return None
        payload["system"] = system.value
    return payload
