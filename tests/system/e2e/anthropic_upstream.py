"""A scripted upstream of the Anthropic Messages API, for direct routes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.system.e2e.scripted import Received, Refusal, Script, ScriptedUpstream, Step, Turn

__all__ = ["USAGE", "AnthropicUpstream", "call", "calls", "refuse", "say"]

#: Usage in every response.
USAGE = {
    "input_tokens": 1000,
    "output_tokens": 34,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 200,
}
FRAGMENT_CHARS = 7
#: Of a thought; no server can read it.
SIGNATURE = "c2lnbmVk" * 8
VERSIONS = ("2023-06-01", "2026-10-21")
KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
TOOL_ID = re.compile(r"[A-Za-z0-9_-]+\Z")

_ids = itertools.count(1)


class AnthropicUpstream(ScriptedUpstream):
    """See `ScriptedUpstream`.

    Args:
        script: turns, see `say`, `call`, `calls`, `refuse`.
        key_header: the one header that may carry a credential, and must: ``x-api-key`` or ``authorization``.
        key: the credential in it.
        beta: the beginning of a beta that each request must name; by default one that Claude Code always sends.
    """

    dialect = "Anthropic"
    path = "/v1/messages"

    def __init__(self, script: Script, *, key_header: str, key: str, beta: str = "claude-code-") -> None:
        super().__init__(script)
        self._beta = beta
        self._credentials = {
            "x-api-key": key if key_header == "x-api-key" else None,
            "authorization": f"Bearer {key}" if key_header == "authorization" else None,
        }

    @property
    def api_base(self) -> str:
        """Value for models.yaml."""
        return self.origin

    def judge(self, received: Received) -> list[str]:
        return [*self._judge_headers(received.headers), *_judge_body(received.body)]

    def _judge_headers(self, headers: Mapping[str, str]) -> Iterator[str]:
        for name, wanted in self._credentials.items():
            seen = headers.get(name)
            if wanted is None and seen is not None:
                yield f"{name} was sent, which the client did not use"
            elif seen != wanted:
                yield f"{name} does not hold the client's key"
        if headers.get("anthropic-version") not in VERSIONS:
            yield f"anthropic-version is {headers.get('anthropic-version')!r}"
        if self._beta not in headers.get("anthropic-beta", ""):
            yield f"anthropic-beta names no {self._beta}*"
        if headers.get("Content-Type", "").partition(";")[0] != "application/json":
            yield f"Content-Type is {headers.get('Content-Type')!r}"

    def error_body(self, status: int, message: str) -> bytes:
        return _error(KINDS.get(status, "api_error"), message)

    def frame(self, event: dict[str, Any]) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())

    def collect(self, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {}
        fragments = ""
        for event in events:
            kind = event["type"]
            if kind == "message_start":
                message = dict(event["message"], content=[])
            elif kind == "content_block_start":
                message["content"].append(dict(event["content_block"]))
                fragments = ""
            elif kind == "content_block_delta":
                block, delta = message["content"][-1], event["delta"]
                fragments += delta.get("partial_json", "")
                for key in ("text", "thinking", "signature"):
                    if key in delta:
                        block[key] += delta[key]
            elif kind == "content_block_stop" and fragments:
                message["content"][-1]["input"] = json.loads(fragments)
                fragments = ""
            elif kind == "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
        return message


def say(text: str) -> Turn:
    """Respond with a text."""
    return calls(text=text)


def call(name: str, /, **arguments: Any) -> Turn:
    """Respond with a call of one tool."""
    return calls((name, arguments))


def calls(*wanted: tuple[str, Mapping[str, Any]], text: str = "", thought: str = "") -> Turn:
    """Respond with calls of several tools, given as (name, input), after a signed thought and a text if given."""

    def play(received: Received) -> Sequence[Step]:
        blocks: list[tuple[dict[str, Any], str, str, str]] = []
        if thought:
            block = {"type": "thinking", "thinking": "", "signature": ""}
            blocks.append((block, "thinking_delta", "thinking", thought))
        if text:
            blocks.append(({"type": "text", "text": ""}, "text_delta", "text", text))
        for name, arguments in wanted:
            block = {"type": "tool_use", "id": f"toolu_e2e_{next(_ids)}", "name": name, "input": {}}
            blocks.append((block, "input_json_delta", "partial_json", json.dumps(arguments)))
        steps: list[Step] = [{"type": "message_start", "message": _message(received.body["model"])}]
        for index, (block, delta, key, payload) in enumerate(blocks):
            steps.append({"type": "content_block_start", "index": index, "content_block": block})
            for at in range(0, len(payload), FRAGMENT_CHARS):
                chunk = {"type": delta, key: payload[at : at + FRAGMENT_CHARS]}
                steps.append({"type": "content_block_delta", "index": index, "delta": chunk})
            if block["type"] == "thinking":
                signed = {"type": "signature_delta", "signature": SIGNATURE}
                steps.append({"type": "content_block_delta", "index": index, "delta": signed})
            steps.append({"type": "content_block_stop", "index": index})
        end = {"stop_reason": "tool_use" if wanted else "end_turn", "stop_sequence": None}
        steps.append({"type": "message_delta", "delta": end, "usage": USAGE})
        return [*steps, {"type": "message_stop"}]

    return play


def refuse(status: int, kind: str, message: str, *, headers: Mapping[str, str] | None = None) -> Turn:
    """Respond with an error in Anthropic's form."""
    return lambda received: Refusal(status, _error(kind, message), headers or {})


def _message(model: str) -> dict[str, Any]:
    return {
        "id": f"msg_e2e_{next(_ids)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE | {"output_tokens": 0},
    }


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


def _judge_body(body: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(body.get("model"), str):
        yield "model is not a string"
    if not isinstance(body.get("max_tokens"), int):
        yield "max_tokens is not an integer"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "messages is not a list with at least one message"
        return
    awaited: list[str] = []
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if message.get("role") not in ("user", "assistant", "system") or not isinstance(blocks, list):
            yield f"{where} has no known role or no content"
            continue
        if any(block.get("type") == "text" and not block.get("text") for block in blocks):
            yield f"{where} holds an empty text"
        if message["role"] == "user":
            answered = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
            if sorted(answered) != sorted(awaited):
                yield f"{where} answers {answered}, expected {awaited}"
            awaited = []
        elif message["role"] == "assistant":
            awaited = [block.get("id", "") for block in blocks if block.get("type") == "tool_use"]
            if not all(TOOL_ID.match(name) for name in awaited):
                yield f"{where} holds a tool use id that the API does not take"
