"""A probe: one small call to a daemon, as a client makes it. ``check``, ``doctor`` and the dashboard share it."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxyd import jsonio
from proxyd.redaction import redacted

__all__ = ["ONE_WORD", "PROBE_S", "STREAM", "TOOL_CALL", "ProbeResult", "Question", "probe"]

#: How long a probe waits for each part of the response: a local server may have to load its model first.
PROBE_S = 60.0
#: How long a whole response may take.
_TOTAL_S = 300.0
_MAX_BYTES = 8 << 20
_MAX_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class Question:
    """What a probe asks.

    Attributes:
        blocks: content blocks before the text.
        fields: further fields of the request.
    """

    text: str
    max_tokens: int = 256
    stream: bool = True
    tools: Sequence[Mapping[str, Any]] = ()
    blocks: Sequence[Mapping[str, Any]] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


#: Its tokens are enough for one word after some thinking, which not every model can switch off.
ONE_WORD = Question("Answer with the one word: yes", max_tokens=64, stream=False)
STREAM = Question("Say ok.")
TOOL_CALL = Question(
    "use the report tool to report the word ok",
    tools=(
        {
            "name": "report",
            "description": "Report the word.",
            "input_schema": {
                "type": "object",
                "properties": {"word": {"type": "string"}},
                "required": ["word"],
            },
        },
    ),
)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of a probe.

    Attributes:
        status: of the response; None if there was none.
        error: why it failed, without keys; None if it did not.
        tools: the names of the tools that were called.
        message: the whole response to a question that is not streamed.
    """

    status: int | None
    error: str | None
    duration_s: float
    tools: tuple[str, ...] = ()
    message: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.error is None


class _EndlessResponse(Exception):
    """Bytes of a response still arrived when it should have ended."""


def probe(
    host: str, port: int, model: str, question: Question, headers: Mapping[str, str] | None = None
) -> ProbeResult:
    """Ask `model` of the daemon at `host` and `port` a question. Blocks.

    Args:
        headers: with the caller's credentials.
    """
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": question.max_tokens,
        "stream": question.stream,
        "messages": [{"role": "user", "content": question.text}],
        **question.fields,
    }
    if question.blocks:
        content = [*question.blocks, {"type": "text", "text": question.text}]
        body["messages"] = [{"role": "user", "content": content}]
    if question.tools:
        body["tools"] = list(question.tools)
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_S)
    started_at = time.monotonic()
    try:
        head = {"content-type": "application/json", **(headers or {})}
        connection.request("POST", "/v1/messages", jsonio.dumps(body), head)
        response = connection.getresponse()
        data = _read(response, started_at + _TOTAL_S)
    except _EndlessResponse:
        why = f"the response did not end within {_TOTAL_S:g} s"
        return ProbeResult(None, why, time.monotonic() - started_at)
    except (OSError, http.client.HTTPException) as exc:
        return ProbeResult(None, f"no response: {_reason(exc)}", time.monotonic() - started_at)
    finally:
        connection.close()
    duration_s = time.monotonic() - started_at
    if response.status != 200:
        return ProbeResult(response.status, _error_in(_parsed(data)) or "it does not say why", duration_s)
    blocks, error = _streamed(data) if question.stream else _whole(data)
    tools = tuple(str(block.get("name")) for block in blocks if block.get("type") == "tool_use")
    message = {} if question.stream or error is not None else _parsed(data)
    return ProbeResult(response.status, error, duration_s, tools, message)


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Return the body, up to `_MAX_BYTES`.

    Raises:
        _EndlessResponse: bytes still arrived at `deadline`, by the monotonic clock.
    """
    data = bytearray()
    while len(data) < _MAX_BYTES and (chunk := response.read1(1 << 16)):
        data += chunk
        if time.monotonic() > deadline:
            raise _EndlessResponse
    return bytes(data)


def _streamed(data: bytes) -> tuple[list[dict[str, Any]], str | None]:
    """Return the blocks of a stream, and why it did not end well."""
    events = list(_events(data))
    blocks = [event["content_block"] for event in events if event.get("type") == "content_block_start"]
    if events and events[-1].get("type") == "message_stop":
        return blocks, None
    why = _error_in(events[-1]) if events else None
    return blocks, f"the stream did not end well: {why or 'it broke off'}"


def _whole(data: bytes) -> tuple[list[dict[str, Any]], str | None]:
    """Return the blocks of a message, and why it is none."""
    message = _parsed(data)
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return [], "the response is no message"
    return [block for block in content if isinstance(block, dict)], None


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        event = _parsed(line[6:]) if line.startswith(b"data: ") else None
        if isinstance(event, dict):
            yield event


def _parsed(data: bytes) -> Any:
    try:
        return jsonio.loads(data)
    except jsonio.JSONError:
        return None


def _error_in(value: Any) -> str | None:
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return redacted(str(message))[:_MAX_ERROR_CHARS] if message else None


def _reason(exc: Exception) -> str:
    if isinstance(exc, (TimeoutError, socket.timeout)):
        return f"nothing within {PROBE_S:g} s"
    if isinstance(exc, OSError):
        return (exc.strerror or type(exc).__name__).lower()
    return "it does not speak HTTP"
