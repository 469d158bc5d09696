"""The pools of a daemon: the keys of entries with ``api_keys``, and what a failure of an upstream says about a key.

A key that is refused is set aside for an hour or until the configuration is read again, one at its limit until the time
that the upstream names. The next key is tried at once within the same call. When all are set aside, the call fails with
the time of the first one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from proxyd import errors
from proxyd.codecs.upstream_errors.errors import names_content_filter
from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.errors import KeysAside, ProxyError, Refused, UpstreamOverloaded
from proxyd.proxy.pools import Aside, Clock, Member, Pool, State
from proxyd.telemetry.call_record import CallRecord

__all__ = ["CallKeys", "KeyPools", "aside_for", "aside_for_type", "seconds_in"]

#: A key that was refused may be paid for, or its limit be raised, by then.
_REFUSED_S = 3600.0
#: What an error type says about the key with which it was received.
_STATES = {
    "authentication_error": State.REFUSED,
    "billing_error": State.REFUSED,
    "permission_error": State.REFUSED,
    "rate_limit_error": State.LIMITED,
    "overloaded_error": State.LIMITED,
}
_WHY = {
    "authentication_error": "refused as no valid key",
    "billing_error": "out of credit",
    "permission_error": "not permitted",
    "rate_limit_error": "at its rate limit",
    "overloaded_error": "overloaded",
}


def aside_for(exc: ProxyError) -> Aside | None:
    """Return how the key is set aside with which `exc` was received; None if another key would fail as well."""
    if isinstance(exc, UpstreamOverloaded):
        return aside_for_type("overloaded_error")
    if not isinstance(exc, Refused):
        return None
    if exc.kind == "overloaded_error" and (exc.upstream_status or 0) >= 500:
        return None  # of the server as a whole: retries and fallbacks are for that
    if exc.kind == "permission_error" and names_content_filter(exc.body):
        return None
    return aside_for_type(exc.kind, seconds_in(exc.headers))


def aside_for_type(error_type: str | None, seconds: float | None = None) -> Aside | None:
    """Return the same for the type of an error and the seconds that came with it."""
    state = _STATES.get(error_type or "")
    if state is None or error_type is None:
        return None
    return Aside(state, _REFUSED_S if state is State.REFUSED else seconds, _WHY[error_type])


def seconds_in(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``retry-after``; None if it is not there, or no number of seconds."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


class KeyPool(Pool):
    """The keys of one entry.

    Attributes:
        route: the entry.
        routes: the entry with each of its keys alone.
    """

    def __init__(self, route: ModelRoute, before: KeyPool | None, clock: Clock) -> None:
        self.route = route
        self.routes: dict[Member, ModelRoute] = {}
        for key in route.api_keys:
            member = None if before is None else before.member_with(key.secret, route.api_base)
            if member is None:
                member = Member(key.name, key.weight)
            member.name, member.weight = key.name, key.weight
            if member.state is State.REFUSED:
                member.readmit()
            self.routes[member] = route.with_key(key)
        super().__init__(tuple(self.routes), clock)
        if before is not None:
            self.take_over(before, self.members)

    def member_with(self, secret: Any, api_base: str) -> Member | None:
        """Return the member with this key, at this address."""
        if self.route.api_base != api_base:
            return None
        return next((each for each, route in self.routes.items() if route.api_key == secret), None)


class CallKeys:
    """The keys with which one call is tried.

    Args:
        counts: it is a call for a message. Limits of other requests are not those of the key.
    """

    def __init__(self, pool: KeyPool, session_id: str | None, *, counts: bool) -> None:
        self._pool = pool
        self._session_id = session_id
        self._counts = counts
        self._tried: dict[Member, ProxyError] = {}
        self._key: Member | None = None

    def take(self) -> ModelRoute:
        """Return the entry with the key to try now.

        Raises:
            KeysAside: all keys are set aside.
            Refused: all keys were refused with 403, which is due to the request, so none of them is set aside.
        """
        pool = self._pool
        self._key = pool.choose(self._session_id, self._tried)
        if self._key is not None:
            return pool.routes[self._key]
        failures, self._tried = self._tried, {}
        if len(failures) == len(pool.members) and all(map(_is_permission, failures.values())):
            for member in failures:
                member.readmit()
            raise next(iter(failures.values()))
        raise _all_aside(pool)

    @property
    def name(self) -> str:
        """The short name of the key that was taken."""
        assert self._key is not None, "one was taken"
        return self._key.name

    def set_aside(self, exc: ProxyError) -> float | None:
        """Set the key aside if `exc` is due to it; return for how many seconds, or None if it stays in use."""
        aside = aside_for(exc)
        if aside is None or self._key is None or (aside.state is State.LIMITED and not self._counts):
            return None
        errors.clear_tracebacks(exc)  # it is kept
        self._tried[self._key] = exc
        self._key.failures += 1
        return self._pool.set_aside(self._key, aside)

    def has_served(self, record: CallRecord) -> None:
        """Count a call that is over; a limit that its stream ran into sets the key aside for others."""
        if self._key is None or not self._counts:
            return
        aside = aside_for_type(record.error_type)
        if aside is not None:
            self._key.failures += 1
            self._pool.set_aside(self._key, aside)
        self._pool.has_served(self._key, record.usage)


def _is_permission(exc: ProxyError) -> bool:
    return isinstance(exc, Refused) and exc.kind == "permission_error"


def _all_aside(pool: KeyPool) -> KeysAside:
    seconds = max(1, math.ceil(pool.earliest_s()))
    count = len(pool.members)
    keys = "the only key" if count == 1 else f"all {count} keys"
    reasons = ", ".join(f"{each.name} is {each.why}" for each in pool.members if each.why)
    return KeysAside(
        f"{keys} of model {pool.route.model_id!r} {'is' if count == 1 else 'are'} set aside ({reasons}); the first one "
        f"is tried again in {_duration(seconds)}",
        headers={"retry-after": str(seconds)},
    )


def _duration(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"


class KeyPools:
    """All pools of a daemon. They outlive a reload: unchanged keys keep their counts, limits and sessions."""

    def __init__(
        self, table: RouteTable, clock: Clock = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock, self._wall_clock = clock, wall_clock
        self._keys: dict[str, KeyPool] = {}
        self.replace(table)

    def replace(self, table: RouteTable) -> None:
        """Put the entries of another configuration in force. Keys that were refused are tried again."""
        self._keys = {
            route.model_id: KeyPool(route, self._keys.get(route.model_id), self._clock)
            for route in table.routes
            if route.api_keys
        }

    def keys_for(self, route: ModelRoute, session_id: str | None, *, counts: bool) -> CallKeys | None:
        """Return the keys of a call, or None for an entry without a pool."""
        pool = self._keys.get(route.model_id)
        if pool is None or pool.route is not route:  # of a configuration that has been replaced
            return None
        return CallKeys(pool, session_id, counts=counts)

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """Describe the keys of each entry that has several."""
        return {model_id: pool.describe(self._wall_clock) for model_id, pool in self._keys.items()}
