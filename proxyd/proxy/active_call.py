"""A call in flight: what its attempts share, and each way in which it can end.

::

    respond, finish ─▶ complete
    end, cut        ─▶ the response had begun and failed: one error event, or a closed connection
    record_failure  ─▶ refused: nothing has been sent, and the caller responds with the error
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxyd import errors
from proxyd.codecs.anthropic.usage import Usage
from proxyd.errors import ProxyError, Refused, UnreadableStream
from proxyd.logs.setup import get_logger
from proxyd.providers.base import ClientKeys
from proxyd.providers.upstream_search import UpstreamSearch
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.client_response import SSE_HEADERS, ResponseWriter
from proxyd.proxy.inner_call import BodyWriter
from proxyd.proxy.retries import RetryBudget
from proxyd.redaction import redacted
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.timers import Timers

__all__ = ["ActiveCall", "Finisher"]

#: Works out what the end of a message must hold beside what the upstream has sent. It gets the message, complete with
#: stop reason, as the client will have it, and returns members for the ``delta`` of ``message_delta``, or for the
#: message of a client that does not stream; none leaves the end as it is. It is awaited once, in the call's own task,
#: after everything before the end was sent: pings go on, and it is cancelled with the call.
Finisher = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = get_logger("relay")


@dataclass(slots=True)
class ActiveCall:
    """A call in flight.

    Attributes:
        task: the task that carries it.
        budget: the retry budget that all calls share.
        aborts: whether a stream that has begun and fails is cut, instead of ended with an error event
            (``on_midstream_error``).
        failure: set from outside to end the call with it.
        is_first_choice: the upstream being tried is the one that the client has chosen.
        stops_early: is given the frames of a response that is not streamed to the client, and returns whether the rest
            of it is not needed.
        has_key_pool: another key can be tried if the upstream refuses this one.
        is_retrying: it waits for a retry, or for the upstream's response to one.
        search: a search of the web that the upstream is to make itself.
    """

    request: ClientRequest
    writer: ResponseWriter | BodyWriter
    timers: Timers
    task: asyncio.Task[Any]
    budget: RetryBudget
    aborts: bool = False
    failure: ProxyError | None = None
    is_first_choice: bool = True
    is_retrying: bool = False
    stops_early: Callable[[bytes], bool] | None = None
    search: UpstreamSearch | None = None
    has_key_pool: bool = False

    @property
    def keys(self) -> ClientKeys:
        """The client's keys, for the upstream that they are meant for."""
        return self.request.keys if self.is_first_choice else ClientKeys()

    @property
    def record(self) -> CallRecord:
        return self.request.record

    @property
    def own_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that every response to it has."""
        record = self.record
        own = ("request-id", record.request_id), ("x-claude-proxy-route", record.route)
        return own if record.rule is None else (*own, ("x-claude-proxy-rule", record.rule))

    def log_bodies(self) -> None:
        """Log the bodies of request and response at debug level (docs/spec/operations.md#e7)."""
        request_id = self.record.request_id
        log.debug("request.body", request_id=request_id, body=self.request.body.decode("utf-8", "replace"))
        self.writer.on_sent = lambda data: log.debug(
            "response.sent", request_id=request_id, data=data.decode("utf-8", "replace")
        )

    def log_message(self, exc: ProxyError) -> str:
        """Return the message of a failure for logs and feeds, without text of the prompt.

        Only an upstream's own message may quote the request. Ours are kept whole, although people show them to the
        model when something does not work (docs/spec/operations.md#e7).
        """
        if isinstance(exc, UnreadableStream):
            return exc.LOGGED
        message = redacted(errors.message_of(exc))
        return self.request.without_prompt_text(message) if type(exc) is Refused else message

    def as_failure(self, exc: Exception) -> ProxyError:
        """Return `exc` as a `ProxyError`; a bug of ours is logged with its traceback (docs/spec/operations.md#a6)."""
        if isinstance(exc, ProxyError):
            return exc
        record = self.record
        log.error("request.crashed", request_id=record.request_id, route=record.route, exc_info=exc)
        return ProxyError(errors.message_of(exc))

    def record_failure(self, exc: ProxyError, outcome: str) -> None:
        """Put the failure into the call's record.

        Args:
            outcome: ``refused`` where the client has been sent nothing, else ``failed``.
        """
        record = self.record
        record.status, record.error_type = errors.error_response(exc)
        # Masked now: /events and others keep the message for longer than the keys live that it may hold.
        record.outcome, record.error = outcome, self.log_message(exc)
        if outcome == "refused":
            record.usage, record.stop_reason = Usage(), None
        else:
            errors.clear_tracebacks(exc)  # a refused one is cleared by the caller
        if exc.detail:
            log.warning(
                "upstream.bad_reply",
                request_id=record.request_id,
                route=record.route,
                seen=self.request.without_prompt_text(exc.detail),
            )

    def begin_retry(self) -> None:
        """Take a retry from the budget; it counts until the upstream has responded."""
        self.is_retrying = True
        self.budget.take()

    def end_retry(self) -> None:
        """Give a retry back to the budget, if there is one: the upstream has responded, or the call is over."""
        if self.is_retrying:
            self.is_retrying = False
            self.budget.give_back()

    async def finished_by(self, finisher: Finisher, message: dict[str, Any]) -> dict[str, Any]:
        """Return what `finisher` adds to the end of `message`; nothing if it fails."""
        try:
            return await finisher(message)
        except Exception as exc:
            log.warning(
                "call.end_unchanged",
                request_id=self.record.request_id,
                why=self.log_message(self.as_failure(exc)),
            )
            return {}

    def set_stream_head(self) -> None:
        """Set the head of an event stream of ours."""
        self.writer.set_head(200, (*SSE_HEADERS, *self.own_headers), is_stream=True)

    @property
    def json_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of a message of ours that is sent as a whole."""
        return (*self.own_headers, ("content-type", "application/json"))

    async def respond(
        self, body: bytes, status: int, headers: Iterable[tuple[str, str]]
    ) -> web.StreamResponse:
        """Send a whole response, whose `headers` are all but its length."""
        self.record.on_first_byte()
        self.record.outcome = "ok"
        self.writer.set_head(status, (*headers, ("content-length", str(len(body)))), is_stream=False)
        return await self.finish(body)

    async def finish(self, last: bytes = b"") -> web.StreamResponse:
        """Send the last bytes, and the end of the response."""
        self.record.status = self.writer.status
        await self.writer.finish(last)
        return self.writer.response

    async def end(self, failure: ProxyError, last: bytes) -> web.StreamResponse:
        """End a stream that has begun and failed: with its last frames, or by closing the connection."""
        # Without a last frame the stream has ended by its grammar, and only its delivery failed.
        if self.aborts or not last:
            return self.cut(failure)
        self.record_failure(failure, "failed")
        return await self.finish(last)

    def cut(self, failure: ProxyError) -> web.StreamResponse:
        """Close the connection of a response that has begun and failed, which is all that can show it to the client."""
        self.record_failure(failure, "failed")
        self.writer.abort()
        return self.writer.response
