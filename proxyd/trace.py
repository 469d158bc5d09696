"""What passes through one call, as far as a record of it will need: noted while it passes, looked at when it is over.

A call calls its trace at few places, each guarded by ``if trace is not None``: when it begins (`Recorder.begin`), when
an attempt goes out, when its head is there, when its end is, and once for many pieces that have come or were written.
Where bodies are kept, it is told of each of these by itself, too. None of them copies, waits, or raises: a mistake here
must not end a stream. Most calls are over soon and are not kept: nothing is worked out before somebody asks.

Memory is bounded: so many times a flow, so many bytes a call, so many attempts; what is beyond is counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from proxyd.codecs.openai_errors import ErrorContext
from proxyd.providers.base import ClientKeys, UpstreamRequest
from proxyd.providers.learned import Lessons

__all__ = ["MAX_ATTEMPTS", "MAX_BYTES", "MAX_MARKS", "Attempt", "CallTrace", "Flow"]

#: Times and sizes kept of one direction, 16 bytes each: enough to see the pace of a stream, and little beside what
#: else an open one takes (docs/performance.md).
MAX_MARKS = 1024
#: Bodies kept of one call, all together. Claude Code's longest requests are 4 MB, and a call holds them twice.
MAX_BYTES = 16 * 1024 * 1024
#: Attempts kept of one call: more than three routes with two retries each.
MAX_ATTEMPTS = 12
#: Pieces, and other notes, that wait to be sorted in: a short call has no more, and most calls nobody asks for.
_MOST_UNSORTED = 32

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


class Attempt:
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
        lessons: Lessons | None,
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


class CallTrace:
    """What passes through one call. Its methods never raise.

    Attributes:
        head: of the client's request: method, path and query, headers; of a call that is kept.
        keys: the client's; of a call that is kept.
        lessons: for the attempt that comes next.

    Args:
        body: the client's.
        holds: whatever knows the keys of this call; as long as the trace lives they are in use, so that they are found
            by their values when the record is written (`proxyd.secret`).
        keeps_bodies: keep what was said, too.
    """

    __slots__ = (
        "_answer",
        "_attempts",
        "_came",
        "_failed",
        "_notes",
        "_unsorted",
        "body",
        "body_size",
        "further_attempts",
        "head",
        "holds",
        "is_body_cut",
        "keys",
        "lessons",
        "room",
    )

    def __init__(self, body: bytes, holds: object = None, *, keeps_bodies: bool) -> None:
        self.holds = holds
        self.head: tuple[str, str, Mapping[str, str]] = _NO_HEAD
        self.keys: ClientKeys | None = None
        self.body_size = len(body)
        if keeps_bodies:
            self.room: _Room | None = _Room(MAX_BYTES)
            self.body, self.is_body_cut = self.room.take_whole(body)
        else:
            self.room, self.body, self.is_body_cut = None, b"", False
        self.lessons: Lessons | None = None
        #: What was noted, and of how many pieces: whose work it is to sort it in, and what that needs.
        self._notes: list[tuple[Any, ...]] = []
        self._unsorted = 0
        self._failed = False
        # What is sorted in.
        self._attempts: list[Attempt] = []
        self.further_attempts = 0
        self._answer: Flow | None = None
        self._came: Flow | None = None  # of the attempt at hand, if it is one of those that are kept

    @property
    def attempts(self) -> list[Attempt]:
        """The requests to upstreams, in order."""
        self._sort()
        return self._attempts

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

    def on_sent(self, request: UpstreamRequest, route: str, mode: str, context: ErrorContext) -> None:
        """An attempt goes out."""
        try:
            lessons, self.lessons = self.lessons, None
            asked = (request.method, request.url), request.headers, len(request.body)
            about = route, mode, context.estimated_input_tokens, lessons
            self._notes.append((CallTrace._begin, monotonic(), *asked, *about))
            if self.room is not None or len(self._notes) > _MOST_UNSORTED:
                self._sort()
            if self.room is not None:
                self._keep_sent(request.body, self.room)
        except Exception:
            self._failed = True

    def on_head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """The head of the answer is there."""
        try:
            self._notes.append((CallTrace._answered, monotonic(), status, headers))
        except Exception:
            self._failed = True

    def on_end(self) -> None:
        """The end of the upstream's body was seen."""
        self._notes.append((CallTrace._ended,))

    def on_passed(self, times: list[float], came: list[float], went: list[float]) -> None:
        """Pieces of `came` bytes became writes of `went` bytes at these times; 0 is none. Where bodies are kept each of
        them is told of by itself, too.
        """
        if self.room is None:
            self._notes.append((CallTrace._flowed, times, came, went))
            self._unsorted += len(times)
            if self._unsorted > _MOST_UNSORTED:
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
        notes, self._notes, self._unsorted = self._notes, [], 0
        for sort_in, *what in notes:
            try:
                sort_in(self, *what)
            except Exception:
                self._failed = True

    def _begin(self, *sent: Any) -> None:
        if len(self._attempts) >= MAX_ATTEMPTS:
            self.further_attempts += 1
            self._came = None
        else:
            self._came = flow = Flow(self.room)
            self._attempts.append(Attempt(flow, *sent))

    def _keep_sent(self, body: bytes, room: _Room) -> None:
        if not self.further_attempts:
            # A retry sends the same again, and a direct route what the client sent: once is enough.
            *earlier, attempt = self._attempts
            before = earlier[-1].body if earlier else self.body
            attempt.body, attempt.is_cut = (
                (before, False) if before and before == body else room.take_whole(body)
            )

    def _answered(self, at: float, status: int, headers: Iterable[tuple[str, str]]) -> None:
        if not self.further_attempts:
            attempt = self._attempts[-1]
            attempt.head_at, attempt.status, attempt.response_headers = at, status, headers

    def _ended(self) -> None:
        if self._came is not None:
            self._came.is_whole = True

    def _flowed(self, times: list[float], came: list[float], went: list[float]) -> None:
        for flow, sizes in ((self._came, came), (self._written(), went)):
            if flow is not None:
                flow.note_all(
                    [at for at, size in zip(times, sizes, strict=True) if size],
                    [size for size in sizes if size],
                )

    def _written(self) -> Flow:
        if self._answer is None:
            self._answer = Flow(self.room)
        return self._answer
