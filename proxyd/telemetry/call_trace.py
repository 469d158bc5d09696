"""The trace of one call: heads, sizes, times and, with ``record_bodies``, bytes, as far as a record needs them.

The call's own code notifies the trace, each time guarded by ``if trace is not None``: when an attempt is sent, when its
response head arrives, when its body ends, and for chunks in either direction. Nothing here waits or raises, because a
bug here must not end a stream; headers are kept by reference.

Memory is bounded by the number of chunks in each direction, of bytes in a call and of attempts; the rest is counted.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar, cast

from proxyd.providers.base import ClientKeys
from proxyd.providers.learned_quirks import LearnedQuirks

__all__ = ["MAX_ATTEMPTS", "MAX_BYTES", "MAX_MARKS", "AttemptTrace", "CallTrace", "Flow"]

#: Times and sizes kept of one direction, 16 bytes each: enough to see the pace of a stream.
MAX_MARKS = 1024
#: Bodies kept of one call in total. Claude Code's longest requests are 4 MB, and a call holds them twice.
MAX_BYTES = 16 * 1024 * 1024
#: Attempts kept of one call: more than three routes with two retries each.
MAX_ATTEMPTS = 12

F = TypeVar("F", bound=Callable[..., None])


class _Budget:
    """What is left of `MAX_BYTES`."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, data: bytes) -> bytes:
        """As much of `data` as the budget allows."""
        kept = data[: self.left] if len(data) > self.left else data
        self.left -= len(kept)
        return kept

    def take_whole(self, body: bytes) -> tuple[bytes, bool]:
        """`body` if the budget allows all of it, else b""; and whether it was left out."""
        return (b"", True) if len(body) > self.left else (self.take(body), False)


class Flow:
    """Bytes in one direction: the size and time of each chunk and, where bodies are kept, its bytes.

    Attributes:
        count: number of all chunks.
        size: of all chunks.
        first_at: time of the first chunk, by the monotonic clock.
        marks: of the first `MAX_MARKS` chunks, each its time and then its size.
        chunks: the bytes themselves, or None where no bodies are kept.
        is_whole: the end was seen.
    """

    __slots__ = ("_budget", "chunks", "count", "first_at", "is_whole", "marks", "size")

    def __init__(self, budget: _Budget | None) -> None:
        self.count = self.size = 0
        self.first_at: float | None = None
        self.marks = array("d")
        self.chunks: list[bytes] | None = None if budget is None else []
        self.is_whole = False
        self._budget = budget

    @property
    def times(self) -> Sequence[float]:
        return self.marks[::2]

    @property
    def sizes(self) -> Sequence[int]:
        return [int(size) for size in self.marks[1::2]]

    @property
    def is_truncated(self) -> bool:
        """Not all bytes could be kept."""
        return self.chunks is not None and sum(map(len, self.chunks)) < self.size

    def forget_chunks(self) -> None:
        """Keep number and size of the chunks only, and the time of the first."""
        self.marks, self.chunks = array("d"), None

    def add(self, data: bytes) -> None:
        """Add a chunk."""
        size = len(data)
        if self.count < MAX_MARKS:
            now, marks = monotonic(), self.marks
            if not self.count:
                self.first_at = now
            marks.append(now)
            marks.append(size)
        self.count += 1
        self.size += size
        if self.chunks is not None and self._budget is not None:
            self.chunks.append(self._budget.take(data))


class AttemptTrace:
    """One request to an upstream and its response.

    Attributes:
        request: method and URL.
        model: as the upstream calls it.
        size: of the request's body.
        body: the request's; b"" where bodies are not kept, or where it was too large (`is_truncated`).
        estimated_input_tokens: of a translated attempt.
        learned: the quirks that the daemon had learned of the route.
        flow: the response's body; it `is_whole` where its end was seen.
        ended_at: None while it is being made.
        error_type: of the error that ended it, as the client would be told; None for none.
    """

    __slots__ = (
        "body",
        "ended_at",
        "error_type",
        "estimated_input_tokens",
        "flow",
        "head_at",
        "headers",
        "is_truncated",
        "learned",
        "mode",
        "model",
        "request",
        "response_headers",
        "route",
        "sent_at",
        "size",
        "status",
    )

    def __init__(
        self,
        flow: Flow,
        request: tuple[str, str],
        headers: Mapping[str, str],
        size: int,
        *,
        route: str,
        mode: str,
        model: str,
        estimated_input_tokens: int | None,
        learned: LearnedQuirks | None,
    ) -> None:
        self.sent_at = monotonic()
        self.request = request
        self.headers = headers
        self.size = size
        self.body = b""
        self.is_truncated = False
        self.route, self.mode, self.model = route, mode, model
        self.estimated_input_tokens = estimated_input_tokens
        self.learned = learned
        self.head_at: float | None = None
        self.status = 0
        self.response_headers: Iterable[tuple[str, str]] = ()
        self.flow = flow
        self.ended_at: float | None = None
        self.error_type: str | None = None


