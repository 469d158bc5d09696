"""A scripted upstream of OpenAI Chat Completions that refuses the same requests as OpenAI."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.strict_openai import validate
from tests.system.e2e.scripted import Received, Refusal, Script, ScriptedUpstream, Step, Turn

__all__ = ["DONE", "USAGE", "OpenAIUpstream", "call", "calls", "chunk", "refuse", "say"]

DONE = b"data: [DONE]\n\n"
#: Usage in every response. Of 1200 prompt tokens 200 were cached: Claude Code must see 1000 and 200.
USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 34,
    "total_tokens": 1234,
    "prompt_tokens_details": {"cached_tokens": 200},
}
#: Texts and arguments are split into fragments of this many characters.
FRAGMENT_CHARS = 7

_ids = itertools.count(1)  # Claude Code drops a call with an id that it has seen in the same conversation


class OpenAIUpstream(ScriptedUpstream):
    """See `ScriptedUpstream`.

    Args:
        script: turns, see `say`, `call`, `calls`, `refuse`.
        key: the credential that must come as ``Authorization: Bearer``; None takes any or none.
        other_fields: let fields of other vendors pass, such as ``reasoning_content`` in an assistant message.
    """

    dialect = "OpenAI"
    path = "/v1/chat/completions"

    def __init__(self, script: Script, *, key: str | None = None, other_fields: bool = False) -> None:
        super().__init__(script)
        self._key = key
        self._other_fields = other_fields

    @property
    def api_base(self) -> str:
        """Value for models.yaml."""
        return f"{self.origin}/v1"

    def judge(self, received: Received) -> list[str]:
        problems = validate(received.body, other_fields=self._other_fields)
        if self._key is not None and received.headers.get("Authorization") != f"Bearer {self._key}":
            problems.append("the key is not in Authorization: Bearer")
        if "x-api-key" in received.headers:
            problems.append("x-api-key was sent to an OpenAI upstream")
        foreign = sorted(name for name in received.headers if name.casefold().startswith("anthropic-"))
        if foreign:
            problems.append(
                f"headers of the Anthropic API were sent to an OpenAI upstream: {', '.join(foreign)}"
            )
        return problems

    def error_body(self, status: int, message: str) -> bytes:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()

    def frame(self, event: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(event).encode() + b"\n\n"

    def collect(self, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        tool_calls: dict[int, dict[str, Any]] = {}
        finish, usage = None, None
        for event in events:
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                finish = choice["finish_reason"] or finish
                delta = choice["delta"]
                for key in ("content", "reasoning_content"):
                    if delta.get(key):
                        message[key] = (message.get(key) or "") + delta[key]
                for fragment in delta.get("tool_calls") or []:
                    if "id" in fragment:
                        tool_calls[fragment["index"]] = {
                            "id": fragment["id"],
                            "type": "function",
                            "function": dict(fragment["function"]),
                        }
                    else:
                        function = tool_calls[fragment["index"]]["function"]
                        function["arguments"] += fragment["function"]["arguments"]
        if tool_calls:
            message["tool_calls"] = [tool_calls[index] for index in sorted(tool_calls)]
        return {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 1,
            "model": "scripted",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage,
        }


def chunk(
    delta: Mapping[str, Any] | None, finish: str | None = None, usage: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Build a ``chat.completion.chunk``; without a delta it has no choices, like the one with the usage."""
    choices = [] if delta is None else [{"index": 0, "delta": dict(delta), "finish_reason": finish}]
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": choices,
        "usage": usage,
    }


def say(text: str, *, reasoning: str = "", finish: str = "stop") -> Turn:
    """Respond with a text, after some reasoning if given."""
    return _turn([], text, reasoning, finish)


def call(name: str, /, *, reasoning: str = "", **arguments: Any) -> Turn:
    """Respond with a call of one tool."""
    return _turn([(name, arguments)], "", reasoning, "tool_calls")


def calls(*wanted: tuple[str, Mapping[str, Any]], text: str = "", reasoning: str = "") -> Turn:
    """Respond with calls of several tools, given as (name, arguments), after a text if given."""
    return _turn(wanted, text, reasoning, "tool_calls")


def refuse(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Turn:
    """Respond with an error in OpenAI's form."""
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
    return lambda received: Refusal(status, body, headers or {})


def _turn(wanted: Sequence[tuple[str, Mapping[str, Any]]], text: str, reasoning: str, finish: str) -> Turn:
    def play(received: Received) -> Sequence[Step]:
        steps: list[Step] = [chunk({"role": "assistant", "content": ""})]
        steps += [chunk({"reasoning_content": piece}) for piece in _fragments(reasoning)]
        steps += [chunk({"content": piece}) for piece in _fragments(text)]
        for index, (name, arguments) in enumerate(wanted):
            head = {"name": name, "arguments": ""}
            start = {"index": index, "id": f"call_e2e_{next(_ids)}", "type": "function", "function": head}
            steps.append(chunk({"tool_calls": [start]}))
            steps += [
                chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
                for piece in _fragments(json.dumps(arguments))
            ]
        steps.append(chunk({}, finish))
        options = received.body.get("stream_options") or {}
        if not received.is_stream or options.get("include_usage"):
            steps.append(chunk(None, usage=USAGE))
        return [*steps, DONE]

    return play


def _fragments(text: str) -> list[str]:
    return [text[at : at + FRAGMENT_CHARS] for at in range(0, len(text), FRAGMENT_CHARS)]
