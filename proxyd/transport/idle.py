"""Idle connections of one origin, and how long its server keeps them.

A connection is reused only for calls with the credentials of its first call, so that a response that an upstream sends
late, or twice, never reaches another user. One that has carried no request yet serves anybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from proxyd.transport.connection import UpstreamConnection

__all__ = ["IdleConnections", "IdleLife"]

#: Idle connections of one origin.
_MAX_IDLE = 256
#: A connection is not used in the last second of its life: its end may be on the way already.
_MARGIN_S = 1.0
#: Ends that are remembered, how many of them make a rule, and for how long it holds. One alone may be a restart.
_ENDS, _MIN_ENDS, _RULE_S = 3, 2, 600.0


class IdleLife:
    """For how long an upstream's idle connections are used.

    The shortest of three: the limit that is set, what the upstream says (``Keep-Alive: timeout=``), and what was
    observed, which is the longest life of the last connections that it closed while they were idle.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._said_s: float | None = None
        self._ends: deque[float] = deque(maxlen=_ENDS)
        self._observed_at = 0.0

    def on_said(self, idle_s: float) -> None:
        """Note what the upstream says."""
        self._said_s = idle_s

    def on_closed(self, idle_s: float, now: float) -> None:
        """Note that the upstream has closed a connection that was idle for so long."""
        self._ends.append(idle_s)
        self._observed_at = now

    def usable_s(self, now: float) -> float:
        """Return for how long an idle connection may be used."""
        usable_s = self._limit_s
        if self._said_s is not None:
            usable_s = min(usable_s, max(0.0, self._said_s - _MARGIN_S))
        if len(self._ends) >= _MIN_ENDS:
            if now - self._observed_at > _RULE_S:
                self._ends.clear()  # connections that were closed here in time say nothing of how long they would live
            else:
                usable_s = min(usable_s, max(0.0, max(self._ends) - _MARGIN_S))
        return usable_s


class IdleConnections:
    """The idle connections of one origin, most recently used first.

    Args:
        limit_s: for how long a connection may be idle at most.
        clock: the event loop's.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_owner: dict[int | None, list[UpstreamConnection]] = {}
        self._since: dict[UpstreamConnection, tuple[float, int | None]] = {}
        self._used, self._unused = IdleLife(limit_s), IdleLife(limit_s)

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[UpstreamConnection]:
        return iter(self._since)

    def take(self, owner: int) -> UpstreamConnection | None:
        """Return a connection for the credentials `owner`, or None."""
        now = self._clock()
        for key in (owner, None):
            while connections := self._by_owner.get(key):
                connection = connections[-1]
                since, _ = self._since[connection]
                self._remove(connection)
                if (
                    connection.may_be_reused
                    and now - since < self._life_of(key).usable_s(now)
                    and not connection.has_unread_bytes()  # which the loop may not have read yet
                ):
                    return connection
                connection.close()
        return None

    def put(self, connection: UpstreamConnection, owner: int | None) -> None:
        """Keep a connection; `owner` is None for one that has carried no request."""
        if len(self._since) >= _MAX_IDLE:
            connection.close()
            return
        if connection.idle_s is not None:
            self._used.on_said(connection.idle_s)
        self._by_owner.setdefault(owner, []).append(connection)
        self._since[connection] = (self._clock(), owner)

    def on_lost(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has ended or is of no use any more, and learn from it."""
        if connection in self._since:
            now = self._clock()
            since, owner = self._since[connection]
            self._remove(connection)
            self._life_of(owner).on_closed(now - since, now)

    def next_expiry(self) -> float | None:
        """Return when the next connection is to be closed, or None if there is none."""
        if not self._since:
            return None
        now = self._clock()
        return min(since + self._life_of(owner).usable_s(now) for since, owner in self._since.values())

    def close_expired(self) -> None:
        now = self._clock()
        for connection, (since, owner) in list(self._since.items()):
            if now - since >= self._life_of(owner).usable_s(now):
                self._remove(connection)
                connection.close()

    def close(self) -> None:
        """Close all."""
        for connection in list(self._since):
            self._remove(connection)
            connection.close()

    def _life_of(self, owner: int | None) -> IdleLife:
        return self._unused if owner is None else self._used

    def _remove(self, connection: UpstreamConnection) -> None:
        _, owner = self._since.pop(connection)
        connections = self._by_owner[owner]
        connections.remove(connection)
        if not connections:
            del self._by_owner[owner]
