"""The interface of what turns the bytes of an upstream's response into the bytes of the client's, in every mode."""

from __future__ import annotations

from typing import Protocol

from proxyd.codecs.anthropic.usage import Usage
from proxyd.errors import ProxyError

__all__ = ["Decoder"]


class Decoder(Protocol):
    """Decode one response: `feed` its bytes, then `close` it. Each call returns whole frames for the client.

    A failure before the first event is raised, so that it can become an HTTP status or be retried. A failure after it
    becomes the one ``error`` event that ends the stream, and is kept in `failure`.
    """

    @property
    def failure(self) -> ProxyError | None:
        """What ended the stream with an error event."""

    @property
    def usage(self) -> Usage:
        """Tokens until now, estimated where the upstream has reported none."""

    @property
    def stop_reason(self) -> str | None:
        """The stop reason of the message, once it is known."""

    @property
    def events(self) -> int:
        """The number of events that were returned, where they are counted."""

    @property
    def has_finish(self) -> bool:
        """The message is complete. Only its usage, or the end of the upstream's body, can follow."""

    @property
    def has_ended(self) -> bool:
        """The client's last event was returned."""

    def feed(self, data: bytes) -> bytes:
        """Decode one chunk.

        Raises:
            ProxyError: the response failed before its first event.
        """

    def close(self) -> bytes:
        """End the response: the upstream's bytes have ended.

        Raises:
            ProxyError: as `feed`.
        """

    def fail(self, exc: ProxyError) -> bytes:
        """End a stream that has begun with `exc`, or with the error that the upstream itself has written."""
