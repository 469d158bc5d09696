"""How conversations begin: each request of one begins with nearly all of the one before it.

A beginning that was parsed once need only be recognised afterwards, by its bytes (`proxyd.prompt_cache.parser`). It
ends ahead of the first mark for caching: Claude Code puts that on its last message, and on another one the next
time (docs/spec/claude-code.md#body).

Only translated routes keep any, since they are parsed whole. These are the user's words: a few MiB of them at the most,
and none for longer than ten minutes after they came last.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from proxyd import jsonio

__all__ = ["Prefix", "evict_unused", "find_prefix", "remember_prefix"]

#: How many are remembered, and how many bytes of requests: parsed they take twice as much again.
_MAX_KNOWN, _MAX_TOTAL_BYTES = 8, 4 << 20
#: The longest.
_MAX_BYTES = 2 << 20
#: The most that is learnt from one request, which takes some 2 ms; the next one goes on.
_STEP_BYTES = 256 << 10
#: What is new is parsed with each request until it is so much: learning takes as long as parsing it twice.
_MIN_MESSAGES, _MIN_BYTES = 8, 4 << 10
_UNUSED_S = 600.0

#: Where Claude Code writes its messages: right behind the name of the model.
_MARK, _NEAR_START_BYTES = b'"messages":[', 512
#: Between two messages. Quotes within texts are escaped, so a text holds neither this nor the other.
_NEXT_MESSAGE, _CACHE_MARK = b'},{"role":"', b'"cache_control"'


class Prefix:
    """The first messages of a conversation. Nobody changes them.

    Attributes:
        raw: their bytes in a request, from the bracket ahead of them to the brace behind the last.
        messages: as they were parsed.
        used_at: when they came last, by `monotonic`.
    """

    __slots__ = ("messages", "raw", "used_at")

    def __init__(self, raw: bytes, messages: list[Any]) -> None:
        self.raw = raw
        self.messages = messages
        self.used_at = monotonic()


_known: list[Prefix] = []  # the longest first


def find_prefix(body: bytes) -> tuple[Prefix, int] | None:
    """The longest beginning whose bytes stand where messages begin, and where that is.

    They are items of an array by themselves; whether they are some in `body`, and of which, is for a parser to say.
    """
    at = _messages_at(body) if _known else -1
    if at >= 0:
        for beginning in _known:
            if body.startswith(beginning.raw, at):
                beginning.used_at = monotonic()
                return beginning, at
    return None


def remember_prefix(payload: dict[str, Any], body: bytes) -> None:
    """Remember how a request began that was just parsed.

    Args:
        body: what `payload` was parsed from.
    """
    messages = payload.get("messages")
    if not isinstance(messages, list) or len(messages) < _MIN_MESSAGES:
        return
    known = next((each for each in _known if _begins_with(messages, each.messages)), None)
    seen = 0 if known is None else len(known.messages)
    if len(messages) - seen < _MIN_MESSAGES:
        return
    at = _messages_at(body)
    if at < 0:
        return
    start = at if known is None else at + len(known.raw)
    end = min(len(body), start + _STEP_BYTES, at + _MAX_BYTES)
    marked = body.find(_CACHE_MARK, start, end)
    end = body.rfind(_NEXT_MESSAGE, start, end if marked < 0 else marked) + 1
    if end - start < _MIN_BYTES:
        return
    try:
        more = jsonio.loads(b"[%b]" % body[start + 1 : end])  # less the bracket or comma ahead
    except jsonio.JSONError:
        return  # what looked like the next message stands in the input of a tool
    count = seen + len(more)
    if jsonio.content_key(more) == jsonio.content_key(messages[seen:count]):
        _keep(Prefix(body[at:end], messages[:count]), known)


def _keep(new: Prefix, replaced: Prefix | None) -> None:
    _known[:] = [each for each in _known if each is not replaced and each.raw != new.raw]
    total_bytes = sum(len(each.raw) for each in _known) + len(new.raw)
    for oldest in sorted(_known, key=lambda each: each.used_at):
        if len(_known) < _MAX_KNOWN and total_bytes <= _MAX_TOTAL_BYTES:
            break
        _known.remove(oldest)
        total_bytes -= len(oldest.raw)
    _known.append(new)
    _known.sort(key=lambda each: -len(each.raw))


def evict_unused() -> None:
    """Let go of what has not come for a while."""
    if _known:
        since = monotonic() - _UNUSED_S
        _known[:] = [each for each in _known if each.used_at > since]


def _messages_at(body: bytes) -> int:
    """Where the array of messages seems to begin; negative where it is not near the start."""
    at = body.find(_MARK, 0, _NEAR_START_BYTES)
    return at if at < 0 else at + len(_MARK) - 1


def _begins_with(messages: list[Any], beginning: list[Any]) -> bool:
    """Whether these very messages have been put ahead of `messages`, which is done with all of them or none."""
    return len(messages) >= len(beginning) and messages[len(beginning) - 1] is beginning[-1]
