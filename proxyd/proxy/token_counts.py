"""Token counts of translated requests, from upstreams that count them for nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import time
from typing import Any

from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError, clear_tracebacks
from proxyd.logs.setup import get_logger
from proxyd.providers import translated_request as translated
from proxyd.providers.learned_quirks import CallKind
from proxyd.providers.registry import format_for
from proxyd.proxy.client_request import ClientRequest
from proxyd.proxy.driver import CallResources
from proxyd.proxy.upstream_reader import UpstreamReader
from proxyd.telemetry.call_record import new_id
from proxyd.transport.client import BREAKS
from proxyd.transport.timers import Timers
from proxyd.urls import address_of

__all__ = ["TokenCounts"]

log = get_logger("relay")

#: The client waits for the number, and there is an estimate.
_TIMEOUT_S = 5.0
_MAX_BYTES = 64 * 1024
#: Statuses of servers that do not have this endpoint.
_NOT_OFFERED = frozenset({404, 405, 501})


class TokenCounts:
    """Asks upstreams for the number of input tokens of a request."""

    def __init__(self, resources: CallResources) -> None:
        self._resources = resources
        #: Ids of entries whose upstream does not count.
        self._without: set[str] = set()

    def forget(self) -> None:
        """Ask every upstream again: the configuration has changed."""
        self._without.clear()

    async def count(self, route: ModelRoute, request: ClientRequest, payload: dict[str, Any]) -> int | None:
        """Return the number of tokens of `payload`; None where the upstream has not counted them.

        Args:
            route: of translated mode, with the key to use.
            request: the client's, of which `payload` is the body, or what became of it.
        """
        if format_for(route)[0].counting is None or route.model_id in self._without:
            return None
        timers = Timers(asyncio.get_running_loop())
        try:
            return await self._count(route, request, payload, timers)
        except BREAKS as exc:
            why = exc.message if isinstance(exc, ProxyError) else type(exc).__name__
            clear_tracebacks(exc)
            self._log(route, request, request.without_prompt_text(why))
            return None
        finally:
            timers.close()

    async def _count(
        self, route: ModelRoute, request: ClientRequest, payload: dict[str, Any], timers: Timers
    ) -> int | None:
        learned, counting = self._resources.learned.store, format_for(route)[0].counting
        assert counting is not None, "count has checked it"
        api_base, timeouts = self._resources.base_of(route), self._resources.timeouts_of(route)
        steps = translated.prepare(
            learned.of(route, CallKind.of(payload), time()).applied_to(route),
            api_base,
            payload,
            request.keys,
            timeouts=replace(
                timeouts,
                connect_s=min(timeouts.connect_s, _TIMEOUT_S),
                first_byte_s=min(timeouts.first_byte_s, _TIMEOUT_S),
            ),
            new_id=new_id,
            warn=lambda oddity: None,
            max_body_bytes=_MAX_BYTES,
            inputs=request.inputs,
            is_refused=learned.refused_data.__contains__,
        )
        prepared = await request.run_steps(steps)
        sent = await request.run(translated.counting_request, route, api_base, prepared)
        response = await self._resources.upstreams.send(sent, timers)
        reader = UpstreamReader(
            response, timers, request.record, idle_s=_TIMEOUT_S, address=address_of(sent.url)
        )
        try:
            body = await reader.read_up_to(_MAX_BYTES)
        finally:
            reader.close()
            self._resources.upstreams.release(response)
        tokens = counting.tokens(body) if response.status == 200 else None
        if tokens is None:
            if response.status in _NOT_OFFERED:
                self._without.add(route.model_id)
            self._log(route, request, f"its response has the status {response.status} and no number")
        return tokens

    @staticmethod
    def _log(route: ModelRoute, request: ClientRequest, why: str) -> None:
        log.info(
            "count_tokens.estimated", request_id=request.record.request_id, route=route.model_id, why=why
        )
