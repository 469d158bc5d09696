"""Admission control, and the registry of the calls in flight."""

from __future__ import annotations

import asyncio

from proxyd.config.routes import ModelRoute
from proxyd.config.settings import Settings
from proxyd.errors import Overloaded, ProxyError
from proxyd.proxy.active_call import ActiveCall
from proxyd.telemetry.call_record import CallRecord

__all__ = ["CallRegistry"]


class CallRegistry:
    """The calls in flight of one daemon.

    Attributes:
        is_draining: no new call is admitted.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self._calls: dict[str, ActiveCall] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def records(self) -> list[CallRecord]:
        """The records of the calls in flight, the oldest first."""
        return [call.record for call in self._calls.values()]

    async def until_idle(self) -> None:
        """Return when no call is in flight."""
        await self._idle.wait()

    def admit(self, call: ActiveCall, settings: Settings) -> None:
        """Register `call`.

        Raises:
            Overloaded: the daemon is draining, or has as many calls in flight as it may.
        """
        if self.is_draining:
            raise Overloaded("claude-proxy is shutting down", headers={"retry-after": "1"})
        if len(self._calls) >= settings.max_streams:
            raise Overloaded(
                f"claude-proxy has {len(self._calls)} calls in flight, its limit (max_streams)",
                headers={"retry-after": "1"},
            )
        self.register(call)

    def register(self, call: ActiveCall) -> None:
        """Register `call` without a limit: it is a part of one that was admitted."""
        self._calls[call.record.request_id] = call
        self._idle.clear()

    def check_route_limit(self, route: ModelRoute, settings: Settings) -> None:
        """Check the limit on calls of one route; the call that asks is registered with it already.

        Raises:
            Overloaded: the route has as many calls in flight as it may.
        """
        limit = settings.max_streams_per_route
        if limit and self.at_route(route.model_id) > limit:
            raise Overloaded(
                f"model {route.model_id!r} has {limit} calls in flight, its limit (max_streams_per_route)",
                headers={"retry-after": "1"},
            )

    def at_route(self, model_id: str) -> int:
        """Return the number of calls in flight at a route."""
        return sum(call.record.route == model_id for call in self._calls.values())

    def remove(self, call: ActiveCall) -> None:
        """Forget `call`, which need not have been admitted."""
        self._calls.pop(call.record.request_id, None)
        if not self._calls:
            self._idle.set()

    def end_all(self, failure: ProxyError) -> None:
        """End every call in flight with `failure`."""
        for call in self._calls.values():
            call.failure = failure
            call.task.cancel()

    def abort_all(self) -> None:
        """Abort the connections of the calls that have not ended by themselves, since their clients do not read."""
        for call in self._calls.values():
            call.writer.abort()
