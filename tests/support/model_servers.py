"""Servers that have lists of models, in the forms of vendors and of local servers, with a tiny chat behind them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.servers import running_site

__all__ = ["LLAMACPP", "LMSTUDIO", "OLLAMA", "SGLANG", "VLLM", "ModelServer", "serving", "serving_in_thread"]

OLLAMA = {
    "/api/tags": {"models": [{"name": "qwen3-coder:30b"}, {"name": "nomic-embed-text"}]},
    "/api/ps": {"models": [{"name": "qwen3-coder:30b", "context_length": 65_536}]},
    "/api/show": {
        "capabilities": ["completion", "tools"],
        "model_info": {"qwen3.context_length": 262_144},
        "parameters": "",
    },
}
LMSTUDIO = {
    "/api/v0/models": {
        "data": [
            {"id": "qwen3", "type": "llm", "state": "loaded", "max_context_length": 131_072,
             "loaded_context_length": 32_768, "capabilities": ["tool_use"]},
            {"id": "gemma", "type": "vlm", "state": "not-loaded", "max_context_length": 131_072},
            {"id": "nomic", "type": "embeddings", "max_context_length": 2048},
        ]
    }
}  # fmt: skip
LLAMACPP = {
    "/v1/models": {"data": [{"id": "model.gguf", "owned_by": "llamacpp"}]},
    "/props": {"default_generation_settings": {"n_ctx": 16_384}, "modalities": {"vision": False}},
}
VLLM = {"/v1/models": {"data": [{"id": "Qwen/Qwen3", "owned_by": "vllm", "max_model_len": 40_960}]}}
SGLANG = {"/v1/models": {"data": [{"id": "Qwen/Qwen3", "owned_by": "sglang", "max_model_len": 32_768}]}}


@dataclass
class ModelServer:
    """A server of these documents.

    Attributes:
        documents: path -> a JSON value, or a `web.Response` to give as it is.
        key: what it wants as ``Bearer``, or in the header `key_header`; "" for none.
        chats: the bodies of the calls.
    """

    documents: Mapping[str, Any]
    key: str = ""
    key_header: str = ""
    base: str = ""
    chats: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    #: Calls of the model are refused.
    fails: bool = False
    #: Set: calls of the model get no response.
    is_slow: threading.Event = field(default_factory=threading.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        expected = (self.key_header, self.key) if self.key_header else ("authorization", f"Bearer {self.key}")
        if self.key and request.headers.get(expected[0]) != expected[1]:
            return web.json_response({"error": {"message": "Invalid API key"}}, status=401)
        if request.path.endswith("/chat/completions"):
            self.chats.append(await request.json())
            if self.fails:
                return web.json_response({"error": {"message": "no such model"}}, status=404)
            while self.is_slow.is_set():
                await asyncio.sleep(0.05)
            message = {"role": "assistant", "content": "yes"}
            return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})
        if ":streamGenerateContent" in request.path:
            self.chats.append(await request.json())
            candidate = {"content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"}
            data = json.dumps({"candidates": [candidate]}).encode()
            return web.Response(body=b"data: " + data + b"\n\n", content_type="text/event-stream")
        found = self.documents.get(request.path_qs, self.documents.get(request.path))
        if found is None:
            return web.Response(status=404)
        if isinstance(found, tuple):
            status, kind, body = found
            return web.Response(status=status, content_type=kind, body=body)
        if request.path == "/api/show" and (await request.json())["model"] == "nomic-embed-text":
            return web.json_response({"capabilities": ["embedding"]})
        return web.json_response(found)


@asynccontextmanager
async def serving(server: ModelServer) -> AsyncIterator[ModelServer]:
    """Serve on a free port of this machine."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    async with running_site(runner) as port:
        server.base = f"http://127.0.0.1:{port}"
        yield server


@contextmanager
def serving_in_thread(
    documents: Mapping[str, Any], key: str = "", key_header: str = ""
) -> Iterator[ModelServer]:
    """As `serving`, for a test that blocks."""
    server = ModelServer(documents, key, key_header)
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with serving(server):
            ready.set()
            await done.wait()

    def work() -> None:
        loop.run_until_complete(run())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        server.is_slow.clear()
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
