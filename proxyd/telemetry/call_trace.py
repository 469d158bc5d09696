"""What passes through one call, as far as a record of it will need: noted while it passes, looked at when it is over.

A call's own code appends its notes, tuples, to the call's trace, each guarded by ``if trace is not None``: when an
attempt goes out, when its head is there, when its end is, and once for many pieces that have come or were written.
Where bodies are kept, the trace is told of each of these by itself, too. None of that copies, waits, or raises: a
mistake here must not end a stream. Most calls are over soon and are not kept: nothing is worked out before somebody
asks, and a trace is a bare list until then, since what it costs is how much code and memory it touches.

Memory is bounded: so many times a flow, so many bytes a call, so many attempts; what is beyond is counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from proxyd.providers.base import ClientKeys
from proxyd.providers.learned_quirks import LearnedQuirks

__all__ = [
    "ANSWERED",
    "BEGUN",
    "ENDED",
    "LEARNED",
    "MAX_ATTEMPTS",
    "MAX_BYTES",
    "MAX_MARKS",
    "MOST_NOTES",
    "PASSED",
    "SENT",
    "AttemptTrace",
    "CallTrace",
    "Flow",
]

#: Times and sizes kept of one direction, 16 bytes each: enough to see the pace of a stream, and little beside what
#: else an open one takes (docs/performance.md).
MAX_MARKS = 1024
#: Bodies kept of one call, all together. Claude Code's longest requests are 4 MB, and a call holds them twice.
MAX_BYTES = 16 * 1024 * 1024
#: Attempts kept of one call: more than three routes with two retries each.
MAX_ATTEMPTS = 12
#: Notes that wait to be sorted in, and pieces that one of them has: a short call has no more, and most calls nobody
#: asks for.
MOST_NOTES = 32
_MOST_PIECES = 32

#: What a note tells of: see `CallTrace`.
BEGUN, LEARNED, SENT, ANSWERED, PASSED, ENDED = range(6)

#: Before anybody has said what the client's request was.
_NO_HEAD: tuple[str, str, Mapping[str, str]] = ("", "", {})


class _Room:
    """What of `MAX_BYTES` is left."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, data: bytes) -> bytes:
        """As much of `data` as there is room for."""
        kept = data[: self.left] if len(data) > self.left else data
        self.left -= len(kept)
        return kept

    def take_whole(self, body: bytes) -> tuple[bytes, bool]:
        """`body` if there is room for all of it, else b""; whether there was not."""
        return (b"", True) if len(body) > self.left else (self.take(body), False)


