"""Responses of the proxy's own, for calls that need no upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, MessageDelta, StreamEvent, encode_event, encode_events
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.client_response import ClientGone

__all__ = ["at_once", "respond_locally"]


async def at_once(events: Sequence[StreamEvent]) -> AsyncIterator[Sequence[StreamEvent]]:
    """Yield `events`, which are there already, for `respond_locally`."""
    yield events


async def respond_locally(
    call: ActiveCall, parts: AsyncIterable[Sequence[StreamEvent]]
) -> web.StreamResponse:
    """Respond to `call` without an upstream.

    Args:
        parts: the events of a whole message. Each part is sent as soon as it is there, with pings in between; a client
            that does not stream gets the message they make.

    Raises:
        ProxyError: the source of the events failed before the first of them. A later failure becomes an error event.
    """
    record, writer, collector = call.record, call.writer, MessageCollector()
    wants_stream = call.request.wants_stream
    if wants_stream:
        call.set_stream_head()
    try:
        async for events in parts:
            for event in events:
                if isinstance(event, MessageDelta):
                    record.stop_reason = event.delta.get("stop_reason")
            record.events += len(events)
            if wants_stream:
                record.on_first_byte()
                writer.write(encode_events(events))
                await writer.drained()
            else:
                collector.add_all(events)
    except (ClientGone, asyncio.CancelledError):
        raise
    except Exception as exc:
        if not writer.is_committed:
            raise
        failure = call.as_failure(exc)
        return await call.end(failure, encode_event(ErrorEvent(errors.envelope(failure))))
    if not wants_stream:
        return await call.respond(jsonio.dumps(collector.message()), 200, call.json_headers)
    record.outcome = "ok"
    return await call.finish()
