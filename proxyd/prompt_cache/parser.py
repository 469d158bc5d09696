"""Parse request bodies, with cached values for the parts that a conversation repeats.

Each request of a conversation repeats the system prompt, the tools and nearly all messages of the one before. Parts
that are cached (`proxyd.prompt_cache.cache`) are replaced by short placeholders before
the rest is parsed. The result is exact: the placeholders are random, so if one is the value of ``tools``, or the first
of the ``messages``, the cached bytes were that value. In any other case, such as a list at a deeper level or within a
string, the whole body is parsed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from proxyd import jsonio
from proxyd.codecs.wire import large_json
from proxyd.errors import ClientError
from proxyd.prompt_cache.cache import PromptCache

__all__ = ["parse_large_object", "parse_object", "parse_request"]

_TOOLS, _SYSTEM, _PREFIX = (secrets.token_hex(16) for _ in range(3))
#: Placeholder of the first messages and the bracket before them.
_PREFIX_JSON = b"[" + jsonio.dumps(_PREFIX)
#: Placeholders of the tools, and of the system prompt with the tools after it.
_TOOLS_JSON = jsonio.dumps(_TOOLS)
_BOTH_JSON = jsonio.dumps(_SYSTEM) + b',"tools":' + _TOOLS_JSON


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse the JSON object `body`.

    Raises:
        ClientError: the body is not a JSON object.
    """
    if not body or body.isspace():
        raise ClientError("the request body is empty; a JSON object was expected")
    return _object(body, lambda data: jsonio.loads(data, max_values=jsonio.MAX_REQUEST_VALUES))


def parse_request(body: bytes, cache: PromptCache) -> tuple[dict[str, Any], bytes]:
    """Parse the JSON object `body`; return it with its outline.

    The outline is `body` with placeholders for the values that were cached: the same members in fewer bytes.

    Args:
        cache: tools, system prompt and first messages may be those of other requests, and must not be changed.

    Raises:
        ClientError: as `parse_object`.
    """
    return _parse_with_placeholders(body, cache) or (parse_object(body), body)


def parse_large_object(body: bytes) -> dict[str, Any]:
    """Parse the JSON object `body` piece by piece, without the cache.

    Raises:
        ClientError: as `parse_object`.
    """
    return _object(body, large_json.loads)


def _object(body: bytes, loads: Callable[[bytes], Any]) -> dict[str, Any]:
    try:
        value = loads(body)
    except jsonio.TooManyValues as exc:
        raise ClientError(
            f"the request body has {exc}, which is the limit; send less, or parts of it as text"
        ) from None
    except jsonio.JSONError as exc:
        raise ClientError(f"the request body is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ClientError("the request body must be a JSON object")
    return value


def _parse_with_placeholders(body: bytes, cache: PromptCache) -> tuple[dict[str, Any], bytes] | None:
    """Parse `body` with placeholders; return it with its outline.

    None if nothing of it is cached, or a placeholder is not where it should be.
    """
    cached_prefix, cached_tools = cache.prefixes.find(body), cache.tool_lists.find(body)
    if cached_prefix is None and cached_tools is None:
        return None
    parts: list[bytes | memoryview] = []
    view, done = memoryview(body), 0  # its slices are not copies
    if cached_prefix is not None:
        prefix, at = cached_prefix
        parts += (view[:at], _PREFIX_JSON)
        done = at + len(prefix.raw)
    system = None
    if cached_tools is not None:
        tools, at = cached_tools
        assert tools.raw is not None, "the list was found by its bytes"
        end, placeholder = at + len(tools.raw), _TOOLS_JSON
        if tools.system is not None and tools.system.raw and body.endswith(tools.system.raw, done, at):
            system = tools.system
            at, placeholder = at - len(tools.system.raw), _BOTH_JSON
        if at < done:
            return None
        parts += (view[done:at], placeholder)
        done = end
    parts.append(view[done:])
    outline = b"".join(parts)
    try:
        payload = jsonio.loads(outline, max_values=jsonio.MAX_REQUEST_VALUES)
    except jsonio.JSONError:
        return None  # the error message must describe the original body
    if not isinstance(payload, dict):
        return None
    if cached_prefix is not None:
        messages = payload.get("messages")
        if not isinstance(messages, list) or messages[:1] != [_PREFIX]:
            return None
        payload["messages"] = cached_prefix[0].messages + messages[1:]
    if cached_tools is not None:
        if payload.get("tools") != _TOOLS:
            return None
        payload["tools"] = cached_tools[0]
    if system is not None:
        if payload.get("system") != _SYSTEM:
            return None
        payload["system"] = system.value
    return payload, outline
