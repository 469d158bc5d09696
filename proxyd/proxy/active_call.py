"""A call in flight: what its attempts share, and each way in which it can end.

::

    answer, finish ─▶ whole
    end            ─▶ a stream that has begun and has failed: one error event, or a cut connection
    note_failure   ─▶ refused: nothing has been sent, and whoever called answers with the error
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import StreamEvent, encode_events
from proxyd.codecs.anthropic.usage import Usage
from proxyd.errors import ProxyError, Refused
from proxyd.logs.setup import get_logger
from proxyd.providers.base import ClientKeys
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.client_response import SSE_HEADERS, ResponseWriter
from proxyd.redaction import redacted
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.timers import Timers

__all__ = ["ActiveCall"]

log = get_logger("relay")


@dataclass(slots=True)
class ActiveCall:
    """A call in flight.

    Attributes:
        task: carries it.
        aborts: whether a stream that has begun and fails is cut, instead of ended with an error event
            (``on_midstream_error``).
        failure: set from outside: how it must end.
        is_first_choice: the upstream being tried is the one that the client has chosen.
        is_retrying: it waits for another try, or tries, and its upstream has not answered yet.
    """

    request: ClientRequest
    downlink: ResponseWriter
    deadlines: Timers
    task: asyncio.Task[Any]
    aborts: bool = False
    failure: ProxyError | None = None
    is_first_choice: bool = True
    is_retrying: bool = False

    @property
    def keys(self) -> ClientKeys:
        """The client's keys, for the upstream that they are meant for."""
        return self.request.keys if self.is_first_choice else ClientKeys()

    @property
    def record(self) -> CallRecord:
        return self.request.record

    @property
    def own_headers(self) -> tuple[tuple[str, str], ...]:
        """What every answer to it carries."""
        record = self.record
        return ("request-id", record.request_id), ("x-claude-proxy-route", record.route)

    def log_bodies(self) -> None:
        """Log what the client asks and is answered, at debug: for who has switched it on.

        See docs/spec/operations.md#e7.
        """
        request_id = self.record.request_id
        log.debug("request.body", request_id=request_id, body=self.request.body.decode("utf-8", "replace"))
        self.downlink.on_sent = lambda data: log.debug(
            "answer.sent", request_id=request_id, data=data.decode("utf-8", "replace")
        )

    def remembered(self, exc: ProxyError) -> str:
        """The sentence of a failure for logs and feeds. Only one that is the upstream's own may quote the request, and
        ours are kept whole: people show them to the model when something does not work (docs/spec/operations.md#e7).
        """
        message = redacted(errors.message_of(exc))
        return self.request.without_prompt_text(message) if type(exc) is Refused else message

    def crash_of(self, exc: Exception) -> ProxyError:
        """`exc` as a failure that has an answer; a mistake of ours is logged with its traceback.

        See docs/spec/operations.md#a6.
        """
        if isinstance(exc, ProxyError):
            return exc
        record = self.record
        log.error("request.crashed", request_id=record.request_id, route=record.route, exc_info=exc)
        return ProxyError(errors.message_of(exc))

    def record_failure(self, exc: ProxyError, outcome: str) -> None:
        """Remember how it failed.

        Args:
            outcome: ``refused`` where nothing of an answer was given out, else ``failed``.
        """
        record = self.record
        record.status, record.error_type = errors.error_response(exc)
        # Masked now: what remembers the call, such as /events, outlives the keys that the words may hold.
        record.outcome, record.error = outcome, self.remembered(exc)
        if outcome == "refused":
            record.usage, record.settle = Usage(), None
        else:
            errors.clear_tracebacks(exc)  # nobody else will
        if exc.detail:
            log.warning(
                "upstream.bad_reply",
                request_id=record.request_id,
                route=record.route,
                seen=self.request.without_prompt_text(exc.detail),
            )

    # -- the answer

    def set_stream_head(self) -> None:
        """The head will be that of an event stream of ours."""
        self.downlink.set_head(200, (*SSE_HEADERS, *self.own_headers), is_stream=True)

    async def answer(self, message: dict[str, Any]) -> web.StreamResponse:
        """Send a whole message to a client that wants no stream."""
        body = jsonio.dumps(message)
        self.record.on_first_byte()
        self.record.outcome = "ok"
        head = (("content-type", "application/json"), ("content-length", str(len(body))))
        self.downlink.set_head(200, (*self.own_headers, *head), is_stream=False)
        return await self.finish(body)

    async def finish(self, last: bytes = b"") -> web.StreamResponse:
        """Send the last bytes, and the end of the response."""
        self.record.status = self.downlink.status
        await self.downlink.finish(last)
        return self.downlink.response

    async def end(self, failure: ProxyError, events: Iterable[StreamEvent]) -> web.StreamResponse:
        """End a stream that has begun and has failed: with its last events, or as a cut connection."""
        last = encode_events(events)
        # Without a last event the stream is over by its grammar, and what failed is its delivery.
        if self.aborts or not last:
            return self.cut(failure)
        self.record_failure(failure, "failed")
        return await self.finish(last)

    def cut(self, failure: ProxyError) -> web.StreamResponse:
        """Cut the connection of an answer that has begun and has failed, where nothing else tells the client."""
        self.record_failure(failure, "failed")
        self.downlink.abort()
        return self.downlink.response
