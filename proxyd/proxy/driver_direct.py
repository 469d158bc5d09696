"""Carry attempts at Anthropic upstreams (see `proxyd.proxy.driver`)."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, encode_event
from proxyd.codecs.anthropic.held_end import HeldEnd
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError
from proxyd.hooks.runner import CallHooks
from proxyd.providers import direct_request as direct
from proxyd.providers import unparsed
from proxyd.providers.base import UpstreamRequest
from proxyd.proxy.active_call import ActiveCall, Finisher
from proxyd.proxy.attempt_direct import DirectAttempt
from proxyd.proxy.client_response import ClientGone
from proxyd.proxy.driver import Driver

__all__ = ["DirectDriver"]


class DirectDriver(Driver):
    """Passes requests and responses through."""

    async def run(self, route: ModelRoute, call: ActiveCall) -> web.StreamResponse:
        """Make one attempt, and forward its response.

        Raises:
            ProxyError: the attempt failed and the client has been sent nothing.
        """
        hooks = self._resources.hooks.for_call(route, call.record.request_id, "direct")
        finisher = self._resources.finisher_for(route, call)
        attempt = DirectAttempt(
            await self._request(route, call, hooks),
            self._resources.upstreams,
            self._settings,
            call.timers,
            call.record,
            hooks,
            call.keys.all,
            None if finisher is None else functools.partial(call.finished_by, finisher),
        )
        try:
            return await self._forward(attempt, call, finisher)
        except ClientGone:
            raise
        except Exception as exc:
            if not call.writer.is_committed:
                raise
            return await self._end(call, attempt, call.as_failure(exc))
        except asyncio.CancelledError:
            if call.failure is None or not call.writer.is_committed:
                raise
            return await self._end(call, attempt, call.failure)
        finally:
            if attempt.reports_cache:
                self._resources.caching_routes.add(call.record.route)
            attempt.close()

    async def _request(self, route: ModelRoute, call: ActiveCall, hooks: CallHooks | None) -> UpstreamRequest:
        request = call.request
        body, payload = request.body, None
        if request.seen is not None and unparsed.forwards_unchanged(route):
            body = unparsed.with_model(body, request.seen, route.model_name)
        else:
            payload = request.payload
        path, query = request.target
        upstream_request = await request.run(
            direct.prepare,
            route,
            path=path,
            query=query,
            headers=request.web_request.headers,
            body=body,
            payload=payload,
            keys=call.keys,
            timeouts=self._resources.timeouts_of(route),
            method=request.web_request.method,
            is_first=call.is_first_choice,
            forwarded=self._settings.forward_headers,
        )
        if hooks is not None and hooks.changes_requests and upstream_request.body:
            sent = await request.run(jsonio.loads, upstream_request.body, is_ours=True)
            changed = await hooks.on_request(sent)
            if changed is not sent:  # else the client's own bytes are sent
                upstream_request = replace(upstream_request, body=await request.run(jsonio.dumps, changed))
        return upstream_request

    async def _forward(
        self, attempt: DirectAttempt, call: ActiveCall, finisher: Finisher | None
    ) -> web.StreamResponse:
        record, writer = call.record, call.writer
        data = await attempt.open()
        await call.request.yield_to_loop()
        call.end_retry()
        is_cached = attempt.reports_cache or record.route in self._resources.caching_routes
        call.request.release_body(is_cached=is_cached)
        theirs = {name.lower() for name, _ in attempt.headers}
        ours = [each for each in call.own_headers if each[0] not in theirs]
        writer.set_head(attempt.status, [*ours, *attempt.headers], is_stream=attempt.is_stream)
        held = HeldEnd() if finisher is not None and attempt.is_stream else None
        while attempt.failure is None:
            record.on_first_byte()
            if held is not None and finisher is not None:
                data = held.feed(data)
                if held.is_complete:  # the upstream may keep its body open for longer
                    await writer.write(data)
                    data, held = held.release(await call.finished_by(finisher, held.message())), None
            if attempt.has_ended:
                record.outcome = "ok"
                attempt.close(is_complete=True)
                return await call.finish(data)
            if attempt.has_last_event and held is None:
                writer.stop_pings()
            if data or not writer.is_committed:
                await writer.write(data)
            data = await attempt.read(None if held is not None else writer)
        return await call.end(attempt.failure, encode_event(ErrorEvent(errors.envelope(attempt.failure))))

    @staticmethod
    async def _end(call: ActiveCall, attempt: DirectAttempt, failure: ProxyError) -> web.StreamResponse:
        """End a response that the client has been sent a part of."""
        if attempt.has_last_event:  # only the end of the body is missing
            call.record.outcome = "ok"
            return await call.finish()
        if attempt.is_stream:
            return await call.end(failure, encode_event(ErrorEvent(errors.envelope(failure))))
        return call.cut(failure)