class Flow:
    """Bytes in one direction: when how many, and with bodies which.

    Attributes:
        marks: of the first `MAX_MARKS` pieces, each its time by the monotonic clock and then its size.
        pieces: the bytes themselves, or None where no bodies are kept.
        count, size: of all pieces.
        is_whole: the end was seen.
    """

    __slots__ = ("_further", "_further_bytes", "_room", "is_whole", "marks", "pieces")

    def __init__(self, room: _Room | None) -> None:
        self.marks = array("d")
        self.pieces: list[bytes] | None = None if room is None else []
        self.is_whole = False
        self._room = room
        self._further = self._further_bytes = 0

    @property
    def times(self) -> Sequence[float]:
        return self.marks[::2]

    @property
    def sizes(self) -> Sequence[int]:
        return [int(size) for size in self.marks[1::2]]

    @property
    def count(self) -> int:
        return len(self.marks) // 2 + self._further

    @property
    def size(self) -> int:
        return sum(self.sizes) + self._further_bytes

    @property
    def is_cut(self) -> bool:
        """There was no room for all bytes."""
        return self.pieces is not None and sum(map(len, self.pieces)) < self.size

    def note(self, data: bytes) -> None:
        """Another piece."""
        self.note_all([monotonic()], [len(data)])
        if self.pieces is not None and self._room is not None:
            self.pieces.append(self._room.take(data))

    def note_all(self, times: list[float], sizes: list[float]) -> None:
        """Further pieces, without their bytes: when each came, and how long it was."""
        count = min(len(times), MAX_MARKS - len(self.marks) // 2)
        marks = [0.0] * (2 * count)
        marks[::2], marks[1::2] = times[:count], sizes[:count]
        self.marks.extend(marks)
        self._further += len(sizes) - count
        self._further_bytes += int(sum(sizes[count:]))


class AttemptTrace:
    """One request to an upstream, and what came of it.

    Attributes:
        request: method and URL.
        body: as it was sent; b"" without bodies, or where there was no room (`is_cut`).
        estimated_input_tokens: what the call was taken to be long, for translated attempts.
        lessons: what the daemon had learned of the route.
        flow: what came back; it `is_whole` where the end of the upstream's body was seen.
    """

    __slots__ = (
        "body",
        "estimated_input_tokens",
        "flow",
        "head_at",
        "headers",
        "is_cut",
        "lessons",
        "mode",
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
        sent_at: float,
        request: tuple[str, str],
        headers: Mapping[str, str],
        size: int,
        route: str,
        mode: str,
        estimated_input_tokens: int | None,
        lessons: LearnedQuirks | None,
    ) -> None:
        self.sent_at = sent_at
        self.request = request
        self.headers = headers
        self.size = size
        self.body = b""
        self.is_cut = False
        self.route, self.mode = route, mode
        self.estimated_input_tokens = estimated_input_tokens
        self.lessons = lessons
        self.head_at: float | None = None
        self.status = 0
        self.response_headers: Iterable[tuple[str, str]] = ()
        self.flow = flow


class CallTrace(list[tuple[Any, ...]]):
    """What passes through one call: the notes that are not sorted in yet, and what the others have said.

    A note has first what it tells of, and then::

        BEGUN      what the call holds, the size of the client's body
        LEARNED    lessons, for the attempt that comes next
        SENT       time, (method, URL), headers, size of the body, route, mode, estimated input tokens
        ANSWERED   time, status, headers
        PASSED     lists of times, of sizes that have come, and of sizes that were written; 0 is none
        ENDED      the end of the upstream's body was seen

    What a call holds is whatever knows its keys: as long as the trace lives they are in use, so that they are found by
    their values when the record is written (`proxyd.secret`).

    Attributes:
        head: of the client's request: method, path and query, headers; of a call that is kept.
        keys: the client's; of a call that is kept.
        room: for bodies, where they are kept.
        body: the client's, where it is kept; else b"", and where there was no room for it `is_body_cut`.
    """

    # None of them is an instance's own before it is sorted, or told of bodies.
    head: tuple[str, str, Mapping[str, str]] = _NO_HEAD
    keys: ClientKeys | None = None
    room: _Room | None = None
    body = b""
    is_body_cut = False
    further_attempts = 0
    _holds: object = None
    _body_size = 0
    _lessons: LearnedQuirks | None = None
    _attempts: list[AttemptTrace] | None = None
    _answer: Flow | None = None
    _came: Flow | None = None  # of the attempt at hand, if it is one of those that are kept
    _failed = False

    __repr__ = object.__repr__  # what is sent holds keys

    def keep_bodies(self, body: bytes) -> None:
        """Keep what is said from now on, and `body`, the client's."""
        try:
            self.room = _Room(MAX_BYTES)
            self.body, self.is_body_cut = self.room.take_whole(body)
        except Exception:
            self._failed = True

    @property
    def holds(self) -> object:
        self._sort()
        return self._holds

    @property
    def body_size(self) -> int:
        self._sort()
        return self._body_size

    @property
    def attempts(self) -> list[AttemptTrace]:
        """The requests to upstreams, in order."""
        self._sort()
        return self._attempts or []

    @property
    def answer(self) -> Flow:
        """What the client has taken."""
        self._sort()
        return self._written()

    @property
    def has_failed(self) -> bool:
        """Something could not be noted, by a mistake of ours."""
        self._sort()
        return self._failed

    @property
    def keeps_bodies(self) -> bool:
        return self.room is not None

    @property
    def kept_bytes(self) -> int:
        """What it holds in memory, near enough."""
        return MAX_BYTES - self.room.left if self.room is not None else 0

    def on_sent(self, body: bytes) -> None:
        """An attempt has been noted as `SENT`, with `body`. To be called where bodies are kept, or notes are many."""
        try:
            self._sort()
            if self.room is not None:
                self._keep_sent(body, self.room)
        except Exception:
            self._failed = True

    def on_passed(self, times: list[float], came: list[float], went: list[float]) -> None:
        """Pieces of `came` bytes became writes of `went` bytes at these times; 0 is none. Where bodies are kept each of
        them is told of by itself, too.
        """
        if self.room is None:
            self.append((PASSED, times, came, went))
            if len(times) > _MOST_PIECES or len(self) > MOST_NOTES:
                self._sort()

    def on_chunk(self, data: bytes) -> None:
        """The upstream has sent `data`, which is to be kept."""
        try:
            if self._came is not None:
                self._came.note(data)
        except Exception:
            self._failed = True

    def on_written(self, data: bytes) -> None:
        """The client has taken `data`, which is to be kept."""
        try:
            self._written().note(data)
        except Exception:
            self._failed = True

    def _sort(self) -> None:
        """Put what was noted where it belongs."""
        notes = self[:]
        self.clear()
        for kind, *what in notes:
            try:
                _SORT_IN[kind](self, *what)
            except Exception:
                self._failed = True

    def _begun(self, holds: object, body_size: int) -> None:
        self._holds, self._body_size = holds, body_size

    def _learned(self, lessons: LearnedQuirks) -> None:
        self._lessons = lessons

    def _sent(
        self,
        at: float,
        request: tuple[str, str],
        headers: Mapping[str, str],
        size: int,
        route: str,
        mode: str,
        estimated_input_tokens: int | None,
    ) -> None:
        lessons, self._lessons = self._lessons, None
        if self._attempts is None:
            self._attempts = []
        if len(self._attempts) >= MAX_ATTEMPTS:
            self.further_attempts += 1
            self._came = None
        else:
            self._came = flow = Flow(self.room)
            about = headers, size, route, mode, estimated_input_tokens, lessons
            self._attempts.append(AttemptTrace(flow, at, request, *about))

    def _keep_sent(self, body: bytes, room: _Room) -> None:
        if not self.further_attempts:
            # A retry sends the same again, and a direct route what the client sent: once is enough.
            *earlier, attempt = self.attempts
            before = earlier[-1].body if earlier else self.body
            attempt.body, attempt.is_cut = (
                (before, False) if before and before == body else room.take_whole(body)
            )

    def _answered(self, at: float, status: int, headers: Iterable[tuple[str, str]]) -> None:
        if not self.further_attempts:
            attempt = self.attempts[-1]
            attempt.head_at, attempt.status, attempt.response_headers = at, status, headers

    def _passed(self, times: list[float], came: list[float], went: list[float]) -> None:
        for flow, sizes in ((self._came, came), (self._written(), went)):
            if flow is not None:
                flow.note_all(
                    [at for at, size in zip(times, sizes, strict=True) if size],
                    [size for size in sizes if size],
                )

    def _ended(self) -> None:
        if self._came is not None:
            self._came.is_whole = True

    def _written(self) -> Flow:
        if self._answer is None:
            self._answer = Flow(self.room)
        return self._answer


#: By what a note tells of.
_SORT_IN: tuple[Callable[..., None], ...] = (
    CallTrace._begun,
    CallTrace._learned,
    CallTrace._sent,
    CallTrace._answered,
    CallTrace._passed,
    CallTrace._ended,
)
