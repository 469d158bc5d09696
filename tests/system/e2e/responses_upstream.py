"""A scripted upstream of OpenAI's Responses API that refuses the same requests as OpenAI.

It hands out encrypted reasoning and knows what it has handed out: a request with anything else in that place is refused
as OpenAI refuses the reasoning of another account. Its prompt cache reports what a strict vendor would have read.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.prefix_cache import PrefixCache
from tests.support.strict_responses import validate
from tests.system.e2e.scripted import Received, Refusal, Script, ScriptedUpstream, Step, Turn

__all__ = ["ResponsesUpstream", "respond"]

#: Texts and arguments are split into fragments of this many characters.
FRAGMENT_CHARS = 7

_ids = itertools.count(1)  # Claude Code drops a call with an id that it has seen in the same conversation


class ResponsesUpstream(ScriptedUpstream):
    """See `ScriptedUpstream`.

    Args:
        script: turns, see `respond`.
        key: the credential that must come as ``Authorization: Bearer``.

    Attributes:
        cache: what was read of the prompts.
        unreadable: how many requests were refused for reasoning that is not ours.
    """

    dialect = "Responses"
    path = "/v1/responses"

    def __init__(self, script: Script, *, key: str) -> None:
        super().__init__(script)
        self._key = key
        self.cache = PrefixCache()
        self.unreadable = 0

    @property
    def api_base(self) -> str:
        """Value for models.yaml."""
        return f"{self.origin}/v1"

    def judge(self, received: Received) -> list[str]:
        problems = validate(received.body)
        if received.headers.get("Authorization") != f"Bearer {self._key}":
            problems.append("the key is not in Authorization: Bearer")
        return problems

    def _next(self, received: Received) -> Sequence[Step] | Refusal:
        for item in received.body["input"]:
            content = item.get("encrypted_content")
            if content is not None and not content.startswith(self.origin):
                self.unreadable += 1
                return Refusal(400, self.error_body(400, "The encrypted content x could not be verified."))
        cached = self.cache.add(received.body)
        played = super()._next(received)
        if isinstance(played, Refusal):
            return played
        return [self._completed(step, cached) for step in played]

    def _completed(self, step: Step, cached: int) -> Step:
        """Fill in the usage, and the origin of encrypted reasoning."""
        if not isinstance(step, dict):
            return step
        text = json.dumps(step).replace("ORIGIN", self.origin)
        filled: dict[str, Any] = json.loads(text)
        response = filled.get("response")
        if isinstance(response, dict) and isinstance(response.get("usage"), dict):
            response["usage"]["input_tokens"] += cached // 4
            response["usage"]["total_tokens"] += cached // 4
            response["usage"]["input_tokens_details"]["cached_tokens"] = cached // 4
        return filled

    def error_body(self, status: int, message: str) -> bytes:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()

    def frame(self, event: dict[str, Any]) -> bytes:
        return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()

    def collect(self, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        response: dict[str, Any] = events[-1]["response"]
        return response


def respond(
    *calls: tuple[str, Mapping[str, Any]],
    text: str = "",
    thought: str | None = None,
    phase: str | None = None,
) -> Turn:
    """Respond with reasoning, a text and calls, each if given.

    Args:
        calls: tools by name and arguments.
        thought: the summary of the reasoning; "" for reasoning without one.
        phase: of the text.
    """

    def play(received: Received) -> Sequence[Step]:
        items: list[dict[str, Any]] = []
        if thought is not None:
            summary = [{"type": "summary_text", "text": thought}] if thought else []
            items.append(
                {
                    "type": "reasoning",
                    "id": f"rs_{next(_ids)}",
                    "summary": summary,
                    "encrypted_content": f"ORIGIN reasoning {next(_ids)}",
                }
            )
        if text:
            content = [{"type": "output_text", "text": text, "annotations": []}]
            message = {"type": "message", "id": f"msg_{next(_ids)}", "role": "assistant", "content": content}
            items.append({**message, **({"phase": phase} if phase else {})})
        for name, arguments in calls:
            items.append(
                {
                    "type": "function_call",
                    "id": f"fc_{next(_ids)}",
                    "call_id": f"call_e2e_{next(_ids)}",
                    "name": name,
                    "arguments": json.dumps(arguments),
                }
            )
        response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
        for index, item in enumerate(items):
            events += [{**event, "output_index": index} for event in _events_of(item)]
        usage = {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 34,
            "output_tokens_details": {"reasoning_tokens": 12},
            "total_tokens": 1034,
        }
        done = {**response, "status": "completed", "output": items, "usage": usage}
        return _numbered([*events, {"type": "response.completed", "response": done}])

    return play


def _events_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    empty = {"summary": [], "content": [], "arguments": ""}
    begun = {**item, **{name: value for name, value in empty.items() if name in item}}
    begun.pop("encrypted_content", None)
    kind, whole = {
        "reasoning": ("reasoning_summary_text", "".join(part["text"] for part in item.get("summary", ()))),
        "message": ("output_text", item.get("content", [{"text": ""}])[0].get("text", "")),
        "function_call": ("function_call_arguments", item.get("arguments", "")),
    }[item["type"]]
    if item["type"] == "reasoning" and not item["summary"]:
        deltas = []
    else:
        pieces = [whole[at : at + FRAGMENT_CHARS] for at in range(0, len(whole), FRAGMENT_CHARS)]
        deltas = [{"type": f"response.{kind}.delta", "delta": piece} for piece in pieces]
    return [
        {"type": "response.output_item.added", "item": begun},
        *deltas,
        {"type": "response.output_item.done", "item": item},
    ]


def _numbered(events: list[dict[str, Any]]) -> list[Step]:
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]
