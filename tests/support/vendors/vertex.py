"""Vertex AI as strict as Google's documentation and public reports say: Gemini and Claude behind one address.

It shares no code with what it judges.
"""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from tests.support.strict_gemini import validate

__all__ = ["BASE_PATH", "StrictVertex"]

BASE_PATH = "/v1/projects/my-project/locations/global"
#: cloud.google.com, REST: publishers.models.streamGenerateContent, generateContent, countTokens; anthropic Python SDK
#: 2.12, lib/vertex/_client.py, for Claude.
PATH = re.compile(
    re.escape(BASE_PATH)
    + r"/publishers/(?P<publisher>google|anthropic)/models/(?P<model>[\w.@-]+):(?P<method>\w+)"
)
#: base64 of skip_thought_signature_validator (LiteLLM 1.110).
PLACEHOLDER = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
OWN_SIGNATURE = "dmVydGV4LXNpZ25hdHVyZQ=="
#: Refused with "Extra inputs are not permitted": Kong/developer.konghq.com#5952.
EXTRA = ("output_config", "mcp_servers", "container", "service_tier", "model")
#: Refused: anthropics/claude-code#34802, #21625, vercel/ai#10981, tombii/better-ccflare#47.
BETAS = re.compile(
    r"effort-|adaptive-thinking-|prompt-caching-scope-|structured-outputs-|oauth-|claude-code-|fine-grained-|fast-mode-"
)
#: And when tokens are counted: anthropics/claude-code#12429.
BETAS_OF_COUNTS = re.compile(BETAS.pattern + "|web-search-")

GEMINI_CALL = {
    "functionCall": {"name": "Read", "args": {"path": "/a"}},
    "thoughtSignature": OWN_SIGNATURE,
}
CLAUDE_STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_vrtx_1","type":"message",'
    b'"role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":5,"output_tokens":1}}}\n\n'
    b'event: ping\ndata: {"type": "ping"}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hello."}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":3}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


class StrictVertex:
    """A handler of requests.

    Attributes:
        token: the one that is valid.
        called: the methods that were called, as ``publisher/model:method``.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.called: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        path = PATH.fullmatch(request.path)
        if path is None:
            return _google_error(404, "NOT_FOUND", f"{request.path} was not found")
        if request.headers.get("authorization") != f"Bearer {self.token}" or any(
            name in request.headers for name in ("x-goog-api-key", "x-api-key")
        ):
            return _google_error(
                401, "UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2"
            )
        self.called.append(f"{path['publisher']}/{path['model']}:{path['method']}")
        if path["publisher"] == "google":
            return self._gemini(path["method"], request, body)
        return self._claude(path["model"], path["method"], request, body)

    def _gemini(self, method: str, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        faults = validate(body)
        for content in body["contents"]:
            for part in content["parts"]:
                if part.get("thoughtSignature") not in (None, OWN_SIGNATURE, PLACEHOLDER):
                    faults.append("Invalid thought signature.")  # LiteLLM, rejected_thought_signature_retry
                if "id" in part.get("functionCall", {}) or "id" in part.get("functionResponse", {}):
                    faults.append('Invalid JSON payload received. Unknown name "id"')  # co-mono notes
        if faults:
            return _google_error(400, "INVALID_ARGUMENT", faults[0])
        if method == "countTokens":
            return web.json_response({"totalTokens": 77, "totalBillableCharacters": 300})
        assert method == "streamGenerateContent"
        assert request.query_string == "alt=sse"
        has_result = any("functionResponse" in part for part in body["contents"][-1]["parts"])
        part = GEMINI_CALL if "tools" in body and not has_result else {"text": "Hello."}
        candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
        usage = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}
        data = json.dumps({"candidates": [candidate], "usageMetadata": usage}).encode()
        return web.Response(body=b"data: " + data + b"\r\n\r\n", content_type="text/event-stream")

    def _claude(
        self, model: str, method: str, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        counts = model == "count-tokens"
        betas = request.headers.get("anthropic-beta", "")
        wrong = [
            beta for beta in betas.split(",") if (BETAS_OF_COUNTS if counts else BETAS).match(beta.strip())
        ]
        if wrong:
            return _claude_error(
                f"Unexpected value(s) `{'`, `'.join(wrong)}` for the `anthropic-beta` header."
            )
        if body.pop("anthropic_version", None) != "vertex-2023-10-16":
            return _claude_error("anthropic_version: Field required")
        for name in EXTRA:
            if name in body and not (counts and name == "model"):
                return _claude_error(f"{name}: Extra inputs are not permitted")
        if counts:
            assert method == "rawPredict"
            return web.json_response({"input_tokens": 42})
        if body.get("stream") is True:
            assert method == "streamRawPredict"
            return web.Response(body=CLAUDE_STREAM, content_type="text/event-stream")
        assert method == "rawPredict"
        message = {"id": "msg_vrtx_1", "type": "message", "role": "assistant", "model": model}
        content = [{"type": "text", "text": "Hello."}]
        usage = {"input_tokens": 5, "output_tokens": 3}
        return web.json_response({**message, "content": content, "stop_reason": "end_turn", "usage": usage})


def _google_error(code: int, status: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, "status": status}}, status=code)


def _claude_error(message: str) -> web.Response:
    error = {"type": "invalid_request_error", "message": message}
    return web.json_response({"type": "error", "error": error, "request_id": "req_vrtx_1"}, status=400)
