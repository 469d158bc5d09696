"""A scripted upstream of Google's Gemini API that refuses the same requests as Google.

It hands out thought signatures and knows what it has handed out: a request with anything else in that place is refused
as Google refuses the signatures of another backend. Its prompt cache reports what a strict vendor would have read.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.prefix_cache import PrefixCache
from tests.support.strict_gemini import validate
from tests.system.e2e.scripted import Received, Refusal, Script, ScriptedUpstream, Step, Turn

__all__ = ["PLACEHOLDER", "GeminiUpstream", "respond"]

#: Texts are split into fragments of this many characters.
FRAGMENT_CHARS = 7
MODEL = "gemini-3-pro-preview"
PLACEHOLDER = "skip_thought_signature_validator"

_ids = itertools.count(1)  # Claude Code drops a call with an id that it has seen in the same conversation


class GeminiUpstream(ScriptedUpstream):
    """See `ScriptedUpstream`.

    Args:
        script: turns, see `respond`.
        key: the credential that must come as ``x-goog-api-key``.

    Attributes:
        cache: what was read of the prompts.
        unreadable: how many requests were refused for signatures that are not ours.
    """

    dialect = "Gemini"
    path = f"/v1beta/models/{MODEL}:streamGenerateContent"

    def __init__(self, script: Script, *, key: str) -> None:
        super().__init__(script)
        self._key = key
        self._signatures: set[str] = set()
        self.cache = PrefixCache()
        self.unreadable = 0

    @property
    def api_base(self) -> str:
        """Value for models.yaml."""
        return f"{self.origin}/v1beta"

    def judge(self, received: Received) -> list[str]:
        problems = validate(received.body)
        if received.headers.get("x-goog-api-key") != self._key:
            problems.append("the key is not in x-goog-api-key")
        return problems

    def _next(self, received: Received) -> Sequence[Step] | Refusal:
        signatures = {
            part["thoughtSignature"]
            for content in received.body["contents"]
            for part in content["parts"]
            if "thoughtSignature" in part
        }
        if not signatures <= self._signatures | {PLACEHOLDER}:
            self.unreadable += 1
            return Refusal(400, self.error_body(400, "Corrupted thought signature."))
        cached = self.cache.add(received.body)
        played = super()._next(received)
        if isinstance(played, Refusal):
            return played
        return [self._completed(step, cached) for step in played]

    def _completed(self, step: Step, cached: int) -> Step:
        """Fill in the usage, and note the signatures that are handed out."""
        if not isinstance(step, dict):
            return step
        filled: dict[str, Any] = json.loads(json.dumps(step))
        for candidate in filled["candidates"]:
            for part in candidate.get("content", {}).get("parts", ()):
                if "thoughtSignature" in part:
                    self._signatures.add(part["thoughtSignature"])
        usage = filled["usageMetadata"]
        usage["promptTokenCount"] += cached // 4
        usage["totalTokenCount"] += cached // 4
        usage["cachedContentTokenCount"] = cached // 4
        return filled

    def error_body(self, status: int, message: str) -> bytes:
        name = "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"
        return json.dumps({"error": {"code": status, "message": message, "status": name}}).encode()

    def frame(self, event: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(event).encode() + b"\r\n\r\n"

    def wants_stream(self, received: Received) -> bool:
        return received.path.endswith(":streamGenerateContent")

    def collect(self, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        found = [candidate for event in events for candidate in event["candidates"]]
        parts = [part for candidate in found for part in candidate.get("content", {}).get("parts", ())]
        whole = {**found[-1], "content": {"role": "model", "parts": parts}}
        return {**events[-1], "candidates": [whole]}


def respond(
    *calls: tuple[str, Mapping[str, Any]],
    text: str = "",
    thought: str = "",
    finish: str = "STOP",
) -> Turn:
    """Respond with thoughts, a text and calls, each if given.

    Args:
        calls: tools by name and arguments; the first is signed. Without calls a last, empty text is.
        thought: a summary of the thoughts.
    """

    def play(received: Received) -> Sequence[Step]:
        steps = [_chunk({"text": piece, "thought": True}) for piece in _pieces(thought)]
        steps += [_chunk({"text": piece}) for piece in _pieces(text)]
        for at, (name, arguments) in enumerate(calls):
            call_id = f"fc{next(_ids)}x"
            part: dict[str, Any] = {"functionCall": {"name": name, "args": dict(arguments), "id": call_id}}
            steps.append(_chunk(part if at else {**part, "thoughtSignature": _new_signature()}))
        last: list[dict[str, Any]] = (
            [] if calls or not text else [{"text": "", "thoughtSignature": _new_signature()}]
        )
        steps.append(_chunk(*last, finish=finish))
        return steps

    return play


def _pieces(text: str) -> list[str]:
    return [text[at : at + FRAGMENT_CHARS] for at in range(0, len(text), FRAGMENT_CHARS)]


def _new_signature() -> str:
    return base64.b64encode(f"signature {next(_ids)}".encode()).decode()


def _chunk(*parts: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0}
    if parts:
        candidate["content"] = {"role": "model", "parts": list(parts)}
    if finish:
        candidate["finishReason"] = finish
    usage = {
        "promptTokenCount": 1000,
        "candidatesTokenCount": 22,
        "thoughtsTokenCount": 12,
        "totalTokenCount": 1034,
    }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL, "responseId": "r1"}
