"""Virtual keys in memory: who a client is, what it may still use, and what its calls have used.

::

    head ─▶ identify        401 for a key that is unknown, expired or revoked
    call ─▶ admit           429 where a limit is reached; the call counts with its estimate
            book            in its place, what it has used
    twice a second ─▶ sync  what was used goes to the store; keys and usage of other processes come from it

No call waits for the store. If it cannot be used, keys and limits are those that were read last, and usage waits here,
as sums, until it can.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from proxyd import errors
from proxyd.errors import BadCredential, Forbidden, LimitReached, Overloaded
from proxyd.logs.setup import get_logger
from proxyd.store.interface import StoreFailed, UsageStore, Window
from proxyd.store.limits import WARN_SHARE, described_limits, moment, title_of
from proxyd.store.virtual_keys import (
    PERIODS,
    Directory,
    Limit,
    Spent,
    Team,
    VirtualKey,
    digest_of,
    end_of,
    in_unit,
    start_of,
)
from proxyd.telemetry.call_record import CallRecord

__all__ = ["Exchange", "KeyRing", "estimate_of"]

log = get_logger("keys")

#: The estimate of a call before it is over: its output, and the bytes of a request for one token of input.
_OUTPUT_TOKENS, _BYTES_PER_TOKEN = 1000, 4
#: Where only the estimates of the calls in flight leave no room: many calls are over by then.
_RETRY_S = 5


def estimate_of(record: CallRecord) -> Spent:
    """Estimate what a call will use, from the size of its request."""
    inputs = record.bytes_in // _BYTES_PER_TOKEN
    usd = 0.0
    if record.pricing is not None:
        usd = (
            inputs * (record.pricing.input or 0) + _OUTPUT_TOKENS * (record.pricing.output or 0)
        ) / 1_000_000
    return Spent(usd, inputs + _OUTPUT_TOKENS, 1)


@dataclass(slots=True)
class Exchange:
    """What one exchange with the store sends and receives."""

    sent: dict[Window, Spent]
    periods: list[tuple[str, int]]
    directory: Directory = field(default_factory=Directory)
    usage: dict[Window, Spent] = field(default_factory=dict)

    def run(self, store: UsageStore) -> None:
        """Exchange it; blocks.

        Raises:
            StoreFailed: nothing was sent.
        """
        store.add_usage(self.sent)
        self.sent = {}
        self.directory = store.directory()
        self.usage = store.usage(self.periods)


class KeyRing:
    """The keys of one daemon.

    Args:
        now: Unix time.
        fail_closed: whether calls are refused while the store cannot be used.

    Attributes:
        trouble: why the store cannot be used at the moment.
    """

    def __init__(
        self, now: Callable[[], float] = time.time, *, fail_closed: Callable[[], bool] = lambda: False
    ) -> None:
        self._now, self._fail_closed = now, fail_closed
        self._directory = Directory()
        self._by_digest: dict[str, VirtualKey] = {}
        self._stored: dict[Window, Spent] = {}
        self._unsent: dict[Window, Spent] = {}
        #: Estimates of the calls in flight, by request id, and their owners.
        self._in_flight: dict[str, tuple[tuple[str, ...], Spent]] = {}
        self._warned: set[tuple[str, Limit, int]] = set()
        #: The current periods, each with beginning and end: calendars are slow.
        self._periods: dict[str, tuple[int, int]] = {}
        self.trouble: str | None = None

    # -- who

    def identify(self, offered: Iterable[str]) -> VirtualKey:
        """Return the key that a client has sent.

        Args:
            offered: the values of the headers in which it may be.

        Raises:
            BadCredential: there is none, or it is unknown, expired or revoked.
        """
        values = [value for value in offered if value]
        for value in values:
            key = self._by_digest.get(digest_of(value))
            if key is None:
                continue
            state = key.state_at(self._now())
            if state != "active":
                raise BadCredential(f"the key {key.name!r} of this proxy {_ENDED[state]}; ask for a new one")
            return key
        if self.trouble is not None and not self._by_digest:
            raise BadCredential(f"this proxy cannot check keys at the moment: {self.trouble}")
        remedy = "set ANTHROPIC_AUTH_TOKEN for Claude Code to yours; 'claude-proxy keys add NAME' makes one"
        what = "does not know the key of this request" if values else "asks for a key of its own"
        raise BadCredential(f"this proxy {what}: {remedy}")

    def check_model(self, key: VirtualKey, names: Iterable[str]) -> None:
        """Check that `key` may use the model that has these names.

        Raises:
            Forbidden: it may not.
        """
        names = tuple(names)
        if not key.may_use(names):
            raise Forbidden(
                f"the key {key.name!r} may not use model {names[0][:200]!r}, only {', '.join(key.models)}",
                headers=errors.NO_RETRY,
            )

    # -- how much

    def admit(self, key: VirtualKey, record: CallRecord, estimate: Spent) -> None:
        """Count a call that begins with its estimate.

        Raises:
            LimitReached: a limit of the key or of its team is reached.
            Overloaded: the store cannot be used, and the settings say that nothing goes on without it.
        """
        now = self._now()
        if self.trouble is not None and self._fail_closed():
            raise Overloaded(
                "this proxy cannot check limits at the moment, and fail_closed is set; its log says why",
                headers={"retry-after": "2"},
            )
        for holder in self._holders(key):
            in_flight = [each for owners, each in self._in_flight.values() if holder.owner in owners]
            if holder.streams is not None and len(in_flight) >= holder.streams:
                raise LimitReached(
                    f"{title_of(holder)} has {len(in_flight)} calls in flight, its limit",
                    kind="rate_limit_error",
                    headers={"retry-after": "1"},
                )
            pending = sum(in_flight, Spent())
            for limit in holder.limits:
                booked = self._spent(holder.owner, limit.period, now).of(limit.unit)
                used = booked + pending.of(limit.unit)
                # What calls in flight will use is a guess, but for their number.
                if used >= limit.amount > booked and limit.unit != "calls":
                    raise _limit_taken(holder, limit, booked, len(in_flight))
                if used >= limit.amount:
                    raise _limit_reached(holder, limit, used, now)
                self._warn(holder, limit, used, now)
        self._in_flight[record.request_id] = tuple(each.owner for each in self._holders(key)), estimate

    def book(self, key: VirtualKey, record: CallRecord) -> None:
        """Count what a call has used, in place of its estimate. Calls of the proxy's own have no estimate."""
        estimate = self._in_flight.pop(record.request_id, None)
        if estimate is None and record.outcome == "refused":
            return  # by a limit, or before it began
        usage = record.usage
        tokens = usage.input_tokens + usage.output_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        cost = None if record.pricing is None else record.pricing.cost_of(usage)
        spent, now = Spent(cost or 0.0, tokens, 1), self._now()
        for holder in self._holders(key):
            for period in PERIODS:
                window = holder.owner, period, self._start(period, now)
                self._unsent[window] = self._unsent.get(window, Spent()) + spent
            for limit in holder.limits:
                self._warn(holder, limit, self._spent(holder.owner, limit.period, now).of(limit.unit), now)

    def _holders(self, key: VirtualKey) -> list[VirtualKey | Team]:
        team = self._directory.team(key.team)
        return [key] if team is None else [key, team]

    def _spent(self, owner: str, period: str, now: float) -> Spent:
        window = owner, period, self._start(period, now)
        return self._stored.get(window, Spent()) + self._unsent.get(window, Spent())

    def _start(self, period: str, now: float) -> int:
        start, end = self._periods.get(period, (0, 0))
        if not start <= now < end:
            start, _ = self._periods[period] = start_of(period, now), end_of(period, now)
        return start

    def _warn(self, holder: VirtualKey | Team, limit: Limit, used: float, now: float) -> None:
        """Warn once in each period; a minute is too short to act upon."""
        if limit.period == "minute" or used < WARN_SHARE * limit.amount:
            return
        place = holder.owner, limit, self._start(limit.period, now)
        if place in self._warned:
            return
        self._warned.add(place)
        log.warning(
            "limit.near",
            who=title_of(holder),
            limit=str(limit),
            used=in_unit(used, limit.unit),
            resets_at=moment(end_of(limit.period, now)),
        )

    # -- the store

    def begin_exchange(self) -> Exchange:
        """Return what is to be exchanged with the store now."""
        now = self._now()
        sent, self._unsent = self._unsent, {}
        for window, spent in sent.items():  # until the store has confirmed it, it counts here
            self._stored[window] = self._stored.get(window, Spent()) + spent
        return Exchange(dict(sent), [(period, start_of(period, now)) for period in PERIODS])

    def end_exchange(self, exchange: Exchange, failure: StoreFailed | None = None) -> None:
        """Take over what the store has returned; after a failure, send again what was not stored."""
        current = set(exchange.periods)
        for window, spent in exchange.sent.items():
            self._stored[window] = self._stored[window] - spent
            if window[1] == "minute" and window[1:] not in current:
                continue  # it limits nothing any more, and there would be one more of them each minute
            self._unsent[window] = self._unsent.get(window, Spent()) + spent
        if failure is not None:
            if self.trouble is None:
                log.error("keys.store_failed", why=failure.message)
            self.trouble = failure.message
            return
        if self.trouble is not None:
            log.info("keys.store_recovered")
        self.trouble = None
        self._stored = exchange.usage
        if exchange.directory != self._directory:
            self._directory = exchange.directory
            self._by_digest = {each.digest: each for each in exchange.directory.keys}
        self._warned = {each for each in self._warned if (each[1].period, each[2]) in current}

    # -- what is shown

    def describe(self, key: VirtualKey | None = None) -> list[dict[str, Any]]:
        """Describe keys and teams, with how much of each limit is used: for status and page.

        Args:
            key: only this one and its team.
        """
        now, usage = self._now(), self._stored_and_unsent()
        holders: list[VirtualKey | Team] = [*self._directory.keys, *self._directory.teams]
        if key is not None:
            holders = self._holders(key)
        return [
            {
                "name": each.name,
                "is_team": isinstance(each, Team),
                "team": None if isinstance(each, Team) else each.team,
                "state": "active" if isinstance(each, Team) else each.state_at(now),
                "in_flight": sum(each.owner in owners for owners, _ in self._in_flight.values()),
                "limits": list(described_limits(each, usage, now)),
            }
            for each in holders
        ]

    def snapshot(self) -> tuple[Directory, dict[Window, Spent]]:
        """Return all keys and teams, and what they have used: for use in another thread."""
        return self._directory, self._stored_and_unsent()

    def _stored_and_unsent(self) -> dict[Window, Spent]:
        windows = {*self._stored, *self._unsent}
        return {each: self._stored.get(each, Spent()) + self._unsent.get(each, Spent()) for each in windows}


_ENDED = {"revoked": "was revoked", "expired": "has expired"}


def _limit_taken(holder: VirtualKey | Team, limit: Limit, booked: float, in_flight: int) -> LimitReached:
    return LimitReached(
        f"{title_of(holder)} of this proxy has used {in_unit(booked, limit.unit)} of its limit of {limit}, and "
        f"{in_flight} call{'s' if in_flight > 1 else ''} in flight may use the rest; try again when one has ended",
        kind="rate_limit_error",
        headers={"retry-after": str(_RETRY_S)},
    )


def _limit_reached(holder: VirtualKey | Team, limit: Limit, used: float, now: float) -> LimitReached:
    resets_at = end_of(limit.period, now)
    seconds = max(1, math.ceil(resets_at - now))
    # Claude Code waits for a minute to pass; for the end of a day nobody does.
    is_short = limit.period == "minute"
    headers = {"retry-after": str(seconds), **({} if is_short else errors.NO_RETRY)}
    return LimitReached(
        f"{title_of(holder)} of this proxy has reached its limit of {limit} ({in_unit(used, limit.unit)} with the "
        f"calls in flight); it resets at {moment(resets_at)}",
        kind="rate_limit_error" if is_short else "billing_error",
        headers=headers,
    )
