"""The response to one call, as attempts read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from multidict import CIMultiDictProxy

from proxyd.codecs.wire.http1_body import Body
from proxyd.codecs.wire.http1_head import ResponseHead
from proxyd.transport.connection import READ_BYTES, UpstreamConnection

__all__ = ["Owner", "Response"]


class Owner(Protocol):
    """Where connections come from."""

    def give_back(self, connection: UpstreamConnection, owner: int) -> None:
        """Take a connection back, to be reused for the credentials `owner` or, if it was closed, to be forgotten."""


class Response:
    """The response to one call, from its head on; to be closed or released.

    Attributes:
        status, reason, headers: its head.
        on_progress: called when bytes or the end of the body have arrived, and when the connection has ended; called
            from the protocol's callback, so it must not raise.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_fault",
        "_origin",
        "_owner",
        "_protocol",
        "headers",
        "reason",
        "status",
    )

    def __init__(self, connection: UpstreamConnection, head: ResponseHead, origin: Owner, owner: int) -> None:
        self._connection: UpstreamConnection | None = connection  # until it is released
        self._origin, self._owner = origin, owner
        self._protocol = connection
        assert connection.body is not None, "it has a head"
        self._body: Body = connection.body
        self._fault: BaseException | None = None
        self.status: int = head.status
        self.reason: str = head.reason
        self.headers: CIMultiDictProxy[str] = head.headers

    @property
    def has_more(self) -> bool:
        """Bytes have arrived that were not taken yet."""
        return self._body.waiting_bytes > 0

    @property
    def is_over(self) -> bool:
        """Nothing more will arrive; bytes may still be buffered."""
        body = self._body
        return body.is_complete or body.fault is not None or self._fault is not None

    @property
    def is_awaited(self) -> bool:
        """There is nothing to take yet, and more will arrive."""
        return not (self.has_more or self.is_over)

    @property
    def at_end(self) -> bool:
        """The body has ended and all of it was taken."""
        return self._body.is_complete and not self._body.has_more

    def take(self, limit: int = READ_BYTES) -> bytes:
        """Take up to `limit` bytes that have arrived.

        Raises:
            BodyFault: the body was cut short.
            BaseException: the argument of `interrupt`.
        """
        if self._fault is not None:
            raise self._fault
        data = self._body.take(limit)
        if self._protocol.is_paused:
            self._protocol.resume_reading()
        return data

    def interrupt(self, fault: BaseException) -> None:
        """Raise `fault` in the next `take`, and notify the reader."""
        if self._fault is None:
            self._fault = fault
            if self.on_progress is not None:
                self.on_progress()

    @property
    def on_progress(self) -> Callable[[], None] | None:
        return self._protocol.on_progress

    @on_progress.setter
    def on_progress(self, callback: Callable[[], None] | None) -> None:
        self._protocol.on_progress = callback

    @property
    def content_type(self) -> str:
        """Type and subtype, in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def release(self) -> None:
        """Release the connection, for reuse if the response has been read and the request been sent whole."""
        connection = self._connection
        if connection is None:
            return
        if self._fault is not None or not connection.is_fully_sent or not connection.may_be_reused:
            connection.close()
        self._give_back(connection)

    def discard_connection(self) -> None:
        """Close the connection on `release`: the response is not what was requested."""
        self._protocol.keeps_alive = False

    def close(self) -> None:
        """Close the connection, which cancels the call."""
        if self._connection is not None:
            self._connection.close()
            self._give_back(self._connection)

    def _give_back(self, connection: UpstreamConnection) -> None:
        self._connection = None
        connection.on_progress = None
        self._origin.give_back(connection, self._owner)
