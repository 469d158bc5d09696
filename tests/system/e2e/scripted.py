"""An upstream that validates each request and plays a scripted response over real sockets.

A script is a list of *turns*, one for each request in order of arrival, or one turn for all of them.
A turn takes the request and returns *steps*, or a `Refusal`::

    dict      one event, written in the dialect's framing
    bytes     written as they are: [DONE], comments, garbage
    Event     nothing more until it is set
    Fault     the end, in one of the ways in which streams end before their time

Every step is one write, so that a reader sees them one by one. A request that asks for no stream gets the
same events collected into one JSON body.
"""

from __future__ import annotations

import asyncio
import enum
import json
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

from tests.support.servers import running_site
from tests.system.e2e.shape import shape_of

__all__ = ["Fault", "Received", "Refusal", "Script", "ScriptedUpstream", "Step", "Turn", "cut"]

#: Larger than any body that the proxy sends: its own limit is 32 MiB.
MAX_BODY_BYTES = 64 * 1024 * 1024


class Fault(enum.Enum):
    """Ways in which a stream ends early."""

    EOF = "a clean end of the body"
    RESET = "a TCP reset"
    STALL = "silence until the client leaves"


@dataclass(frozen=True)
class Received:
    """A received request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages = self.body.get("messages")
        return messages if isinstance(messages, list) else []

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") is True

    def texts(self, role: str) -> list[str]:
        """Return the text of each message of this role, in order."""
        return [_text_of(message.get("content")) for message in self.messages if message.get("role") == role]


@dataclass(frozen=True)
class Refusal:
    """A response with another status than 200."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


Step = dict[str, Any] | bytes | asyncio.Event | Fault
Turn = Callable[[Received], Sequence[Step] | Refusal]
Script = Sequence[Turn] | Turn
Self = TypeVar("Self", bound="ScriptedUpstream")


def cut(turn: Turn, *, after: int, by: Fault) -> Turn:
    """The first `after` steps of a turn, followed by a fault."""

    def cut_turn(received: Received) -> Sequence[Step] | Refusal:
        played = turn(received)
        return played if isinstance(played, Refusal) else [*played[:after], by]

    return cut_turn


class ScriptedUpstream(ABC):
    """A server on an ephemeral loopback port; use it as an async context manager.

    Attributes:
        requests: what was received, in order, the refused ones included.
        violations: what the judge said, as ``request N: …``.
        unexpected: how many requests came after the end of the script.
    """

    #: The dialect's name, for reports.
    dialect = ""
    #: Path of the dialect's calls.
    path = ""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._played = 0
        self._running = AsyncExitStack()
        self.requests: list[Received] = []
        self.violations: list[str] = []
        self.unexpected = 0
        self.origin = ""

    # --- what a dialect defines

    @abstractmethod
    def judge(self, received: Received) -> list[str]:
        """Return what the real API would refuse in this request; empty if it is valid."""

    @abstractmethod
    def error_body(self, status: int, message: str) -> bytes:
        """Build an error of the dialect."""

    @abstractmethod
    def frame(self, event: dict[str, Any]) -> bytes:
        """Encode an event."""

    @abstractmethod
    def collect(self, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Convert the events of a stream to the body of a response that is not streamed."""

    def wants_stream(self, received: Received) -> bool:
        """Return whether a request asks for a stream."""
        return received.is_stream

    # --- life cycle

    async def __aenter__(self: Self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start listening and set `origin`."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        port = await self._running.enter_async_context(running_site(runner))
        self.origin = f"http://127.0.0.1:{port}"

    async def close(self) -> None:
        await self._running.aclose()

    @property
    def left_over(self) -> int:
        """Number of turns of the script that were not requested."""
        return 0 if callable(self._script) else len(self._script) - self._played

    def complaints(self) -> list[str]:
        """Return what was wrong with the received requests; empty if nothing was."""
        found = [f"{self.dialect} upstream, {violation}" for violation in self.violations]
        if self.unexpected:
            found.append(
                f"{self.dialect} upstream: {self.unexpected} more requests than its script has turns"
            )
        if self.left_over:
            found.append(
                f"{self.dialect} upstream: {self.left_over} turns of the script were never asked for"
            )
        return found

    def report(self) -> str:
        """Return outlines of the received requests, without texts."""
        lines = [f"{self.dialect} upstream received {len(self.requests)} request(s)"]
        for number, received in enumerate(self.requests, 1):
            lines.append(f"  request {number}: {received.method} {received.path} {shape_of(received.body)}")
        return "\n".join([*lines, *(f"  violation: {violation}" for violation in self.violations)])

    # --- responses

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        received = Received(
            request.method,
            request.path,
            request.query_string,
            request.headers,
            body if isinstance(body, dict) else {},
        )
        self.requests.append(received)
        if request.method != "POST" or request.path != self.path:
            problems = [f"{request.method} {request.path} instead of POST {self.path}"]
        elif not isinstance(body, dict):
            problems = ["the body is not a JSON object"]
        else:
            problems = self.judge(received)
        if problems:
            self.violations += [f"request {len(self.requests)}: {problem}" for problem in problems]
            return self._refuse(Refusal(400, self.error_body(400, "; ".join(problems))))
        return await self._play(request, received, self._next(received))

    def _next(self, received: Received) -> Sequence[Step] | Refusal:
        if callable(self._script):
            return self._script(received)
        if self._played == len(self._script):
            self.unexpected += 1
            # Neither the proxy nor Claude Code retries after 403.
            return Refusal(403, self.error_body(403, "the script has ended"))
        self._played += 1
        return self._script[self._played - 1](received)

    def _refuse(self, refusal: Refusal) -> web.Response:
        return web.Response(
            status=refusal.status,
            body=refusal.body,
            headers=dict(refusal.headers),
            content_type=refusal.content_type,
        )

    async def _play(
        self, request: web.Request, received: Received, played: Sequence[Step] | Refusal
    ) -> web.StreamResponse:
        if isinstance(played, Refusal):
            return self._refuse(played)
        if not self.wants_stream(received):
            return await self._whole(request, played)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for step in played:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Fault):
                if step is not Fault.EOF:
                    await self._fail(request, step)
                break
            else:
                await response.write(step if isinstance(step, bytes) else self.frame(step))
        await response.write_eof()
        return response

    async def _whole(self, request: web.Request, played: Sequence[Step]) -> web.Response:
        for step in played:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Fault):
                await self._fail(request, Fault.RESET if step is Fault.EOF else step)
        return web.json_response(self.collect([step for step in played if isinstance(step, dict)]))

    async def _fail(self, request: web.Request, fault: Fault) -> None:
        """End the connection, or wait until the client does, which cancels this handler. Never returns."""
        transport = request.transport
        if fault is Fault.RESET and transport is not None:
            sock = transport.get_extra_info("socket")
            # With SO_LINGER 0, close sends a reset whatever the buffers hold.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        await asyncio.Event().wait()


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part.get("text", "") for part in parts if isinstance(part, dict))
