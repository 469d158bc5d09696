"""Choose one of several members that can serve the same call: the keys of an entry, or entries of one model.

A session stays with its member while that works, since prompt caches belong to keys and upstreams. A member that fails
is set aside for a time, and its sessions move to others; they stay there when it is back.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyd.codecs.anthropic.usage import Usage

__all__ = ["Aside", "Clock", "Member", "Pool", "State"]

Clock = Callable[[], float]

#: Sessions whose member is remembered, in each pool. One that was forgotten gets a member anew.
_MAX_SESSIONS = 4096
#: Seconds aside after the first failure that names no time, and at most; each further one in a row doubles them.
_FIRST_ASIDE_S, _MAX_ASIDE_S = 30.0, 1800.0
#: Least seconds aside, since an upstream may say 0.
_MIN_ASIDE_S = 1.0
#: Most seconds aside: a week, which is the longest limit of a plan.
_MAX_NAMED_S = 7 * 86_400.0


class State(enum.Enum):
    WORKS = "works"
    LIMITED = "limited"  # at a limit, or overloaded
    REFUSED = "refused"  # until its time has passed or the configuration is read again
    FAILING = "failing"  # an entry that cannot be reached, or fails otherwise


@dataclass(frozen=True, slots=True)
class Aside:
    """Why a member is set aside.

    Attributes:
        seconds: for how long; None for a time that grows with each failure in a row.
        why: for people; holds no key and no text of a prompt.
    """

    state: State
    seconds: float | None
    why: str


@dataclass(slots=True, eq=False)
class Member:
    """One member of a pool and what is known of it.

    Attributes:
        calls: calls that it served, `failures` those for which it was set aside.
        aside_until: time of the pool's clock until which it is set aside.
        state: why it is, or was the last time.
        failures_in_a_row: those that named no time.
        credit: how much of its share it has not got yet.
    """

    name: str
    weight: float = 1.0
    calls: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    aside_until: float = 0.0
    state: State = State.WORKS
    why: str = ""
    failures_in_a_row: int = 0
    credit: float = 0.0

    def readmit(self) -> None:
        """Use it again from now on."""
        self.aside_until, self.state, self.why = 0.0, State.WORKS, ""


class Pool:
    """The members that can serve the calls for one entry.

    Args:
        members: in the order of models.yaml, at least one.
        balance: how sessions are distributed, see `proxyd.config.pools.BALANCES`.
    """

    def __init__(self, members: Sequence[Member], clock: Clock, balance: str = "weighted") -> None:
        self.members = tuple(members)
        self._clock = clock
        self._balance = balance
        self._sessions: OrderedDict[str, Member] = OrderedDict()

    @property
    def sessions(self) -> Mapping[str, Member]:
        """The sessions that stay with a member, the one that was used last at the end."""
        return self._sessions

    def choose(
        self,
        session_id: str | None,
        tried: Collection[Member] = (),
        load_of: Callable[[Member], int] | None = None,
    ) -> Member | None:
        """Return the member for a call, or None if none is available.

        Args:
            session_id: None for a call that belongs to no session.
            tried: members that are not to be chosen.
            load_of: returns the calls in flight at a member, for ``least_load``.
        """
        available = [each for each in self.members if not self.is_aside(each) and each not in tried]
        if not available:
            return None
        member = self._sessions.get(session_id) if session_id is not None else None
        if member not in available:
            member = self._next(available, load_of)
        assert member is not None, "it is one of the available"
        self.keep(session_id, member)
        return member

    def keep(self, session_id: str | None, member: Member) -> None:
        """Let a session stay with `member` from now on."""
        if session_id is None:
            return
        self._sessions[session_id] = member
        self._sessions.move_to_end(session_id)
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _next(self, available: Sequence[Member], load_of: Callable[[Member], int] | None) -> Member:
        if self._balance == "in_order":
            return available[0]
        if self._balance == "least_load" and load_of is not None:
            least = min(load_of(each) / each.weight for each in available)
            available = [each for each in available if load_of(each) / each.weight == least]
        # Smooth weighted round robin: over any stretch each gets its share, as evenly spaced as can be.
        for each in available:
            each.credit += each.weight
        member = max(available, key=lambda each: each.credit)
        member.credit -= sum(each.weight for each in available)
        return member

    def is_aside(self, member: Member) -> bool:
        """Whether `member` is set aside at present."""
        return member.aside_until > self._clock()

    def set_aside(self, member: Member, aside: Aside) -> float:
        """Set `member` aside; return for how many seconds."""
        now = self._clock()
        was_aside = member.aside_until > now
        seconds = aside.seconds
        if seconds is None:
            # Calls that were in flight when it was set aside tell nothing new.
            if was_aside:
                return member.aside_until - now
            seconds = min(_FIRST_ASIDE_S * 2**member.failures_in_a_row, _MAX_ASIDE_S)
            member.failures_in_a_row = min(member.failures_in_a_row + 1, 16)
        seconds = min(max(seconds, _MIN_ASIDE_S), _MAX_NAMED_S)
        if now + seconds > member.aside_until:
            member.aside_until = now + seconds
            member.state, member.why = aside.state, aside.why
        return member.aside_until - now

    def has_served(self, member: Member, usage: Usage) -> None:
        """Count a call that `member` has served."""
        member.calls += 1
        member.input_tokens += usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        member.output_tokens += usage.output_tokens
        if not self.is_aside(member):
            member.failures_in_a_row = 0

    def earliest_s(self) -> float:
        """Return the seconds until the first member is available; 0 if one is."""
        return max(0.0, min(each.aside_until for each in self.members) - self._clock())

    def in_order(
        self, session_id: str | None, load_of: Callable[[Member], int] | None = None
    ) -> list[Member]:
        """Return all members in the order in which to try them for one call; those that are set aside come last."""
        first = self.choose(session_id, load_of=load_of)
        rest = sorted(self.members, key=lambda each: each.aside_until if self.is_aside(each) else 0.0)
        return rest if first is None else [first, *(each for each in rest if each is not first)]

    def take_over(self, before: Pool, members: Iterable[Member]) -> None:
        """Let sessions of the pool that was in force stay with those of `members` that are in both."""
        kept = set(members)
        self._sessions.update(
            (session, member) for session, member in before.sessions.items() if member in kept
        )

    def describe(self, wall_clock: Clock) -> list[dict[str, Any]]:
        """Describe the members for status, page and metrics. ``until`` is Unix time, ``for_s`` how long that is."""
        return [self._described(each, wall_clock()) for each in self.members]

    def _described(self, member: Member, wall_time: float) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": member.name,
            "weight": member.weight,
            "state": State.WORKS.value,
            "calls": member.calls,
            "failures": member.failures,
            "input_tokens": member.input_tokens,
            "output_tokens": member.output_tokens,
        }
        left_s = member.aside_until - self._clock()
        if left_s > 0:
            found |= {
                "state": member.state.value,
                "until": round(wall_time + left_s),
                "for_s": round(left_s, 1),
                "why": member.why,
            }
        return found
