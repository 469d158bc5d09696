"""One connection to an upstream: reads the head and the body of one response after the other.

::

    idle ──send_request──▶ waiting for a head ──head──▶ body ──end of the body, release──▶ idle
      │                        │                         │
      └──────── bytes, end ────┴──── fault, end ─────────┴──▶ closed

Bytes on an idle connection belong to no request: they close it. The reader of a body is notified of each arrival from
within the protocol's callback.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections.abc import Callable

from proxyd.codecs.wire.http1_body import Body, BodyFault
from proxyd.codecs.wire.http1_head import HeadFault, HeadReader, ResponseHead
from proxyd.transport.faults import NoResponse, NotHTTP, UnexpectedResponse

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["READ_BYTES", "ReadBuffer", "UpstreamConnection"]

#: Reading pauses when twice this is buffered; one more read of the transport may follow. It resumes below this.
_BUFFER_BYTES = 32 * 1024
#: Largest read, from a socket and from the buffer. asyncio's own 256 KiB would be held up to three times for a client
#: that does not read: by the reader, by the write that waits, and by the transport (docs/spec/operations.md#c6).
READ_BYTES = 64 * 1024
#: Larger bodies are not joined with their heads, and are written in slices of this size. The transport copies what the
#: system does not take at once: of 31 MB that would block the event loop for 50 ms.
_SLICE_BYTES = 512 * 1024
_NOTHING = memoryview(b"")
#: Statuses of responses that have no body whatever their head says (RFC 9112, 6.3).
_BODILESS = frozenset({204, 304})
#: Sent by servers that waited for a request in vain: on a connection that was idle it can't be the response to a
#: request that was sent whole.
_REQUEST_TIMEOUT = 408
#: TIOCOUTQ of a socket whose send queue is empty.
_NOTHING_UNSENT = bytes(4)
#: A peer that has vanished without a word is noticed by the system within 60 s.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class ReadBuffer:
    """Memory that all connections of one event loop read into, one after the other."""

    __slots__ = ("view",)

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


class UpstreamConnection(asyncio.BufferedProtocol):
    """Protocol of one connection.

    Args:
        on_lost: called when an idle connection has ended, or has received bytes that nobody asked for.

    Attributes:
        transport: None before the connection is made, and after its end.
        body: of the current response, once its head has arrived.
        on_progress: see `proxyd.transport.response.Response`.
        is_lost: the connection has ended.
        is_paused: reading waits until enough of the body has been taken.
        keeps_alive: the connection may be reused if its response ends correctly.
        requests: how many have been sent.
        idle_s: how long the upstream says that it keeps an idle connection, or None.
    """

    def __init__(
        self, buffer: ReadBuffer, on_lost: Callable[[UpstreamConnection], None] | None = None
    ) -> None:
        self._view = buffer.view
        self._on_lost = on_lost
        self.transport: asyncio.Transport | None = None
        self.body: Body | None = None
        self.on_progress: Callable[[], None] | None = None
        self.is_lost = False
        self.keeps_alive = True
        self.requests = 0
        self.idle_s: float | None = None
        self._head: asyncio.Future[ResponseHead] | None = None  # set while a response is waited for
        self._reader: HeadReader | None = None  # of the head that is being received
        self._began_early = False  # the response began before its request had been sent whole
        self._poll: select.poll | None = None
        self._is_tls = False
        self.is_paused = False
        self._is_writing_paused = False
        self._unsent = _NOTHING  # of the body that is being sent
        self._decodes = self._has_body = True
        self._descriptor = -1

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        sock = transport.get_extra_info("socket")
        self._descriptor = sock.fileno()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # which of them there are depends on the system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    @property
    def is_connected(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    @property
    def may_be_reused(self) -> bool:
        """Whether another request may be sent once the current response has been read."""
        body = self.body
        return (
            self.keeps_alive
            and self.is_connected
            and self._head is None
            and (body is None or (body.is_complete and not body.has_surplus))
        )

    @property
    def is_fully_sent(self) -> bool:
        """Whether the transport has passed the whole request to the system."""
        return self.transport is None or not self._has_unsent(self.transport)

    def _has_unsent(self, transport: asyncio.Transport) -> bool:
        return bool(self._unsent) or transport.get_write_buffer_size() > 0

    @property
    def has_extra_response(self) -> bool:
        """More than one response has arrived on a reused connection, so none can be matched with this request."""
        return self.requests > 1 and self.body is not None and self.body.has_surplus

    def has_unread_bytes(self) -> bool:
        """Whether bytes, or the end of the connection, are to be read from the socket."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)
        return bool(self._poll.poll(0))

    def has_spoken_first(self) -> bool:
        """Whether a new connection has received bytes before its first request. TLS has some of its own to say."""
        return not self._is_tls and self.has_unread_bytes()

    def close(self) -> None:
        """Close the connection, and drop what has not been sent."""
        self.keeps_alive = False
        transport = self.transport
        if transport is None:
            return
        has_unsent, self._unsent = self._has_unsent(transport), _NOTHING
        if self._is_tls or has_unsent:
            transport.abort()  # an orderly end would wait for the peer's
        else:
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_lost = True
        self.transport, self._unsent = None, _NOTHING
        body = self.body
        if body is not None:
            if exc is None:
                body.close()
            elif not body.has_ended:
                body.fault = BodyFault("the connection was reset before the body ended")
        if self._head is not None:
            self._fail(NoResponse(is_untouched=self._reader is None), exc)
        if self.on_progress is not None:
            self.on_progress()
        self._report_lost()

    def _report_lost(self) -> None:
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(self)

    # -- requests

    def send_request(
        self, head: bytes, body: bytes, *, decodes: bool, has_body: bool
    ) -> asyncio.Future[ResponseHead]:
        """Send a request; returns a future of the head of its response, interim ones skipped. `body` has the rest.

        Args:
            decodes: decompress the body.
            has_body: the response may have a body.

        The future raises:
            NoResponse: the connection ended first.
            NotHTTP: the response is no HTTP.
            UnexpectedResponse: it can't be the response to this request.
        """
        assert self.transport is not None, "it is connected"
        self._decodes, self._has_body, self._reader = decodes, has_body, None
        self.body = None
        self.requests += 1
        self._began_early, self._unsent = False, _NOTHING
        self._head = future = asyncio.get_running_loop().create_future()
        if len(body) > _SLICE_BYTES:
            self.transport.write(head)
            self._unsent = memoryview(body)
            self._write_slices()
        else:
            self.transport.write(head + body)
        return future

    def _write_slices(self) -> None:
        """Write what the transport takes of the rest of the body; `resume_writing` goes on."""
        while self._unsent and not self._is_writing_paused and self.is_connected:
            part, self._unsent = self._unsent[:_SLICE_BYTES], self._unsent[_SLICE_BYTES:]
            assert self.transport is not None, "it is connected"
            self.transport.write(part)

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        self._write_slices()

    def fail_with_timeout(self) -> None:
        """Fail the pending read of a head with a timeout."""
        self._fail(asyncio.TimeoutError("no answer"))

    def _fail(self, exc: Exception, cause: BaseException | None = None) -> None:
        """Raise `exc` in the reader of the head."""
        self.keeps_alive = False
        future, self._head = self._head, None
        exc.__cause__ = cause
        if future is not None and not future.done():
            future.set_exception(exc)

    # -- responses

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Copy received bytes out at once: the next connection reads into the same memory."""
        self.data_received(bytes(self._view[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Handle received bytes."""
        if self._head is not None:
            rest = self._read_head(data)
            if not rest:
                return
            data = rest
        body = self.body
        if body is None:
            self._reject_unasked()
            return
        body.feed(data)
        # Bytes after the end must be seen now, not stay in the transport (TLS) until the connection is reused.
        if (
            body.waiting_bytes > 2 * _BUFFER_BYTES
            and not self.is_paused
            and not body.has_ended
            and self.transport is not None
        ):
            self.is_paused = True
            self.transport.pause_reading()
        if self.on_progress is not None:
            self.on_progress()

    def resume_reading(self) -> None:
        """Read on after a pause, if enough of the body has been taken."""
        if self.body is not None and self.body.waiting_bytes < _BUFFER_BYTES:
            self.is_paused = False
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def _read_head(self, data: bytes) -> bytes:
        """Feed the reader with heads; returns the bytes that follow the last one."""
        while data:
            if self._reader is None:
                self._reader = HeadReader()
                self._began_early = self._is_partly_sent()
            try:
                found = self._reader.feed(data)
            except HeadFault as exc:
                self._fail(NotHTTP(str(exc)))
                return b""
            if found is None:
                return b""
            head, data = found
            if not head.is_interim:
                return data if self._accept(head) else b""
            self._reader = HeadReader()
            self._began_early = False  # an interim response may arrive before the request has been sent whole
        return b""

    def _accept(self, head: ResponseHead) -> bool:
        """Begin the body of a response; returns False if it can't be the response to the current request."""
        if self._is_unexpected(head.status):
            self._fail(UnexpectedResponse("the upstream sent a response that is not to this request"))
            return False
        future, self._head = self._head, None
        self.body = self._body_of(head)
        self.keeps_alive = self.keeps_alive and head.keeps_alive and not self._began_early
        if head.idle_s is not None:
            self.idle_s = head.idle_s
        if future is not None and not future.done():
            future.set_result(head)
        return True

    def _is_unexpected(self, status: int) -> bool:
        """Whether a head can't be that of the response to the current request.

        On a new connection there is no other request, and a server may refuse it before it has read it whole.
        """
        if self.requests > 1:
            return self._began_early or status == _REQUEST_TIMEOUT
        return self._began_early and status < 400

    def _is_partly_sent(self) -> bool:
        """Whether part of the request is unwritten, or not acknowledged by the peer's system: a response that arrives
        now was sent before the peer had the whole request.
        """
        if not self.is_fully_sent:
            return True
        if sys.platform != "linux" or self.transport is None:
            return False
        try:
            return fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, _NOTHING_UNSENT) != _NOTHING_UNSENT
        except OSError:
            return False  # the connection has ended, which `connection_lost` handles

    def _reject_unasked(self) -> None:
        """Close a connection that has received a goodbye, or a response to no request."""
        self.close()
        self._report_lost()

    def _body_of(self, head: ResponseHead) -> Body:
        if not self._has_body or head.status in _BODILESS:
            return Body(length=0, is_chunked=False)
        encoding = head.headers.get("content-encoding", "") if self._decodes else ""
        encoding = encoding.strip().lower().removeprefix("x-")  # an old name of gzip's
        if head.length is None and not head.is_chunked:
            self.keeps_alive = False
        return Body(
            length=head.length,
            is_chunked=head.is_chunked,
            encoding="" if encoding == "identity" else encoding,
        )
