"""``builtin:demo``: the embedded upstream, so that the first conversation needs neither a key nor a network.

A small OpenAI-compatible server on an ephemeral loopback port. The daemon calls it like any upstream, so the first
conversation uses the real path: HTTP, chunks, translation. `proxyd.daemon.demo.reply` generates the text.

A token is a word here, for usage and for ``max_tokens``. One choice, no logprobs.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxyd import jsonio
from proxyd.daemon.demo.reply import BadRequestError, reply_to

__all__ = ["DemoServer", "start_demo"]

#: Seconds between two chunks: about the speed at which people read.
PACE_S = 0.03
#: The Messages API accepts 32 MiB; the same conversation in OpenAI's form may be somewhat larger.
MAX_BODY_BYTES = 48 * 1024 * 1024


class DemoServer:
    """A running demo upstream, created by `start_demo`."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.api_base = f"http://127.0.0.1:{port}/v1"

    async def close(self) -> None:
        """Stop listening and end the streams that are still open."""
        await self._runner.cleanup()


async def start_demo(*, pace_s: float = PACE_S) -> DemoServer:
    """Listen on a free loopback port.

    Args:
        pace_s: seconds between two chunks of a stream; 0 sends as fast as the client reads.
    """

    async def completions(request: web.Request) -> web.StreamResponse:
        return await _completions(request, pace_s)

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_in_openai_shape])
    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_get("/v1/models", _models)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, keepalive_timeout=75.0, shutdown_timeout=1.0
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return DemoServer(runner, runner.addresses[0][1])


def _error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.Response(status=status, body=jsonio.dumps(body), content_type="application/json")


@web.middleware
async def _errors_in_openai_shape(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequestError as exc:
        return _error(400, exc.message, param=exc.param)
    except web.HTTPException as exc:
        message = f"The demo upstream has no {request.method} {request.path}: {exc.reason}."
        return _error(exc.status, message, code="unknown_url" if exc.status == 404 else None)


async def _models(request: web.Request) -> web.Response:
    entry = {"id": "demo", "object": "model", "created": 0, "owned_by": "claude-proxy"}
    return web.Response(
        body=jsonio.dumps({"object": "list", "data": [entry]}), content_type="application/json"
    )


async def _completions(request: web.Request, pace_s: float) -> web.StreamResponse:
    raw = await request.read()
    try:
        body = jsonio.loads(raw)
    except jsonio.JSONError:
        raise BadRequestError("We could not parse the JSON body of your request.") from None
    reply = reply_to(body)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    parts = list(reply.parts())
    sent = parts if limit is None else parts[:limit]
    finish = "stop" if reply.arguments is None else "tool_calls"
    if len(sent) < len(parts):
        finish = "length"
    usage = {
        # Four characters a token is the usual rule of thumb.
        "prompt_tokens": len(raw) // 4 + 1,
        "completion_tokens": len(sent),
        "total_tokens": len(raw) // 4 + 1 + len(sent),
        "completion_tokens_details": {
            "reasoning_tokens": sum(kind == "reasoning_content" for kind, _ in sent)
        },
    }
    completion = _Completion(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), body["model"], finish, usage)
    call_id = f"call_{uuid.uuid4().hex[:24]}"
    if body.get("stream") is True:
        return await _stream(request, completion, _deltas(sent, reply.tool_name, call_id), body, pace_s)
    return web.Response(
        body=jsonio.dumps(completion.whole(_message(sent, reply.tool_name, call_id))),
        content_type="application/json",
    )


@dataclass(frozen=True, slots=True)
class _Completion:
    """Builds the objects of one response."""

    id: str
    created: int
    model: str
    finish: str
    usage: dict[str, Any]

    def whole(self, message: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return self._object("chat.completion", [choice]) | {"usage": self.usage}

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._object("chat.completion.chunk", [choice])

    def usage_chunk(self) -> dict[str, Any]:
        return self._object("chat.completion.chunk", []) | {"usage": self.usage}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def _deltas(parts: list[tuple[str, str]], tool_name: str, call_id: str) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    has_called = False
    for kind, text in parts:
        if kind != "arguments":
            yield {kind: text}
            continue
        if not has_called:
            has_called = True
            function = {"name": tool_name, "arguments": ""}
            yield {"tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}]}
        yield {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


def _message(parts: list[tuple[str, str]], tool_name: str, call_id: str) -> dict[str, Any]:
    texts: dict[str, list[str]] = {"reasoning_content": [], "content": [], "arguments": []}
    for kind, text in parts:
        texts[kind].append(text)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts["content"]) or None}
    if texts["reasoning_content"]:
        message["reasoning_content"] = "".join(texts["reasoning_content"])
    if texts["arguments"]:
        function = {"name": tool_name, "arguments": "".join(texts["arguments"])}
        message["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
    return message


async def _stream(
    request: web.Request,
    completion: _Completion,
    deltas: Iterator[dict[str, Any]],
    body: dict[str, Any],
    pace_s: float,
) -> web.StreamResponse:
    has_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)

    async def send(chunk: dict[str, Any]) -> None:
        # OpenAI sends "usage": null on every chunk but the last when usage was requested.
        await response.write(
            b"data: " + jsonio.dumps({"usage": None} | chunk if has_usage else chunk) + b"\n\n"
        )

    try:
        for delta in deltas:
            await send(completion.chunk(delta))
            if pace_s > 0:
                await asyncio.sleep(pace_s)
        await send(completion.chunk({}, completion.finish))
        if has_usage:
            await send(completion.usage_chunk())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
    except ConnectionResetError:
        pass  # the client has disconnected
    return response
