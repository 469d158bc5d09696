"""The interface of a codec, and what a codec needs from outside.

A codec is one direction of one stream, from an upstream's frames to Anthropic events. It is fed, then closed once, and
never used again. It does no I/O, reads no clock and draws no random numbers: `NewId` is passed in.

- *Incremental*: the events do not depend on how the bytes were cut into chunks.
- *Prompt*: an event whose bytes are complete is returned by that same call.
- *Total*: any input gives events or raises a `ProxyError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxyd.codecs.anthropic.events import StreamEvent
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.upstream_errors.errors import ErrorContext
from proxyd.codecs.wire.sse import SSEFrame
from proxyd.errors import ProxyError

__all__ = ["Codec", "NewId", "ResponseContext", "Warn"]

#: prefix -> a new unique id with that prefix
NewId = Callable[[str], str]
#: Reports an irregularity of the stream by a name in the dotted lower-case form of log events. Never content.
Warn = Callable[[str], None]


@dataclass(slots=True)
class ResponseContext:
    """What a codec must know of the request whose response it translates.

    Args:
        model: the name the client asked for, shown in ``message_start``.
        upstream_model: the upstream's name, kept in signatures.
        tool_names: upstream name -> the client's name, where they differ.
        used_ids: tool ids of the conversation so far; a repeated one is replaced, since Claude Code removes both calls
            from the history otherwise (docs/spec/claude-code.md#unique-ids).
        stop_sequences: those of the client's request.
        estimated_input_tokens: for ``message_start``, before the upstream reports its count.
        errors: for the texts of errors.
    """

    model: str
    upstream_model: str = ""
    tool_names: dict[str, str] = field(default_factory=dict)
    used_ids: Collection[str] = ()
    stop_sequences: tuple[str, ...] = ()
    estimated_input_tokens: int = 0
    errors: ErrorContext = field(default_factory=ErrorContext)


class Codec(Protocol):
    """Translate the frames of one upstream's stream to Anthropic events."""

    usage: Usage
    stop_reason: str | None

    @property
    def has_started(self) -> bool:
        """``message_start`` was written."""

    @property
    def usage_so_far(self) -> Usage:
        """Tokens until now, estimated where the upstream has reported none."""

    @property
    def has_finish_reason(self) -> bool:
        """The upstream has given its finish reason; only usage or its end marker can follow."""

    @property
    def has_finish(self) -> bool:
        """The upstream has given its finish reason or its end marker."""

    def start(self) -> list[StreamEvent]:
        """Start the message before the upstream has sent anything (docs/spec/design.md#p2)."""

    def feed(self, frame: SSEFrame) -> list[StreamEvent]:
        """Translate one frame. Raises `ProxyError` when the stream has failed."""

    def on_unreadable(self, text: bytes) -> None:
        """Take content of the stream that is no frame. Raises `ProxyError` if it is an error."""

    def unreadable_error(self) -> ProxyError | None:
        """Return the error that quotes unreadable content, if there was any and no finish reason since."""

    def repeated_deltas(self, blocks: list[bytes], at: int, *, is_joined: bool) -> list[StreamEvent]:
        """Translate those frames from `at` on that only continue the open block: one event for each.

        Returns an empty list, and leaves the state unchanged, if the first frame may do more: it is for `feed`.

        Args:
            blocks: frames as they arrived (`SSEDecoder.blocks`).
            is_joined: return them as one `DeltaRun`.
        """

    def rewriter(self) -> Callable[[bytes], bytes] | None:
        """Return a function that does `repeated_deltas` for one frame, valid until any other method is called.

        It takes a frame with its blank line and returns the client's frames, or b"" to decline without side effects.
        None if the stream is in no state in which frames repeat.
        """

    def on_completion(self, completion: Any) -> None:
        """Translate a whole completion as one chunk; `take_events` or `close` returns the events."""

    def take_events(self) -> list[StreamEvent]:
        """Return the events that were written before a failure and not yet returned."""

    def close(self) -> list[StreamEvent]:
        """End the message: the upstream's stream has ended. Raises `Truncated` if it ended too early."""
