"""The interface of what turns the bytes of an upstream's response into the bytes of the client's, in every mode."""

from __future__ import annotations

from typing import Protocol

from proxyd.codecs.anthropic.usage import Usage
from proxyd.errors import ProxyError

__all__ = ["LARGE_BYTES", "Decoder"]

#: What is buffered beyond this takes long to decode: the event loop would be blocked for up to a second by 8 MiB.
LARGE_BYTES = 512 * 1024


class Decoder(Protocol):
    """Decode one response: `feed` its bytes, then `close` it. Each call returns whole frames for the client.

    A failure before the first frames is raised, so that it can become an HTTP status or be retried. A failure after
    them becomes the one ``error`` event that ends the stream, and is kept in `failure`.

    Attributes:
        address: of the upstream, which its failures name; "" for none.
        failure: what ended the stream with an error event.
        events: the number of events that were returned, where they are counted.
    """

    address: str
    failure: ProxyError | None
    events: int

    @property
    def usage(self) -> Usage:
        """Tokens until now, estimated where the upstream has reported none."""

    @property
    def stop_reason(self) -> str | None:
        """The stop reason of the message, once it is known."""

    @property
    def error_type(self) -> str | None:
        """The type of an error event of the upstream's own that was passed on."""

    @property
    def response_model(self) -> str | None:
        """The name of the model that has responded, as the upstream says it; None where it does not."""

    @property
    def reports_cache(self) -> bool:
        """The upstream has reported, at the beginning, tokens that were read from a cache or written to one."""

    @property
    def has_started(self) -> bool:
        """The first frames were returned."""

    @property
    def has_finish(self) -> bool:
        """The message is complete. Only its usage, or the end of the upstream's body, can follow."""

    @property
    def has_last_event(self) -> bool:
        """The client's last event was returned."""

    @property
    def has_ended(self) -> bool:
        """Nothing more will be returned."""

    @property
    def is_large(self) -> bool:
        """More than `LARGE_BYTES` are buffered: `feed` and `close` are to be called in a thread."""

    def feed(self, data: bytes) -> bytes:
        """Decode one chunk.

        Raises:
            ProxyError: the response failed before its first frames.
        """

    def close(self) -> bytes:
        """End the response: the upstream's bytes have ended.

        Raises:
            ProxyError: as `feed`.
        """

    def fail(self, exc: ProxyError) -> bytes:
        """End a stream that has begun: with `exc`, unless its message is complete."""
