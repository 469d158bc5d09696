"""A client's request that has been understood: what of it is needed, for as long as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from aiohttp import web

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.errors import ClientError
from proxyd.prompt_cache.parser import parse_object
from proxyd.providers.base import ClientKeys
from proxyd.providers.unparsed import PeekedRequest
from proxyd.proxy.held_bodies import HeldBody
from proxyd.telemetry.cache_breaks import checksums
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.prompt_redaction import without_prompt_text

__all__ = ["HELD", "PREFIX", "ClientRequest"]

_T = TypeVar("_T")

#: The share of a request's body in what all bodies may take.
HELD = web.RequestKey("held", HeldBody)
#: All endpoints are also served below this (docs/spec/design.md#prefix).
PREFIX = "/anthropic"
#: From here on a request is worked on step by step.
_LARGE_BYTES = 256 * 1024
#: How long the others have between two steps. A request of 2 MB takes 50 times as long.
_BREATH_S = 0.001


class ClientRequest:
    """A request that has been understood.

    Args:
        payload: `body`, parsed, or None where it has not been read.
        seen: what it asks for, where it may go on unread.
        is_message: else it is a question about a model or a count, which only direct upstreams are asked.
    """

    __slots__ = (
        "_payload",
        "body",
        "inputs",
        "is_message",
        "keys",
        "record",
        "seen",
        "wants_stream",
        "web_request",
    )

    def __init__(
        self,
        web_request: web.Request,
        record: CallRecord,
        body: bytes,
        payload: dict[str, Any] | None,
        keys: ClientKeys,
        *,
        wants_stream: bool,
        is_message: bool = True,
        seen: PeekedRequest | None = None,
    ) -> None:
        self.web_request = web_request
        self.record = record
        self.body = body
        self._payload = payload
        self.keys = keys
        self.wants_stream = wants_stream
        self.is_message = is_message
        self.seen = seen
        #: Those of `payload`, as far as they have been written.
        self.inputs = ToolInputs()

    @property
    def payload(self) -> dict[str, Any]:
        """The body, parsed.

        Raises:
            ClientError: it is no JSON object.
        """
        if self._payload is None:
            self._payload = parse_object(self.body)
        return self._payload

    @property
    def model(self) -> str:
        """What the client asked for, all of it; not after `let_go`."""
        return self.seen.model if self.seen is not None else str(self.payload["model"])

    def let_go(self, *, is_cached: bool) -> None:
        """Free the body and what was parsed from it: the stream has begun, so no retry can need them.

        Args:
            is_cached: the upstream keeps prompts, so that it may be asked one day why it did not find this one.
        """
        if self.record.session_id is not None and is_cached:
            try:
                self.record.prompt_blocks = checksums(self.payload)
            except ClientError:
                pass  # it went on unread, and the upstream takes what we do not
        self.body, self._payload, self.seen, self.inputs = b"", {}, None, ToolInputs()
        if (held := self.web_request.get(HELD)) is not None:
            held.release()

    def without_prompt_text(self, message: str) -> str:
        """An upstream's words about this request, less what they quote of it."""
        try:
            payload = self.payload if self.body else {}
        except ClientError:
            payload = {}  # it went on unread, and is no JSON
        return without_prompt_text(message, self.body, payload)

    @property
    def target(self) -> tuple[str, str]:
        """The path of a request with a body, and the query as the client wrote it."""
        path = "/v1/messages" if self.is_message else "/v1/messages/count_tokens"
        written = self.web_request.raw_path
        if not written.startswith("/") or "#" in written:  # a forward proxy's, or nobody's
            return path, self.web_request.rel_url.raw_query_string
        return path, written.partition("?")[2]

    async def yield_to_loop(self) -> None:
        """Let all others have a turn between two steps over a large request: each takes about 4 ms a megabyte
        (docs/spec/operations.md#a8). Threads would not help, since none of the steps lets go of the interpreter's
        lock. One that goes on unread has no such steps.
        """
        if self.record.bytes_in > _LARGE_BYTES and self._payload is not None:
            # Not one turn of the loop, which is a third of what it takes to answer somebody, but as many as fit.
            await asyncio.sleep(_BREATH_S)

    async def step_by_step(self, steps: Generator[None, None, _T]) -> _T:
        """What comes of `steps`, with a breath between them."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: _T = end.value
                return result
            await self.yield_to_loop()
