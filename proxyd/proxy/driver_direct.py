"""Carry attempts at Anthropic upstreams (see `proxyd.proxy.driver`)."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from proxyd import errors, jsonio
from proxyd.config.routes import ModelRoute
from proxyd.errors import CapabilityRejected, Refused
from proxyd.headers import is_from_claude_code
from proxyd.hooks.runner import CallHooks
from proxyd.providers import direct_request as direct
from proxyd.providers import unparsed
from proxyd.providers.base import UpstreamRequest
from proxyd.providers.client_recovery import is_content_refusal, rejected_capability
from proxyd.providers.registry import profile_for
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.attempt_direct import DirectAttempt, VerbatimRefusal
from proxyd.proxy.driver import Driver
from proxyd.proxy.run_attempt import run_attempt
from proxyd.urls import host_of

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
        try:
            return await run_attempt(attempt, call, resources)
        except VerbatimRefusal as exc:
            raise _in_words_of_client(exc, route, call) from None

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
            outline=request.outline,
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


def _in_words_of_client(exc: VerbatimRefusal, route: ModelRoute, call: ActiveCall) -> Refused:
    """Return the error for a client whose upstream has refused the request.

    Anthropic's own is never changed, nor are the bytes that other clients than Claude Code get. Where a retry cannot
    help, the response says so.
    """
    if profile_for(route.api_base, None).name == "anthropic" or not call.request.is_message:
        return exc
    if is_from_claude_code(call.request.web_request.headers):
        capability = rejected_capability(exc.status, exc.body, call.request.payload)
        if capability is not None:
            rejected = CapabilityRejected(capability)
            rejected.detail = exc.body.decode("utf-8", "replace")
            return rejected
        if is_content_refusal(exc.status, exc.body):
            text = f"the content filter of {host_of(route.api_base)} refused this conversation: {exc.words}"
            remedy = "rephrase the last message, go back with Esc Esc, or choose another model"
            return Refused(f"{text} ({remedy})", status=400, kind="policy_blocked", headers=errors.NO_RETRY)
    exc.stop_retries_if_useless()
    return exc
