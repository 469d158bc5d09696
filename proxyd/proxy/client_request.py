"""A parsed request of a client, and releasing it once the response has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from aiohttp import web

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.translated import run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.errors import ClientError
from proxyd.prompt_cache.parser import parse_large_object, parse_object
from proxyd.providers.base import ClientKeys
from proxyd.providers.unparsed import PeekedRequest
from proxyd.proxy.held_bodies import HeldBody
from proxyd.proxy.inner_call import InnerRequest
from proxyd.proxy.large_requests import LargeRequests
from proxyd.telemetry.cache_breaks import checksums
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.prompt_redaction import is_searched, without_prompt_text

__all__ = ["HELD", "PREFIX", "ClientRequest"]

_T = TypeVar("_T")

#: The request's share of the limit on all request bodies.
HELD = web.RequestKey("held", HeldBody)
#: All endpoints are also served below this (docs/spec/design.md#prefix).
PREFIX = "/anthropic"
#: Above this size a request is processed in steps, between which other tasks run.
_LARGE_BYTES = 256 * 1024
#: How long other tasks run between two steps. A request of 2 MB takes 50 times as long.
_YIELD_S = 0.001


class ClientRequest:
    """A parsed request.

    Args:
        payload: `body`, parsed, or None where it has not been parsed yet.
        seen: what was found by scanning the body, where it may be forwarded without being parsed.
        route: the entry that a rule chose; None for that of the model.
        is_message: else it asks about a model or for a token count, which is for direct upstreams only.
        large: does the work of a large request; None for all others.

    Attributes:
        outline: `body`, or fewer bytes with the same members (`proxyd.prompt_cache.parser.parse_request`).
    """

    __slots__ = (
        "_large",
        "_payload",
        "body",
        "inputs",
        "is_message",
        "keys",
        "outline",
        "record",
        "route",
        "seen",
        "wants_stream",
        "web_request",
    )

    def __init__(
        self,
        web_request: web.Request | InnerRequest,
        record: CallRecord,
        body: bytes,
        payload: dict[str, Any] | None,
        keys: ClientKeys,
        *,
        wants_stream: bool,
        is_message: bool = True,
        seen: PeekedRequest | None = None,
        route: ModelRoute | None = None,
        large: LargeRequests | None = None,
    ) -> None:
        self.route = route
        self._large = large
        self.web_request = web_request
        self.record = record
        self.body = body
        self._payload = payload
        self.keys = keys
        self.wants_stream = wants_stream
        self.is_message = is_message
        self.seen = seen
        self.outline = body
        #: The tool inputs of `payload` that have been serialized so far.
        self.inputs = ToolInputs()

    @property
    def payload(self) -> dict[str, Any]:
        """The parsed body.

        Raises:
            ClientError: it is not a JSON object.
        """
        if self._payload is None:
            self._payload = parse_object(self.body)
        return self._payload

    @property
    def is_large(self) -> bool:
        """Whether the work on it would block the event loop for too long."""
        return self._large is not None

    async def parse(self) -> None:
        """Parse the body, unless it is parsed already.

        Raises:
            ClientError: it is not a JSON object.
        """
        if self._payload is None and self._large is not None:
            self._payload = await self._large.run(parse_large_object, self.body)

    @property
    def model(self) -> str:
        """The model that the client asked for; not after `release_body`."""
        return self.seen.model if self.seen is not None else str(self.payload["model"])

    def release_body(self, *, is_cached: bool) -> None:
        """Release the body and all that was parsed from it: the stream has begun, so no retry can need them.

        Args:
            is_cached: the upstream caches prompts, so checksums are kept to explain a later cache miss.
        """
        if self.record.session_id is not None and is_cached and not self.is_large:
            self.record.prompt_blocks = checksums(self.payload)
        self.body, self._payload, self.seen, self.inputs, self.outline = b"", {}, None, ToolInputs(), b""
        if (held := self.web_request.get(HELD)) is not None:
            held.release()

    def without_prompt_text(self, message: str) -> str:
        """Return an upstream's message about this request, without what it quotes of the prompt."""
        try:
            payload = self.payload if is_searched(self.body) else {}
        except ClientError:
            payload = {}  # it was forwarded without being parsed
        return without_prompt_text(message, self.body, payload)

    @property
    def target(self) -> tuple[str, str]:
        """Path and query for the upstream; the query is as the client wrote it."""
        path = "/v1/messages" if self.is_message else "/v1/messages/count_tokens"
        written = self.web_request.raw_path
        if not written.startswith("/") or "#" in written:  # in absolute form, or malformed
            return path, self.web_request.rel_url.raw_query_string
        return path, written.partition("?")[2]

    async def yield_to_loop(self) -> None:
        """Let other tasks run between two steps of processing a large request.

        A step takes about 4 ms a megabyte (docs/spec/operations.md#a8). A request that is forwarded without being
        parsed has no such steps; those of a large one run in another thread (`proxyd.proxy.large_requests`).
        """
        if self.record.bytes_in > _LARGE_BYTES and self._payload is not None:
            # Not a single iteration of the loop: to respond to one other call takes three.
            await asyncio.sleep(_YIELD_S)

    async def run(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call `function` and return its result; for a large request in the thread of large requests."""
        if self._large is None:
            return function(*args, **kwargs)
        return await self._large.run(function, *args, **kwargs)

    async def run_steps(self, steps: Generator[None, None, _T]) -> _T:
        """Run `steps` to its end and return its value; yield to the loop between them."""
        if self._large is not None:
            return await self._large.run(run_to_end, steps)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: _T = end.value
                return result
            await self.yield_to_loop()
