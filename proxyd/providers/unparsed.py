"""Direct requests that go on without having been parsed.

A request of Claude Code's is 140 KB and more, and an upstream that speaks the same API takes it as it is. Parsing it
costs more than all else that is done for the call, and holds up every other stream for as long. So where the entry
changes nothing of it, it is enough to know what it asks for: the ``model``, which Claude Code writes first, and
``stream``, which it writes last. Requests that are written another way, and small ones, are read.

What is wrong with an unread request is said by its upstream. One that may have a second ``model`` anywhere is read: the
last one counts, as for most parsers, and all of them go on as the upstream's name of that model, so that no parser can
find one that models.yaml does not offer.

Searches go from the end: CPython's search backwards skips ahead, which takes half the time on bodies of this size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxyd import jsonio
from proxyd.codecs.wire.json_patch import count_of
from proxyd.config.routes import ModelRoute
from proxyd.providers.registry import profile_for

__all__ = [
    "PeekedRequest",
    "forwards_unchanged",
    "has_second_model",
    "is_plain",
    "peek_request",
    "with_model",
]

#: Smaller ones are parsed in less time than a look at them takes.
_MIN_BYTES = 16 * 1024
_MODEL = re.compile(rb'\s*\{\s*"model"\s*:\s*("[^"\\\x00-\x1f]{1,200}")')
#: The members behind it that are no containers: what stands between them and the model is known to be one level deep.
_SCALAR = re.compile(rb'\s*,\s*"(\w+)"\s*:\s*(true|false|null|-?[0-9][0-9.eE+-]*|"[^"\\\x00-\x1f]*")')
_LAST = re.compile(rb',\s*"stream"\s*:\s*(true|false)\s*\}\s*\Z')
_LAST_BYTES, _MAX_SCALARS = 64, 16

#: Behind a word that may be of a thinking block: all but the object that is the request's own setting.
_THINKING, _NO_SETTING = b'"thinking"', re.compile(rb"(?!\s*:\s*\{)")
#: Behind the name of a member that is a text.
_NAME, _TEXT = b'"model"', re.compile(rb'\s*:\s*"')
#: What the escapes of all letters of that name begin with; no encoder escapes a letter.
_ESCAPE = b"\\u006"
#: What tells a call that is not one of the conversation (`proxyd.telemetry.request_kind`): its tools, which Claude
#: Code writes near the end, and the words of a request for a summary, in the last message: ahead of system prompt
#: and tools only.
_ODD_TOOLS, _TOOLS_BYTES = (b'"tools":[]', b'"web_search_'), 4096
_SUMMARY, _SUMMARY_BYTES = b"CRITICAL: Respond with TEXT ONLY", 512 * 1024


@dataclass(slots=True)
class PeekedRequest:
    """What was seen of a request.

    Attributes:
        start, end: where the model stands in its bytes, quotes included.
    """

    model: str
    start: int
    end: int
    wants_stream: bool


def peek_request(body: bytes) -> PeekedRequest | None:
    """What `body` asks for, where that can be seen without reading it."""
    if len(body) < _MIN_BYTES:
        return None
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


def is_plain(body: bytes, seen: PeekedRequest) -> bool:
    """Whether `body` is of the conversation itself, as far as a ledger wants to know, names one model only, and holds
    no thinking blocks: those are looked into, since not every upstream takes them.
    """
    end = body[-_TOOLS_BYTES:]
    return not (
        any(words in end for words in _ODD_TOOLS)
        or body.rfind(_SUMMARY, -_SUMMARY_BYTES) >= 0
        or _last(body, _THINKING, _NO_SETTING) >= 0
        or _last(body, _NAME, _TEXT, start=seen.end) >= 0
        or body.rfind(_ESCAPE, seen.end) >= 0
    )


def has_second_model(body: bytes) -> bool:
    """Whether `body`, a JSON object, has more than one member ``model``."""
    if body.rfind(_ESCAPE) < 0:
        at = _last(body, _NAME, _TEXT)
        if at < 0 or _last(body, _NAME, _TEXT, end=at) < 0:
            return False
    return count_of(body, "model") > 1


def forwards_unchanged(route: ModelRoute) -> bool:
    """Whether nothing of a plain request becomes another for `route` but the name of the model."""
    profile = profile_for(route.api_base, route.provider)
    return (
        route.direct
        and not (profile.omit or route.omit or route.extra_body)
        and route.max_input_tokens is route.max_tokens is route.temperature is route.top_p is None
    )


def _last(
    body: bytes, word: bytes, behind: re.Pattern[bytes], *, start: int = 0, end: int | None = None
) -> int:
    """The last place between `start` and `end` of `word` with `behind` directly behind it; -1 if there is none."""
    at = len(body) if end is None else end
    while (at := body.rfind(word, start, at)) >= 0:
        if behind.match(body, at + len(word)):
            break
    return at


def with_model(body: bytes, seen: PeekedRequest, name: str) -> bytes:
    """`body`, asking for the model `name`."""
    if name == seen.model:
        return body
    return b"%b%b%b" % (body[: seen.start], jsonio.dumps(name), body[seen.end :])
