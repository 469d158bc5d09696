"""Carry one attempt of a call, whatever its mode: open it, forward its response, and end the client's."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from aiohttp import web

from proxyd import jsonio
from proxyd.codecs.wire.json_patch import splice
from proxyd.errors import ProxyError
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.attempt import Attempt, EnoughReceived, WholeResponse
from proxyd.proxy.client_response import ClientGone
from proxyd.proxy.driver import CallResources
from proxyd.proxy.pump import State, StreamPump

__all__ = ["run_attempt"]


async def run_attempt(attempt: Attempt, call: ActiveCall, resources: CallResources) -> web.StreamResponse:
    """Make `attempt`, and send its response to the client.

    Raises:
        ProxyError: it failed, and the client has been sent nothing.
        ClientGone: the client does not read any more.
    """
    record, writer = call.record, call.writer
    pump: StreamPump | None = None
    ended_by: Exception | None = None
    try:
        early_start = attempt.early_start
        if early_start is not None:
            attempt.set_head(call)
            elapsed_s = monotonic() - record.begun
            writer.commit_after(max(0.001, resources.settings.commit_s - elapsed_s), early_start)
        pump = await attempt.open()
        await call.request.yield_to_loop()
        call.end_retry()
        whole = attempt.whole
        if whole is not None:
            return await _respond_whole(attempt, call, pump, whole)
        decoder = pump.decoder
        is_cached = decoder.reports_cache or record.route in resources.caching_routes
        call.request.release_body(is_cached=is_cached)
        attempt.set_head(call)
        record.on_first_byte()
        await pump.run(writer)
        held = attempt.held
        if held is not None and attempt.finisher is not None and held.is_complete:
            if decoder.has_ended:
                attempt.close(is_complete=True)
            if pump.last:
                writer.write(pump.last)
            await pump.go_on(held.release(await call.finished_by(attempt.finisher, held.message())))
        if pump.state is State.FAILED:
            assert decoder.failure is not None, "it is in this state"
            return await call.end(decoder.failure, pump.last)
        attempt.close(is_complete=True)
        record.outcome = "ok"
        return await call.finish(pump.last)
    except ClientGone:
        raise
    except Exception as exc:
        ended_by = exc
        if not writer.is_committed:
            raise
        return await _end(attempt, pump, call, call.as_failure(exc))
    except asyncio.CancelledError:
        ended_by = call.failure
        if call.failure is None or not writer.is_committed:
            raise
        return await _end(attempt, pump, call, call.failure)
    finally:
        writer.stay_uncommitted()
        attempt.settle(ended_by)
        attempt.close()


async def _end(
    attempt: Attempt, pump: StreamPump | None, call: ActiveCall, failure: ProxyError
) -> web.StreamResponse:
    """End a response that the client has been sent a part of."""
    if pump is not None and pump.has_sent_last_event:
        call.record.outcome = "ok"
        return await call.finish()
    return await call.end(failure, attempt.fail(failure))


async def _respond_whole(
    attempt: Attempt, call: ActiveCall, pump: StreamPump, whole: WholeResponse
) -> web.StreamResponse:
    """Collect a response that is sent as a whole, with the changes of hooks and finisher.

    Raises:
        ProxyError: it failed, or is no response that may be sent.
    """
    try:
        await pump.run(whole)
        if pump.decoder.failure is not None:
            raise pump.decoder.failure
        whole.write(pump.last)
    except EnoughReceived:
        attempt.close()
        return await call.respond(jsonio.dumps(whole.message()), *attempt.whole_head(call))
    attempt.close(is_complete=True)
    message, hooks = whole.message(), attempt.hooks
    changed: dict[str, Any] | None = message
    if changed is not None and hooks is not None and hooks.changes_bodies:
        changed = await hooks.on_response(changed)
    body = whole.body
    if body is None or changed is not message:
        body = jsonio.dumps(changed)
    if changed is not None and attempt.finisher is not None:
        addition = await call.finished_by(attempt.finisher, changed)
        body = splice(body, addition) if addition else body
    return await call.respond(body, *attempt.whole_head(call))
