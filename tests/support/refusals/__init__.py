"""Refusals of upstreams, with the wordings of public reports, and what each of them teaches."""

from __future__ import annotations

from typing import Any

from proxyd import jsonio
from proxyd.providers.refusals import QuirkChange

#: Source, what was sent besides `SENT`, the upstream's body, the change.
Case = tuple[str, dict[str, Any], Any, QuirkChange]

TOOLS = [{"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}]
SENT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    "max_tokens": 32000,
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": TOOLS,
}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
PDF = {"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:,"}}]}
CACHED = {"role": "user", "content": [{"type": "text", "text": "u", "cache_control": {"type": "ephemeral"}}]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "output", "schema": {}}}
NAMED = {"type": "function", "function": {"name": "Read"}}
CALL = {"id": "c", "type": "function", "function": {"name": "Read", "arguments": "{}"}}


def openai(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def unsupported(name: str) -> dict[str, Any]:
    return openai(
        f"Unsupported parameter: '{name}' is not supported with this model.", name, "unsupported_parameter"
    )


def body_of(response: Any) -> bytes:
    return response.encode() if isinstance(response, str) else jsonio.dumps(response)


def request_of(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**SENT, **changes}.items() if value is not None}
