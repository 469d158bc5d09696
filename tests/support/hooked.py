"""A proxy with hook files, in front of an upstream of either kind, and what a client sees of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web

from proxyd.daemon.server import Daemon
from proxyd.hooks.loader import HookSet, load_hooks
from tests.support.harness import Upstream, load_entries, running_upstream, text_stream

__all__ = ["HookedProxy", "anthropic_stream", "hooked_proxy", "text_of", "write_hook"]

BODY = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


def write_hook(folder: Path, name: str, text: str) -> Path:
    """A hook file; only its owner may write it, whatever the umask."""
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text)
    path.chmod(0o644)
    return path


def anthropic_stream(*texts: str, **extra: Any) -> bytes:
    """A whole Anthropic stream; `extra` is put into ``message_delta``, as the real API does with fields of its own."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {
                **message,
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 1, "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            for text in texts
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
            **extra,
        },
        {"type": "message_stop"},
    ]
    # Spaces after colons, as no encoder of ours writes them: so it shows which bytes are the upstream's own.
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events
    )


def text_of(events: list[dict[str, Any]]) -> str:
    """The text that a client puts together."""
    return "".join(
        event["delta"].get("text", "") for event in events if "index" in event and "delta" in event
    )


@dataclass
class HookedProxy:
    """A running proxy, its upstream and its hooks."""

    base: str
    upstream: Upstream
    hooks: HookSet
    daemon: Daemon

    async def raw(self, path: str = "/v1/messages", **body: Any) -> bytes:
        """What a client receives."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.base}{path}", json={**BODY, **body}, headers={"x-api-key": "k"}) as response,
        ):
            data = await response.read()
            assert response.status == 200, data
            return data

    async def events(self, **body: Any) -> list[dict[str, Any]]:
        """The data of the events of one stream."""
        data = await self.raw(stream=True, **body)
        return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: ")]

    async def message(self, **body: Any) -> dict[str, Any]:
        """A message that is not streamed."""
        message: dict[str, Any] = json.loads(await self.raw(**body))
        return message


@asynccontextmanager
async def hooked_proxy(
    folder: Path,
    mode: str,
    *,
    stream: bytes | None = None,
    options: Mapping[str, Any] | None = None,
    timeout_s: float = 5,
    entry: Mapping[str, Any] | None = None,
    encoding: str | None = None,
    isolation: Literal["thread", "process"] = "thread",
    **settings: Any,
) -> AsyncIterator[HookedProxy]:
    """The hooks of `folder` in force, over an upstream of `mode` that responses with `stream`.

    Args:
        encoding: of the responses, although none was requested.
    """
    is_direct = mode == "direct"
    if stream is None:
        stream = anthropic_stream("Hello ", "world") if is_direct else text_stream("Hello ", "world")

    async def respond(request: web.Request) -> web.StreamResponse:
        if is_direct and not json.loads(await request.read()).get("stream"):
            message = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [{"type": "text", "text": "Hello world"}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 1, "output_tokens": 2},
            }
            body = {"input_tokens": 7} if "count_tokens" in request.path else message
            return encoded(json.dumps(body).encode(), "application/json")
        return encoded(stream, "text/event-stream")

    def encoded(body: bytes, content_type: str) -> web.Response:
        if encoding is None:
            return web.Response(body=body, content_type=content_type)
        headers = {"content-encoding": encoding}
        body = gzip.compress(body) if encoding == "gzip" else body
        return web.Response(body=body, content_type=content_type, headers=headers)

    async with running_upstream(respond) as upstream:
        base = upstream.base if is_direct else f"{upstream.base}/v1"
        config = load_entries(
            [{"model_id": "m", "api_base": base, "direct": is_direct, **(entry or {})}], **settings
        )
        hooks = load_hooks(folder, options=options, timeout_s=timeout_s, isolation=isolation)
        daemon = Daemon(replace(config, hooks=hooks))
        await daemon.start()
        try:
            host, port = daemon.addresses[0]
            yield HookedProxy(f"http://{host}:{port}", upstream, hooks, daemon)
        finally:
            await daemon.drain()
            await daemon.close()
