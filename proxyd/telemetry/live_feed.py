"""The live feed behind ``/events``, for the page and ``claude-proxy top``.

It reads the records of the calls in flight once a second, and only while there are listeners; it is notified of each
finished call. A listener has a bounded queue: one that does not read is disconnected, so that it delays neither a call
nor another listener.

Messages are SSE events with a JSON object as data::

    hello    {version, started_at, now, is_draining, totals, active: […], recent: […]}   once, at the start
    active   {now, is_draining, totals, active: […]}                                     each second
    call     one finished call                                                           as it ends
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import proxyd
from proxyd import jsonio
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.ledger_schema import COLUMNS

__all__ = ["LiveFeed"]

_TICK_S = 1.0
#: Finished calls kept: a few hours of one person's work.
_RECENT = 200
#: Messages that may wait for one listener, about a minute of them.
_MAX_WAITING = 120
#: Calls of one route over which the median of the first-byte times is taken.
_TTFB_CALLS = 100

_SUMS = (
    "calls",
    "failures",
    "cost_usd",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
)
#: Columns that are known of a call in flight.
_IN_FLIGHT = (
    "request_id",
    "started_at",
    "model",
    "route",
    "upstream_model",
    "mode",
    "kind",
    "session_id",
    "agent_id",
    "retries",
    "fallback_from",
)


class LiveFeed:
    """Sums and last calls since the start, and their listeners.

    Args:
        active: the calls in flight.
        is_draining: whether the daemon is stopping.
    """

    def __init__(
        self, active: Callable[[], Iterable[CallRecord]], is_draining: Callable[[], bool] = bool
    ) -> None:
        self.started_at = time.time()
        self._active = active
        self._is_draining = is_draining
        #: Rows of the ledger with their error messages.
        self._recent: deque[tuple[tuple[Any, ...], str | None]] = deque(maxlen=_RECENT)
        self._totals: dict[str, _Totals] = {}
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._ticker: asyncio.Task[None] | None = None

    def observe(self, call: FinishedCall, row: tuple[Any, ...]) -> None:
        """Add a finished call; `row` is its row in the ledger."""
        if call.kind != "count":
            route = call.route or "none"
            totals = self._totals.get(route)
            if totals is None:
                totals = self._totals[route] = _Totals()
            totals.add(call)
        self.show(call, row)

    def show(self, call: FinishedCall, row: tuple[Any, ...]) -> None:
        """Show a finished call to the listeners without counting it."""
        self._recent.append((row, call.error))
        if self._listeners:
            self._send(_message("call", _finished(row, call.error)))

    def totals(self) -> list[dict[str, Any]]:
        """Sums since the start by route, with the recent median of the time to the first byte."""
        return [{"route": route, **totals.as_dict()} for route, totals in self._totals.items()]

    def recent(self) -> list[dict[str, Any]]:
        """The last finished calls, the newest last."""
        return [_finished(row, error) for row, error in self._recent]

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Yield messages until `close`, or until the listener is too far behind."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        hello = {"version": proxyd.__version__, "started_at": self.started_at, "recent": self.recent()}
        self._listeners.add(queue)
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick(), name="live")
        try:
            yield _message("hello", {**hello, **self._now()})
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        """End all listeners."""
        for queue in self._listeners:
            queue.put_nowait(None)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
            self._ticker = None

    async def _tick(self) -> None:
        while self._listeners:
            await asyncio.sleep(_TICK_S)
            if self._listeners:
                self._send(_message("active", self._now()))
        self._ticker = None

    def _send(self, message: bytes) -> None:
        for queue in tuple(self._listeners):
            if queue.qsize() >= _MAX_WAITING:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(message)

    def _now(self) -> dict[str, Any]:
        return {
            "now": time.time(),
            "is_draining": self._is_draining(),
            "totals": self.totals(),
            "active": [_in_flight(record) for record in self._active()],
        }


@dataclass(slots=True)
class _Totals:
    """The sums of a route since the start.

    Attributes:
        first_bytes_s: seconds to the first byte of the last calls.
    """

    calls: int = 0
    failures: int = 0
    cost_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    first_bytes_s: deque[float] = field(default_factory=lambda: deque(maxlen=_TTFB_CALLS))

    def add(self, call: FinishedCall) -> None:
        usage, ttfb_s = call.usage, call.ttfb_s
        self.calls += 1
        self.failures += call.outcome not in ("ok", "client_gone")
        self.cost_usd += call.cost_usd or 0.0
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_read_tokens += usage.cache_read_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        if ttfb_s is not None:
            self.first_bytes_s.append(ttfb_s)

    def as_dict(self) -> dict[str, Any]:
        times_s = self.first_bytes_s
        return {
            **{name: getattr(self, name) for name in _SUMS},
            "ttfb_ms": round(statistics.median(times_s) * 1000) if times_s else None,
        }


def _in_flight(record: CallRecord) -> dict[str, Any]:
    """A call in flight. ``phase`` is ``waiting`` until the first byte, then ``streaming``."""
    tokens = 0 if record.output_so_far is None else record.output_so_far()
    streaming_s = record.duration_s - (record.ttfb_s or 0)
    is_streaming = record.ttfb_s is not None
    return {
        **{name: getattr(record, name) for name in _IN_FLIGHT},
        "ttfb_ms": None if record.ttfb_s is None else round(record.ttfb_s * 1000),
        "duration_ms": round(record.duration_s * 1000),
        "phase": "streaming" if is_streaming else "waiting",
        "output_tokens": tokens,
        "tokens_per_s": round(tokens / streaming_s, 1) if is_streaming and streaming_s > 0.5 else None,
    }


def _finished(row: tuple[Any, ...], error: str | None) -> dict[str, Any]:
    """A finished call: its row in the ledger and its error message."""
    return {**dict(zip(COLUMNS, row, strict=True)), "error": error}


def _message(event: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), jsonio.dumps(data))
