"""Content of an event stream that is no event: kept, and quoted in an error if the stream does not finish.

Servers and gateways write an error into a stream that has begun in whatever form they have: a field ``error:``, bare
JSON, HTML, a plain sentence, an object of their own. If the end of the stream or ``[DONE]`` after it counted as the end
of the message, half a message would be shown as a whole one (docs/spec/chat-to-messages.md#unreadable).
"""

from __future__ import annotations

from typing import Any

from proxyd import jsonio
from proxyd.codecs.upstream_errors.error_envelopes import parse_error_body
from proxyd.codecs.upstream_errors.errors import ErrorContext, error_in, refusal, refusal_from_chunk
from proxyd.errors import BadReply, ProxyError, Refused, UnreadableStream

__all__ = ["UnreadableContent", "error_in_lines", "is_heartbeat", "unreadable_error", "unreadable_lines"]

#: Bytes that are kept: room for an error, none for a page.
_MAX_BYTES = 4096

_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
#: Keys of chunks without choices that are no content.
_METADATA = frozenset(
    {
        "id",
        "object",
        "created",
        "model",
        "provider",
        "system_fingerprint",
        "service_tier",
        "timings",
        "usage",
        "usageMetadata",
        "done",
    }
)
_HEARTBEATS = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})


class UnreadableContent:
    """What was unreadable in one stream so far."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = b""

    def __bool__(self) -> bool:
        return bool(self._text)

    def add(self, text: bytes) -> None:
        if len(self._text) < _MAX_BYTES:
            self._text += (b"\n" if self._text else b"") + text[:_MAX_BYTES]

    def error(self, context: ErrorContext) -> ProxyError:
        """Return the error that quotes it."""
        return unreadable_error(self._text, context)


def unreadable_lines(block: bytes, *, is_cut: bool = False) -> bytes:
    """Return the lines of a frame that are no field of an event, or an ``event: error`` without data.

    Args:
        is_cut: the stream ended before the blank line, so the last line may be the beginning of a field.
    """
    lines = block.split(b"\n")
    unread, has_data, is_error = [], False, False
    for line in lines:
        name, _, value = line.partition(b":")
        if name in _FIELDS:
            has_data = has_data or name == b"data"
            is_error = is_error or (name == b"event" and value.strip() == b"error")
        elif name.strip():
            unread.append(line)
    if is_cut and unread and unread[-1] == lines[-1] and any(f.startswith(unread[-1]) for f in _FIELDS):
        unread.pop()
    if is_error and not has_data:
        unread.append(b"event: error")
    return b"\n".join(unread)


def is_heartbeat(event: bytes, chunk: dict[str, Any]) -> bool:
    """Whether a chunk without choices and usage is known to hold no content."""
    return (
        "choices" in chunk
        or chunk.get("object") == "chat.completion.chunk"
        or str(chunk.get("type") or chunk.get("event")) in _HEARTBEATS
        or event.decode("utf-8", "replace") in _HEARTBEATS
        or not chunk.keys() - _METADATA
    )


def error_in_lines(text: bytes) -> Any | None:
    """Return the error in lines that are a field ``error:`` or bare JSON; None if they are no error."""
    try:
        value = jsonio.loads(_without_field(text))
    except jsonio.JSONError:
        return None
    return value if text.startswith(b"error") and isinstance(value, dict) and value else error_in(value)


def unreadable_error(text: bytes, context: ErrorContext) -> ProxyError:
    """Return the error that quotes `text`, with the status that its words stand for."""
    is_error = error_in_lines(text) is not None
    text = _without_field(text)
    decoded = text.decode("utf-8", "replace")
    if text in (b"", b"event: error") or decoded.count("\N{REPLACEMENT CHARACTER}") > len(text) // 4:
        return BadReply("the upstream reported an error in its stream without saying why")
    if parse_error_body(text).message:
        exc = refusal(200, {}, text, context)
    else:
        exc = refusal_from_chunk(decoded, context)
    if is_error or not isinstance(exc, Refused) or exc.status != 502:
        return exc
    return UnreadableStream(exc.message)


def _without_field(text: bytes) -> bytes:
    return text.removeprefix(b"error:").strip()