def _never_raises(notify: F) -> F:
    """Turn an exception of a method of `CallTrace` into `CallTrace.has_failed`."""

    @functools.wraps(notify)
    def guarded(self: CallTrace, *arguments: Any, **named: Any) -> None:
        try:
            notify(self, *arguments, **named)
        except Exception:
            self.has_failed = True

    return cast(F, guarded)


class CallTrace:
    """The trace of one call.

    Args:
        in_force: the settings, routes and hooks of the call. They hold keys, and a key is found by its value as long as
            its `Secret` lives (`proxyd.secret`): until the record is written.
        body_size: of the client's request.

    Attributes:
        head: of the client's request: method, path and query, headers; set where the call is kept.
        keys: the client's; set where the call is kept.
        body: the client's, where bodies are kept; b"" where it was too large (`is_body_truncated`).
        attempts: the requests to upstreams, in order; `further_attempts` are counted only.
        response: what was written to the client.
        has_failed: something is missing because of a bug here.
    """

    __slots__ = (
        "_budget",
        "_flow",
        "_learned",
        "attempts",
        "body",
        "body_size",
        "further_attempts",
        "has_failed",
        "head",
        "in_force",
        "is_body_truncated",
        "keys",
        "response",
    )

    def __init__(self, in_force: object = None, body_size: int = 0) -> None:
        self.in_force = in_force
        self.body_size = body_size
        self.head: tuple[str, str, Mapping[str, str]] = ("", "", {})
        self.keys: ClientKeys | None = None
        self.body = b""
        self.is_body_truncated = False
        self.attempts: list[AttemptTrace] = []
        self.further_attempts = 0
        self.response = Flow(None)
        self.has_failed = False
        self._budget: _Budget | None = None
        self._learned: LearnedQuirks | None = None
        self._flow: Flow | None = None  # of the current attempt, if it is kept

    @property
    def keeps_bodies(self) -> bool:
        return self._budget is not None

    @property
    def kept_bytes(self) -> int:
        """The approximate size in memory."""
        return 0 if self._budget is None else MAX_BYTES - self._budget.left

    def forget_chunks(self) -> None:
        """Keep the heads, numbers and sizes only."""
        self.in_force, self.body = None, b""
        self.response.forget_chunks()
        for attempt in self.attempts:
            attempt.body = b""
            attempt.flow.forget_chunks()

    @_never_raises
    def keep_bodies(self, body: bytes) -> None:
        """Keep the client's body, and all bodies from now on."""
        self._budget = _Budget(MAX_BYTES)
        self.response = Flow(self._budget)
        self.body, self.is_body_truncated = self._budget.take_whole(body)

    def headers_of_attempt(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of an attempt that is about to be sent."""
        return headers

    @property
    def context_headers(self) -> Mapping[str, str]:
        """The headers that make another call a part of this one."""
        return {}

    @_never_raises
    def on_learned(self, quirks: LearnedQuirks) -> None:
        """The next attempt is made with these learned quirks."""
        self._learned = quirks

    @_never_raises
    def on_sent(
        self,
        request: tuple[str, str],
        headers: Mapping[str, str],
        body: bytes,
        *,
        route: str,
        mode: str,
        model: str = "",
        estimated_input_tokens: int | None = None,
    ) -> None:
        """An attempt is sent."""
        learned, self._learned = self._learned, None
        if len(self.attempts) >= MAX_ATTEMPTS:
            self.further_attempts += 1
            self._flow = None
            return
        self._flow = Flow(self._budget)
        attempt = AttemptTrace(
            self._flow,
            request,
            headers,
            len(body),
            route=route,
            mode=mode,
            model=model,
            estimated_input_tokens=estimated_input_tokens,
            learned=learned,
        )
        if self._budget is not None:
            # A retry sends the same again, and a direct route what the client sent: once is enough.
            before = self.attempts[-1].body if self.attempts else self.body
            attempt.body, attempt.is_truncated = (
                (before, False) if before and before == body else self._budget.take_whole(body)
            )
        self.attempts.append(attempt)

    @_never_raises
    def on_response_head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """The head of the attempt's response has arrived."""
        if self._flow is not None:
            attempt = self.attempts[-1]
            attempt.head_at, attempt.status, attempt.response_headers = monotonic(), status, headers

    # These two without `_never_raises`, whose own call would be half of their cost.

    def on_chunk(self, data: bytes) -> None:
        """The upstream has sent `data`."""
        try:
            if self._flow is not None:
                self._flow.add(data)
        except Exception:
            self.has_failed = True

    def on_written(self, data: bytes) -> None:
        """The client has been sent `data`."""
        try:
            self.response.add(data)
        except Exception:
            self.has_failed = True

    @_never_raises
    def on_end(self) -> None:
        """The end of the response's body was seen."""
        if self._flow is not None:
            self._flow.is_whole = True

    @_never_raises
    def on_over(self, error_type: str | None) -> None:
        """The attempt is over."""
        if self._flow is not None:
            attempt = self.attempts[-1]
            attempt.ended_at, attempt.error_type = monotonic(), error_type
