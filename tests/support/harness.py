"""A proxy in this process, on real loopback sockets, in front of upstreams that a test writes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from proxyd.config.models import load_text
from proxyd.config.settings import Settings
from proxyd.daemon.configuration import LoadedConfig, checks
from proxyd.daemon.server import Daemon
from tests.support.servers import running_site

__all__ = [
    "HalfStream",
    "Upstream",
    "chunk",
    "load_entries",
    "running_daemon",
    "running_proxy",
    "running_upstream",
    "sse",
    "text_stream",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def load_entries(entries: Sequence[Mapping[str, Any]], **settings: Any) -> LoadedConfig:
    """A configuration as models.yaml would give it; `settings` override the defaults.

    Without them no connection is opened but by calls, so that tests can count connections.
    """
    text = "\n".join(f"- {json.dumps(dict(entry))}" for entry in entries)
    config = load_text(text, Path("models.yaml"), {}, checks=checks())
    in_force = replace(Settings(), **{"port": 0, "keep_warm": False, **settings})
    table = config.table.with_discovery_prefix(in_force.discovery_prefix)
    return LoadedConfig(replace(config, table=table), in_force)


@asynccontextmanager
async def running_proxy(
    entries: Sequence[Mapping[str, Any]], *, state_folder: Path | None = None, **settings: Any
) -> AsyncIterator[str]:
    """The daemon on a free port; gives its base URL."""
    async with running_daemon(load_entries(entries, **settings), state_folder=state_folder) as base:
        yield base


@asynccontextmanager
async def running_daemon(config: LoadedConfig, *, state_folder: Path | None = None) -> AsyncIterator[str]:
    """As `running_proxy`, of a configuration that is loaded."""
    daemon = Daemon(config, state_folder=state_folder)
    await daemon.start()
    try:
        host, port = daemon.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await daemon.drain()
        await daemon.close()


@dataclass
class Upstream:
    """A server that a test writes; `requests` holds what it was sent."""

    base: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def running_upstream(response: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Serve every path with `response`, over TLS if a context for it is given, after noting the request."""
    upstream = Upstream()

    async def noted(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        upstream.bodies.append(body)
        upstream.requests.append(json.loads(body) if body else {})
        upstream.headers.append({name.lower(): value for name, value in request.headers.items()})
        return await response(request)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", noted)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    async with running_site(runner, tls) as port:
        upstream.base = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        yield upstream


class HalfStream:
    """A handler of `running_upstream` that sends the first bytes of a stream, and the others once `go_on` is set.

    Attributes:
        begun: streams whose first bytes were sent.
    """

    def __init__(self, body: bytes, first: int) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self._body, self._first = body, first

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(self._body[: self._first])
        self.begun += 1
        await self.go_on.wait()
        await response.write(self._body[self._first :])
        return response


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chat.completion.chunk."""
    choices = [] if delta is None else [{"index": 0, "delta": dict(delta), "finish_reason": finish}]
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
        **more,
    }


def sse(*chunks: Mapping[str, Any], done: bool = True) -> bytes:
    """Chunks as an event stream."""
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks)
    return body + (b"data: [DONE]\n\n" if done else b"")


def text_stream(*texts: str) -> bytes:
    """A whole stream that says `texts`, with usage."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    return sse(*(chunk({"content": text}) for text in texts), chunk({}, "stop"), chunk(usage=usage))
