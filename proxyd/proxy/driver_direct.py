"""Carry attempts at Anthropic upstreams (see `proxyd.proxy.driver`)."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from proxyd import jsonio
from proxyd.config.routes import ModelRoute
from proxyd.hooks.runner import CallHooks
from proxyd.providers import direct_request as direct
from proxyd.providers import unparsed
from proxyd.providers.base import UpstreamRequest
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.attempt_direct import DirectAttempt
from proxyd.proxy.driver import Driver
from proxyd.proxy.run_attempt import run_attempt

__all__ = ["DirectDriver"]


class DirectDriver(Driver):
    """Passes requests and responses through."""

    async def run(self, route: ModelRoute, call: ActiveCall) -> web.StreamResponse:
        """Make one attempt, and forward its response.

        Raises:
            ProxyError: the attempt failed and the client has been sent nothing.
        """
        resources = self._resources
        hooks = resources.hooks.for_call(route, call.record.request_id, "direct")
        attempt = DirectAttempt(
            await self._request(route, call, hooks),
            resources.upstreams,
            self._settings,
            call,
            hooks,
            resources.finisher_for(route, call) if call.request.is_message else None,
        )
        return await run_attempt(attempt, call, resources)

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
