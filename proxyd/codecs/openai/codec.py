"""What a codec is, and what it needs from outside.

A codec is one direction of one stream, from an upstream's frames to Anthropic events. It is fed, then closed or failed
once, and never used again. It does no I/O, reads no clock and makes no random numbers: `NewId` is given to it.

- *Incremental*: the events do not depend on how the bytes were cut.
- *Prompt*: an event whose bytes are complete is returned by that same call.
- *Total*: any input gives events or raises a `ProxyError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from proxyd.codecs.anthropic.events import StreamEvent
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.wire.sse import SSEFrame

__all__ = ["Codec", "NewId", "Warn"]

#: prefix -> a new unique id with that prefix
NewId = Callable[[str], str]
#: Takes the name of an oddity that was met, in the lower-case dotted form of log events. Never content.
Warn = Callable[[str], None]


class Codec(Protocol):
    """From the frames of one upstream's stream to Anthropic events."""

    usage: Usage
    stop_reason: str | None
    has_started: bool

    @property
    def usage_so_far(self) -> Usage:
        """Tokens until now, estimated where the upstream has not said."""

    @property
    def has_finish(self) -> bool:
        """The upstream has said why it stops; only usage or its end marker can follow."""

    def start(self) -> list[StreamEvent]:
        """Begin the message before the upstream has said anything (docs/spec/design.md#p2)."""

    def feed(self, frame: SSEFrame) -> list[StreamEvent]:
        """Take one frame. Raises `ProxyError` when the stream has failed."""

    def run(self, blocks: list[bytes], at: int, *, is_joined: bool) -> list[StreamEvent]:
        """The deltas of those frames, from `at` on, that only go on with the open block; one event for each.

        None, and nothing has happened, where the first does more, or may: it is for `feed`.

        Args:
            blocks: frames as they came (`SSEDecoder.blocks`).
            is_joined: give them as one `DeltaRun`.
        """

    def rewriter(self) -> Callable[[bytes], bytes] | None:
        """What does for one frame that comes alone what `run` does, as long as nothing else is asked of this codec.

        It takes a frame with its blank line and gives the frames that it becomes. Where `run` would give none, it may
        give b"" for others too, and nothing has happened. None if the codec is at no place where frames repeat.
        """

    def on_completion(self, completion: Any) -> None:
        """Take a whole answer as if it were one chunk; `take` or `close` gives the events."""

    def take(self) -> list[StreamEvent]:
        """The events made before a failure and not yet given out."""

    def close(self) -> list[StreamEvent]:
        """The upstream has ended: the events that are missing. Raises `Truncated` if it ended too early."""
