"""Entries with ``targets``: which of the entries that serve one model is tried first, and which next.

A target that cannot be reached, is overloaded, or refuses its key or limit is set aside for a time, and the next one is
tried within the same call, before the fallbacks. If all are set aside they are tried nevertheless, the one whose time
ends first before the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.errors import BadCredential, ProxyError, TimedOut, Unreachable
from proxyd.proxy.key_pools import aside_for, aside_for_type, seconds_in
from proxyd.proxy.pools import Aside, Clock, Member, Pool, State
from proxyd.proxy.retries import may_fall_back
from proxyd.telemetry.call_record import CallRecord

__all__ = ["CallTargets", "TargetPools", "aside_for_target"]


def aside_for_target(exc: ProxyError) -> Aside | None:
    """Return how a target that failed with `exc` is set aside; None if another one would fail as well."""
    aside = aside_for(exc)
    if aside is not None or isinstance(exc, BadCredential):
        return aside or Aside(State.REFUSED, None, "without a key")
    if not may_fall_back(exc):
        return None
    if isinstance(exc, TimedOut):
        why = "slow"
    else:
        why = "not reachable" if isinstance(exc, Unreachable) else "failing"
    return Aside(State.FAILING, seconds_in(exc.headers), why)


class TargetPool(Pool):
    """The targets of one entry, by their model_id."""

    def __init__(self, route: ModelRoute, before: TargetPool | None, clock: Clock) -> None:
        self.route = route
        known = {} if before is None else {each.name: each for each in before.members}
        members = []
        for target in route.targets:
            member = known.get(target.use) or Member(target.use)
            member.weight = target.weight
            if member.state is State.REFUSED:
                member.readmit()
            members.append(member)
        super().__init__(members, clock, route.balance)
        if before is not None:
            self.take_over(before, self.members)


class CallTargets:
    """The targets with which one call is tried.

    Args:
        counts: it is a call for a message; failures of others set no target aside.
        load_of: returns the calls in flight at an entry.
    """

    def __init__(
        self, pool: TargetPool, session_id: str | None, *, counts: bool, load_of: Callable[[str], int]
    ) -> None:
        self._pool = pool
        self._session_id = session_id
        self._counts = counts
        members = pool.in_order(session_id, lambda member: load_of(member.name))
        self._members = {each.name: each for each in members}

    @property
    def names(self) -> tuple[str, ...]:
        """Their model_ids, in the order in which to try them."""
        return tuple(self._members)

    def moves_on(self, route: ModelRoute, exc: ProxyError) -> bool:
        """Set the target `route` aside if `exc` is due to it; return whether the next one is to be tried."""
        member, aside = self._members.get(route.model_id), aside_for_target(exc)
        if member is None or aside is None:
            return False
        if self._counts:
            member.failures += 1
            self._pool.set_aside(member, aside)
        return True

    def has_served(self, route: ModelRoute, record: CallRecord) -> None:
        """Count a call that is over, and let its session stay with the target `route`, unless its stream failed."""
        member = self._members.get(route.model_id)
        if member is None or not self._counts:
            return
        aside = aside_for_type(record.error_type)
        if aside is not None:
            member.failures += 1
            self._pool.set_aside(member, aside)
        else:
            self._pool.keep(self._session_id, member)
        self._pool.has_served(member, record.usage)


class TargetPools:
    """The targets of all entries of a daemon. What is known of them outlives a reload."""

    def __init__(
        self, table: RouteTable, clock: Clock = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock, self._wall_clock = clock, wall_clock
        self._pools: dict[str, TargetPool] = {}
        self.replace(table)

    def replace(self, table: RouteTable) -> None:
        """Put the entries of another configuration in force. Targets that refused their key are tried again."""
        self._pools = {
            route.model_id: TargetPool(route, self._pools.get(route.model_id), self._clock)
            for route in table.routes
            if route.targets
        }

    def targets_for(
        self, route: ModelRoute, session_id: str | None, *, counts: bool, load_of: Callable[[str], int]
    ) -> CallTargets | None:
        """Return the targets of a call, or None for an entry without them."""
        pool = self._pools.get(route.model_id)
        if pool is None or pool.route is not route:  # of a configuration that has been replaced
            return None
        return CallTargets(pool, session_id, counts=counts, load_of=load_of)

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """Describe the targets of each entry that has some."""
        return {model_id: pool.describe(self._wall_clock) for model_id, pool in self._pools.items()}
