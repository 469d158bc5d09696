"""All connections to one origin: those that calls use, the idle ones, and one that is being opened ahead.

While a session is active one connection is kept open (`keeps_warm`), so that a call after a pause does not wait for a
handshake: when the upstream closes the last one, another is opened in the background. Nothing is opened before a
call of the user's, and nothing ten minutes after the last.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from proxyd.logs.setup import get_logger
from proxyd.transport.connection import ReadBuffer, UpstreamConnection
from proxyd.transport.dialer import Dialer
from proxyd.transport.faults import ConnectTimeout
from proxyd.transport.idle import IdleConnections
from proxyd.transport.names import ACTIVE_S

__all__ = ["Origin"]

log = get_logger("transport")

#: Least time between two connections that are opened to replace one that the upstream has closed, and what is added
#: at random, so that daemons that lost theirs together do not come back together.
_RENEWAL_S, _JITTER_S = 60.0, 1.0
#: How long before the end of an idle connection's life its successor is opened.
_AHEAD_S = 3.0
#: Turns of the event loop that a closed transport needs to close its socket, with some to spare.
_CLOSING_TURNS = 10
#: Timeout of a connection that no call waits for.
_AHEAD_TIMEOUT_S = 20.0


def _clock() -> float:
    """Return a time that goes on while the machine sleeps, where there is one: idle connections age meanwhile."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Origin:
    """The connections to one origin.

    Args:
        limit_s: for how long a connection may be idle at most.
        keeps_warm: keep one open while calls are made.
    """

    def __init__(
        self,
        name: str,
        dialer: Dialer,
        buffer: ReadBuffer,
        *,
        limit_s: float,
        keeps_warm: bool,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._dialer = dialer
        self._buffer = buffer
        self._keeps_warm = keeps_warm and limit_s > 0
        self._jitter = jitter
        self.idle = IdleConnections(limit_s, _clock)
        self._in_use: set[UpstreamConnection] = set()
        self._opening: asyncio.Task[UpstreamConnection] | None = None  # that no call waits for yet
        self._tasks: set[asyncio.Task[UpstreamConnection]] = set()  # of all that are being opened
        self._last_call = 0.0
        self._next_renewal = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = True

    # -- for calls

    def take(self, owner: int) -> UpstreamConnection | None:
        """Return an idle connection for the credentials `owner`, or None. To be given back."""
        self._last_call = _clock()
        connection = self.idle.take(owner)
        if connection is not None:
            self._in_use.add(connection)
        return connection

    async def open(self, timeout_s: float) -> UpstreamConnection:
        """Return a new connection, or the one that is being opened ahead. To be given back.

        Args:
            timeout_s: 0 for none.

        Raises:
            ConnectTimeout: it took too long.
            TransportError, OSError: as `Dialer.open`.
        """
        self._last_call = _clock()
        task, self._opening = self._opening, None
        if task is None:
            task = self._start_opening()
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout_s or None)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise ConnectTimeout
        connection = task.result()
        self._in_use.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection, owner: int) -> None:
        """Take a connection back, to be reused for `owner` or, if it was closed, to be forgotten."""
        self._in_use.discard(connection)
        if not self._is_open:
            connection.close()
            return
        self._last_call = _clock()
        if connection.keeps_alive and connection.is_connected:
            connection.body = None
            self.idle.put(connection, owner)
            if self._timer is not None:
                return  # which looks at this one, too
        self._plan()

    # -- ahead of calls

    def prepare(self) -> None:
        """Open a connection for a call that is being received, unless there is one for it."""
        if self._is_open and self._keeps_warm and not self.idle and self._opening is None:
            self._last_call = _clock()
            self._open_ahead()

    async def close(self) -> None:
        """Close all connections."""
        self._is_open = False
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # one that is done is in `idle` then
        if self._timer is not None:
            self._timer.cancel()
        closing = [*self.idle, *self._in_use]
        self.idle.close()
        for connection in self._in_use:
            connection.close()
        for _ in range(_CLOSING_TURNS):
            if all(connection.is_lost for connection in closing):
                break
            await asyncio.sleep(0)

    def _start_opening(self) -> asyncio.Task[UpstreamConnection]:
        task = asyncio.ensure_future(
            self._dialer.open(lambda: UpstreamConnection(self._buffer, self._on_lost))
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _open_ahead(self) -> None:
        self._opening = task = self._start_opening()
        timeout = asyncio.get_running_loop().call_later(_AHEAD_TIMEOUT_S, self._give_up, task)
        task.add_done_callback(lambda _: timeout.cancel())
        task.add_done_callback(self._on_opened_ahead)

    def _give_up(self, task: asyncio.Task[UpstreamConnection]) -> None:
        if self._opening is task and not task.done():  # else a call waits for it, by its own timeout
            self._opening = None  # now, since the task ends later than this call
            task.cancel()

    def _on_opened_ahead(self, task: asyncio.Task[UpstreamConnection]) -> None:
        if self._opening is not task:
            return  # a call has it
        self._opening = None
        if task.cancelled():
            return
        failure = task.exception()
        if failure is None:
            self.idle.put(task.result(), None)
            log.debug("connection.opened_ahead", origin=self._name)
        else:  # the next call will say what is wrong
            log.debug("connection.not_opened_ahead", origin=self._name, why=type(failure).__name__)
        self._plan()

    def _abandon(self, task: asyncio.Task[UpstreamConnection]) -> None:
        """Cancel an opening whose call is gone."""
        task.add_done_callback(_close_result)
        task.cancel()

    def _on_lost(self, connection: UpstreamConnection) -> None:
        if self._is_open:
            self.idle.on_lost(connection)
            self._plan()

    def _plan(self) -> None:
        """Schedule the next look at the idle connections: the end of one, or the opening of another."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = _clock()
        due = self.idle.next_expiry()
        renewal = self._renewal(now)
        if renewal is not None:
            due = renewal if due is None else min(due, renewal)
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._look)

    def _renewal(self, now: float) -> float | None:
        """Return when a connection is to be opened in the background, or None."""
        if (
            not self._is_open
            or not self._keeps_warm
            or self._in_use  # which will come back
            or self._opening is not None
            or now - self._last_call > ACTIVE_S
            or len(self.idle) > 1
        ):
            return None
        expiry = self.idle.next_expiry()
        wanted = now if expiry is None else expiry - _AHEAD_S
        return max(wanted, self._next_renewal)

    def _look(self) -> None:
        self._timer = None
        self.idle.close_expired()
        now = _clock()
        renewal = self._renewal(now)
        if renewal is not None and renewal <= now:
            self._next_renewal = now + _RENEWAL_S + self._jitter() * _JITTER_S
            self._open_ahead()
        self._plan()


def _close_result(task: asyncio.Task[UpstreamConnection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
