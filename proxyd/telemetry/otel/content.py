"""What is said in a call, in the form that the conventions define for spans. Only where ``content: true`` asks for it.

The newest part of a conversation is kept: Claude Code sends all of it again with each call, and the spans before have
the rest. Images and documents are named, and not sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.errors import ProxyError
from proxyd.logs.redact import redact
from proxyd.redaction import redacted
from proxyd.telemetry.otel import conventions as names

__all__ = ["CallContent"]

#: Larger bodies are not looked into, in either direction.
_MAX_BYTES = 4 * 1024 * 1024
#: Characters of the messages of one span, and of one text in them.
_MAX_CHARS, _MAX_TEXT_CHARS = 128 * 1024, 16 * 1024


class CallContent:
    """Request and response of a call, as bytes until somebody asks for the attributes.

    Args:
        request: the client's body.
    """

    __slots__ = ("_request", "_response", "size")

    def __init__(self, request: bytes) -> None:
        self._request = request if len(request) <= _MAX_BYTES else b""
        self._response: bytearray | None = bytearray()
        self.size = len(self._request)

    def add(self, data: bytes) -> None:
        """The client has been sent `data`."""
        if self._response is None:
            return
        self._response += data
        self.size += len(data)
        if len(self._response) > _MAX_BYTES:
            self.size -= len(self._response)
            self._response = None

    def attributes(self) -> dict[str, str]:
        """Return the attributes, with keys masked; without what cannot be read. Parses: takes milliseconds."""
        request, response = _object(self._request), _message(bytes(self._response or b""))
        found: dict[str, Any] = {
            names.SYSTEM_INSTRUCTIONS: _parts(request.get("system")),
            names.INPUT_MESSAGES: _last(request.get("messages")),
            names.OUTPUT_MESSAGES: [],
        }
        if parts := _parts(response.get("content")):
            reason = str(response.get("stop_reason"))
            finish = names.FINISH_REASONS_OF_MESSAGES.get(reason, reason)
            found[names.OUTPUT_MESSAGES] = [{"role": "assistant", "parts": parts, "finish_reason": finish}]
        return {name: jsonio.dump_text(value) for name, value in found.items() if value}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = jsonio.loads(body)
    except jsonio.JSONError:
        return {}
    return value if isinstance(value, dict) else {}


def _message(body: bytes) -> dict[str, Any]:
    """Return the message of a response, streamed or not; empty for a compressed or a broken one."""
    if body.startswith(b"{"):
        return _object(body)
    collector = MessageCollector()
    try:
        collector.add_frames(body)
    except (
        ProxyError,
        KeyError,
        TypeError,
        ValueError,
    ):  # events of an upstream that are not what they should be
        pass
    return collector.message_so_far()


def _last(messages: Any) -> list[dict[str, Any]]:
    """Return the last messages, as many as there is room for."""
    kept: list[dict[str, Any]] = []
    left = _MAX_CHARS
    for message in reversed(messages if isinstance(messages, list) else []):
        if not isinstance(message, dict):
            continue
        found = {"role": str(message.get("role")), "parts": _parts(message.get("content"))}
        left -= len(jsonio.dump_text(found))
        if left < 0 and kept:
            break
        kept.append(found)
    return kept[::-1]


def _parts(content: Any) -> list[dict[str, Any]]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return list(_each_part(blocks if isinstance(blocks, list) else []))


def _each_part(blocks: list[Any]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        if not isinstance(block, dict):
            continue
        match block.get("type"):
            case "text":
                yield {"type": "text", "content": _cut(block.get("text"))}
            case "thinking":
                yield {"type": "reasoning", "content": _cut(block.get("thinking"))}
            case "tool_use":
                call = {"type": "tool_call", "id": block.get("id"), "name": block.get("name")}
                yield {**call, "arguments": _cut(jsonio.dump_text(redact(block.get("input"))))}
            case "tool_result":
                content = block.get("content")
                result = content if isinstance(content, str) else jsonio.dump_text(_parts(content))
                yield {"type": "tool_call_response", "id": block.get("tool_use_id"), "response": _cut(result)}
            case kind:
                yield {"type": str(kind)}


def _cut(text: Any) -> str:
    # Keys are masked first: half a key would not be found.
    text = redacted(text) if isinstance(text, str) else ""
    return text if len(text) <= _MAX_TEXT_CHARS else f"{text[:_MAX_TEXT_CHARS]}…"
