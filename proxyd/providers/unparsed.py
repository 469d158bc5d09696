"""Large direct requests that are forwarded without parsing.

A large request is parsed in a thread, piece by piece, without the cache of what conversations repeat
(`proxyd.prompt_cache`): that costs more than everything else that is done for a direct call. Where the entry changes
nothing in it, only ``model``, which Claude Code writes first, and ``stream``, which it writes last, are needed. All
other requests are parsed: with the cache that is faster than the searches here.

The upstream reports faults of an unparsed request. A request that may have a second ``model`` is parsed: the last one
counts, as for most parsers, and all of them are replaced by the upstream's name of that model, so that no parser finds
one that models.yaml does not offer.

Searches run backwards: CPython's reverse search takes half the time on bodies of this size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import PREFIX as OWN_SIGNATURE
from proxyd.codecs.wire.json_patch import count_of, splice
from proxyd.config.routes import ModelRoute
from proxyd.providers.registry import profile_for

__all__ = [
    "PeekedRequest",
    "forwards_unchanged",
    "has_second_model",
    "is_plain",
    "model_near_start",
    "peek_request",
    "with_model",
    "with_model_of_parsed",
]

_MODEL = re.compile(rb'\s*\{\s*"model"\s*:\s*("[^"\\\x00-\x1f]{1,200}")')
_NEAR_START, _NEAR_START_BYTES = re.compile(rb'"model"\s*:\s*"([^"\\\x00-\x1f]{1,200})"'), 2048
#: Scalar members directly after the model, which are certainly at the top level.
_SCALAR = re.compile(rb'\s*,\s*"(\w+)"\s*:\s*(true|false|null|-?[0-9][0-9.eE+-]*|"[^"\\\x00-\x1f]*")')
_LAST = re.compile(rb',\s*"stream"\s*:\s*(true|false)\s*\}\s*\Z')
_LAST_BYTES, _MAX_SCALARS = 64, 16

#: ``"thinking"`` that may belong to a block: not followed by an object, which would be the request's setting.
_THINKING, _NOT_SETTING = b'"thinking"', re.compile(rb"(?!\s*:\s*\{)")
#: Reasoning of a translated route that has no text: only this proxy can read it.
_OWN_REDACTED = f'"{OWN_SIGNATURE}'.encode()
#: A conversation kept at the server, which most upstreams do not know.
_THREAD, _MEMBER = b'"thread"', re.compile(rb"\s*:")
#: A member ``model`` whose value is a string.
_NAME, _TEXT = b'"model"', re.compile(rb'\s*:\s*"')
_WRITTEN, _BACKSLASH = re.compile(rb'"model"\s*:\s*("[^"\\]*")'), ord("\\")
#: Start of the escapes of all letters of that name; no encoder escapes a letter.
_ESCAPE = b"\\u006"
#: Signs of a side call (`proxyd.telemetry.request_kind`): its tools, which Claude Code writes near the end, and the
#: text of a request for a summary, in the last message, which only system prompt and tools follow.
_SIDE_CALL_TOOLS, _TOOLS_BYTES = (b'"tools":[]', b'"web_search_'), 4096
_SUMMARY, _SUMMARY_BYTES = b"CRITICAL: Respond with TEXT ONLY", 512 * 1024


@dataclass(slots=True)
class PeekedRequest:
    """Members of a request that were found without parsing it.

    Attributes:
        start, end: position of the model's string in the body, quotes included.
    """

    model: str
    start: int
    end: int
    wants_stream: bool


def peek_request(body: bytes) -> PeekedRequest | None:
    """Return model and ``stream`` of `body`, or None where it has to be parsed."""
    model = _MODEL.match(body)
    if model is None:
        return None
    stream, at = None, model.end()
    for _ in range(_MAX_SCALARS):
        member = _SCALAR.match(body, at)
        if member is None:
            break
        at = member.end()
        if member[1] == b"model":
            return None
        if member[1] == b"stream":
            stream = member[2]
    if stream is None:
        last = _LAST.search(body, len(body) - _LAST_BYTES)
        stream = None if last is None else last[1]
    if stream not in (b"true", b"false"):
        return None
    try:
        name = model[1][1:-1].decode()
    except UnicodeDecodeError:
        return None
    return PeekedRequest(name, *model.span(1), stream == b"true")


def model_near_start(beginning: bytes) -> str | None:
    """Return the model that a body with this beginning is probably for: a guess, on which nothing but time depends."""
    found = _NEAR_START.search(beginning, 0, _NEAR_START_BYTES)
    return None if found is None else found[1].decode("utf-8", "replace")


def is_plain(body: bytes, seen: PeekedRequest) -> bool:
    """Whether `body` is a main call of a conversation, names one model, and has no thinking blocks, which some
    upstreams refuse.
    """
    end = body[-_TOOLS_BYTES:]
    return not (
        any(words in end for words in _SIDE_CALL_TOOLS)
        or body.rfind(_SUMMARY, -_SUMMARY_BYTES) >= 0
        or _last(body, _THINKING, _NOT_SETTING) >= 0
        or body.rfind(_OWN_REDACTED) >= 0
        or _last(body, _NAME, _TEXT, start=seen.end) >= 0
        or body.rfind(_ESCAPE, seen.end) >= 0
        or _last(body, _THREAD, _MEMBER) >= 0
    )


def has_second_model(body: bytes) -> bool:
    """Whether `body`, a JSON object, has more than one member ``model``."""
    if body.rfind(_ESCAPE) < 0:
        at = _last(body, _NAME, _TEXT)
        if at < 0 or _last(body, _NAME, _TEXT, end=at) < 0:
            return False
    return count_of(body, "model") > 1


def with_model_of_parsed(body: bytes, name: str, *, is_only: bool = False) -> bytes:
    """Return `body`, which was parsed and has a text as its member ``model``, with the model `name`.

    Where only one member of all has that name, that is the one, and the brackets need not be counted.

    Args:
        is_only: `body` has one member ``model``; those within its values do not count.
    """
    first = _MODEL.match(body) if is_only else None
    if first is not None:
        return b"%b%b%b" % (body[: first.start(1)], jsonio.dumps(name), body[first.end() :])
    at = _last(body, _NAME, _TEXT)
    if (
        at > 0
        and body[at - 1] != _BACKSLASH
        and _last(body, _NAME, _TEXT, end=at) < 0
        and body.rfind(_ESCAPE) < 0
    ):
        member = _WRITTEN.match(body, at)
        if member is not None:
            return b"%b%b%b" % (body[: member.start(1)], jsonio.dumps(name), body[member.end() :])
    return splice(body, {"model": name})


def forwards_unchanged(route: ModelRoute) -> bool:
    """Whether `route` changes nothing in a plain request except the name of the model."""
    profile = profile_for(route.api_base, route.provider)
    return (
        route.direct
        and not (profile.omit or profile.claude or route.omit or route.extra_body)
        and not (route.auto_mode.get("classifier") or route.web_search.get("engine"))
        and route.max_input_tokens is route.max_tokens is route.temperature is route.top_p is None
    )


def _last(
    body: bytes, word: bytes, after: re.Pattern[bytes], *, start: int = 0, end: int | None = None
) -> int:
    """Return the last index of `word` in the range that `after` matches directly after it; -1 if there is none."""
    at = len(body) if end is None else end
    while (at := body.rfind(word, start, at)) >= 0:
        if after.match(body, at + len(word)):
            break
    return at


def with_model(body: bytes, seen: PeekedRequest, name: str) -> bytes:
    """Return `body` with the model `name`."""
    if name == seen.model:
        return body
    return b"%b%b%b" % (body[: seen.start], jsonio.dumps(name), body[seen.end :])
