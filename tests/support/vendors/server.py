"""A simulator behind a socket: what it does not refuse gets a short stream."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from tests.support.servers import running_site
from tests.support.vendors.engine import Vendor

__all__ = ["VendorServer"]

MAX_BODY_BYTES = 64 * 1024 * 1024


class VendorServer:
    """A started simulator; use it as an async context manager.

    Attributes:
        api_base: for models.yaml.
        bodies: what was received, in order.
        refused: the names of the rules that were broken, in order.
    """

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._running = AsyncExitStack()
        self.api_base = ""
        self.bodies: list[dict[str, Any]] = []
        self.refused: list[str] = []

    async def __aenter__(self) -> VendorServer:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        port = await self._running.enter_async_context(running_site(runner))
        self.api_base = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        found = self._vendor.judge(body, request.headers)
        if found is not None:
            self.refused.append(found.rule)
            return web.json_response(found.body, status=found.status)
        if body.get("stream") is not True:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": "Fine."},
                "finish_reason": "stop",
            }
            return web.json_response({"id": "c1", "object": "chat.completion", "choices": [choice]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, finish in (({"role": "assistant", "content": "Fine."}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            event = {"id": "c1", "object": "chat.completion.chunk", "choices": [choice]}
            await response.write(b"data: %b\n\n" % json.dumps(event).encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response
