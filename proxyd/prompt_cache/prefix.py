"""LRU cache of parsed conversation prefixes, keyed by their raw bytes.

Each request of a conversation repeats nearly all messages of the one before, so a prefix that was parsed once is found
by its bytes afterwards (`proxyd.prompt_cache.parser`). A prefix ends before the first ``cache_control``, which Claude
Code puts on its last message and moves with each request (docs/spec/claude-code.md#body).

Only translated routes use it, since direct requests are not parsed. It holds prompts: a few MiB at most, and for at
most ten minutes after their last use.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from proxyd import jsonio

__all__ = ["Prefix", "Prefixes"]

#: Size limits: prefixes, and their raw bytes in total; the parsed values take twice as much in addition.
_MAX_KNOWN, _MAX_TOTAL_BYTES = 8, 4 << 20
#: Longest prefix in bytes.
_MAX_BYTES = 2 << 20
#: Most bytes added per request, which takes about 2 ms.
_STEP_BYTES = 256 << 10
#: Least to add: adding takes as long as parsing it twice.
_MIN_MESSAGES, _MIN_BYTES = 8, 4 << 10
_UNUSED_S = 600.0

#: Claude Code writes the messages directly after the name of the model.
_MESSAGES, _NEAR_START_BYTES = b'"messages":[', 512
#: Boundary of two messages. Quotes in strings are escaped, so a string contains neither of the two.
_NEXT_MESSAGE, _CACHE_MARK = b'},{"role":"', b'"cache_control"'


class Prefix:
    """The first messages of a conversation. Immutable by convention.

    Attributes:
        raw: their bytes in a request, from the bracket before the first to the brace after the last.
        messages: the parsed messages.
        used_at: time of their last use by `monotonic`, in seconds.
    """

    __slots__ = ("messages", "raw", "used_at")

    def __init__(self, raw: bytes, messages: list[Any]) -> None:
        self.raw = raw
        self.messages = messages
        self.used_at = monotonic()


class Prefixes:
    """Cache of prefixes."""

    def __init__(self) -> None:
        self._known: list[Prefix] = []  # the longest first

    def clear(self) -> None:
        self._known = []

    def find(self, body: bytes) -> tuple[Prefix, int] | None:
        """Return the longest cached prefix whose bytes occur at the start of the messages, and their offset.

        The bytes are complete items of an array; whether `body` has them as items, and where, must be checked by a
        parser.
        """
        at = _messages_at(body) if self._known else -1
        if at >= 0:
            for prefix in self._known:
                if body.startswith(prefix.raw, at):
                    prefix.used_at = monotonic()
                    return prefix, at
        return None

    def remember(self, payload: dict[str, Any], body: bytes) -> None:
        """Cache the first messages of a parsed request.

        Args:
            body: the bytes of `payload`.
        """
        messages = payload.get("messages")
        if not isinstance(messages, list) or len(messages) < _MIN_MESSAGES:
            return
        known = next((each for each in self._known if _begins_with(messages, each.messages)), None)
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
            more = jsonio.loads(b"[%b]" % body[start + 1 : end])  # without the bracket or comma before it
        except jsonio.JSONError:
            return  # the boundary that was found is within a tool's input
        count = seen + len(more)
        if jsonio.content_key(more) == jsonio.content_key(messages[seen:count]):
            self._keep(Prefix(body[at:end], messages[:count]), known)

    def _keep(self, new: Prefix, replaced: Prefix | None) -> None:
        known = [each for each in self._known if each is not replaced and each.raw != new.raw]
        total_bytes = sum(len(each.raw) for each in known) + len(new.raw)
        for oldest in sorted(known, key=lambda each: each.used_at):
            if len(known) < _MAX_KNOWN and total_bytes <= _MAX_TOTAL_BYTES:
                break
            known.remove(oldest)
            total_bytes -= len(oldest.raw)
        self._known = sorted([*known, new], key=lambda each: -len(each.raw))

    def evict_unused(self) -> None:
        """Evict prefixes that were not used for `_UNUSED_S` seconds."""
        since = monotonic() - _UNUSED_S
        self._known = [each for each in self._known if each.used_at > since]


def _messages_at(body: bytes) -> int:
    """Return the probable offset of the array of messages; negative if it is not near the start."""
    at = body.find(_MESSAGES, 0, _NEAR_START_BYTES)
    return at if at < 0 else at + len(_MESSAGES) - 1


def _begins_with(messages: list[Any], prefix: list[Any]) -> bool:
    """Return whether `messages` begins with the objects of `prefix`, which the parser inserts all or none."""
    return len(messages) >= len(prefix) and messages[len(prefix) - 1] is prefix[-1]
