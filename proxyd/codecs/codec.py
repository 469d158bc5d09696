"""The interface of a codec, and what a codec needs from outside.

A codec translates one response of one upstream protocol (Chat Completions, Responses, Gemini) to Anthropic events.
`codecs.response_decoder` drives it: it finds out whether the bytes are an event stream or one JSON body, cuts a stream
into frames and checks the order of the events. A codec is fed, then closed once, and never used again. It does no I/O,
reads no clock and draws no random numbers: `NewId` is passed in.

- *Incremental*: the events do not depend on how the bytes were cut into chunks.
- *Prompt*: an event whose bytes are complete is returned by that same call.
- *Total*: any input gives events or raises a `ProxyError`.
- *Uncommitted until there is output*: frames that only announce a response (``response.created``) give no events. A
  failure before the first event becomes a status, a retry or a fallback, a later one an ``error`` event.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxyd.codecs.anthropic.events import StreamEvent
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.translation.offered_tools import OfferedTools
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
        upstream_model: what the signatures of the model are marked with.
        tools: those whose calls are looked for in the text, and repaired; None where none are.
        tool_names: upstream name -> the client's name, where they differ.
        used_ids: tool ids of the conversation so far; a repeated one is replaced, since Claude Code removes both calls
            from the history otherwise (docs/spec/claude-code.md#unique-ids).
        stop_sequences: those of the client's request.
        estimated_input_tokens: for ``message_start``, before the upstream reports its count.
        context_management: for the end of the message: the edits that were made to the request.
        retries_empty: a complete response without content is a failure, since the request can still be repeated.
        errors: for the texts of errors.
    """

    model: str
    upstream_model: str = ""
    tools: OfferedTools | None = None
    tool_names: dict[str, str] = field(default_factory=dict)
    used_ids: Collection[str] = ()
    stop_sequences: tuple[str, ...] = ()
    estimated_input_tokens: int = 0
    context_management: dict[str, Any] | None = None
    retries_empty: bool = False
    errors: ErrorContext = field(default_factory=ErrorContext)


class Codec(Protocol):
    """Translate one response of one upstream protocol to Anthropic events."""

    stop_reason: str | None
    response_model: str | None

    @property
    def has_started(self) -> bool:
        """``message_start`` was written."""

    @property
    def usage(self) -> Usage:
        """Tokens until now, estimated where the upstream has reported none."""

    @property
    def has_finish_reason(self) -> bool:
        """The upstream has given its finish reason; only usage or its end marker can follow."""

    @property
    def has_finish(self) -> bool:
        """The upstream has given its finish reason or its end marker."""

    def start(self) -> list[StreamEvent]:
        """Start the message before the upstream has sent anything (docs/spec/design.md#p2)."""

    def repeat(self, block: bytes) -> bytes:
        """Translate a frame that only continues the open block, as nearly all do, without parsing it.

        Args:
            block: the lines of the frame, as they arrived.

        Returns:
            The client's frame; b"", without side effects, if `block` may be more than that.
        """

    def feed(self, frame: SSEFrame) -> list[StreamEvent]:
        """Translate one frame of a stream. Raises `ProxyError` when the stream has failed."""

    def on_unreadable(self, text: bytes) -> None:
        """Take content of a stream that is no frame. Raises `ProxyError` if it is an error."""

    def unreadable_error(self) -> ProxyError | None:
        """Return the error that quotes unreadable content, if there was any and no finish reason since."""

    def error_in_body(self, body: bytes) -> ProxyError | None:
        """Return the error that a JSON body with status 200 reports; None if it reports none, or is no JSON."""

    def on_body(self, value: Any) -> bool:
        """Translate a whole JSON body, parsed; `take_events` or `close` returns the events.

        Returns false, and changes nothing, if it is no response of this protocol. Raises `ProxyError` as `feed` does.
        """

    def take_events(self) -> list[StreamEvent]:
        """Return the events that were written before a failure and not yet returned."""

    def close(self) -> list[StreamEvent]:
        """End the message: the upstream's stream has ended. Raises `Truncated` if it ended too early."""
