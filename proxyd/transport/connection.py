"""One connection to an upstream: aiohttp's parser reads the heads of responses, `proxyd.codecs.wire.http1_body` their
bodies.

The reader of a body is notified of each arrival from within `data_received`, and is offered a lone chunk before it is
buffered.
"""

from __future__ import annotations

import re
import select
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import RawResponseMessage

from proxyd.codecs.wire.http1_body import Body, BodyFault

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["READ_BYTES", "UnexpectedResponse", "UpstreamConnection"]

#: Reading pauses when twice this is buffered; one more read of the transport may follow. It resumes below this.
_BUFFER_BYTES = 32 * 1024
#: Largest read, from a socket and from the buffer.
READ_BYTES = 64 * 1024
#: Limits on a response's header lines and their number (docs/spec/operations.md#c2 has the same for requests).
_MAX_LINE, _MAX_HEADERS = 8190, 128
#: Larger bodies are not joined with their heads: a second system call takes less time than the copy.
_SEPARATE_WRITE_BYTES = 512 * 1024
#: End of a head. aiohttp's parser accepts lines that end with LF alone.
_HEAD_END = re.compile(rb"\r?\n\r?\n")
#: Statuses of responses that have no body whatever their head says (RFC 9112, 6.3).
_BODILESS = frozenset({204, 304})
#: Sent by servers that waited for a request in vain: on a connection that was idle it can't be the response to a
#: request that was sent whole.
_REQUEST_TIMEOUT = 408
#: TIOCOUTQ of a socket whose send queue is empty.
_NOTHING_UNSENT = bytes(4)


class UnexpectedResponse(aiohttp.ClientError):
    """The upstream sent something that can't be the response to the current request."""


class UpstreamConnection(ResponseHandler):
    """Protocol of one connection: aiohttp's parser for heads, a `Body` of ours for what follows.

    Attributes:
        body: of the current response, once its head has arrived.
        on_progress, on_lone_chunk: see `Response`.
        is_lost: the connection has ended.
        keeps_alive: the connection may be reused if its response ends correctly.

    Until the first request is sent it behaves as its base does: the connector uses it for CONNECT.
    """

    body: Body | None = None
    on_progress: Callable[[], None] | None = None
    on_lone_chunk: Callable[[bytes], bool] | None = None
    is_lost = False
    keeps_alive = True
    _requests = 0  # how many have been sent
    _began_early = False  # the response began before its request had been sent whole
    _has_begun = False  # the response has begun
    _poll: select.poll | None = None
    _awaits_head = False  # a request was sent, and the head of its response has not arrived
    _is_paused = False
    _head_tail = b""
    _decodes = _has_body = True
    _descriptor = -1

    def send_request(self, head: bytes, body: bytes, *, decodes: bool, has_body: bool) -> None:
        """Send a request. `read` returns the head of its response, `body` has the rest.

        Args:
            decodes: decompress the body.
            has_body: the response may have a body.
        """
        assert self.transport is not None, "it is connected"
        self._awaits_head, self._decodes, self._has_body, self._head_tail = True, decodes, has_body, b""
        self._requests += 1
        self._has_begun = self._began_early = False
        if self._descriptor < 0:
            self._descriptor = self.transport.get_extra_info("socket").fileno()
        if self._parser is None:
            # It is fed heads only, so one parser that expects no bodies reads them all.
            self.set_response_params(
                skip_payload=True,
                auto_decompress=False,
                max_line_size=_MAX_LINE,
                max_field_size=_MAX_LINE,
                max_headers=_MAX_HEADERS,
            )
        if len(body) > _SEPARATE_WRITE_BYTES:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)

    def fail_with_timeout(self) -> None:
        """Fail the pending read of a head with a timeout."""
        self.set_exception(aiohttp.SocketTimeoutError("no answer"))

    @property
    def should_close(self) -> bool:
        """Whether the connection cannot be reused."""
        if not self._requests:
            return super().should_close or self.is_lost
        body = self.body
        return (
            self._should_close
            or not self.keeps_alive
            or self.is_lost
            or self._awaits_head
            or self._exception is not None
            or (body is not None and (body.has_surplus or not body.is_complete))
        )

    @property
    def has_extra_response(self) -> bool:
        """More than one response has arrived on a reused connection, so none can be matched with this request."""
        return self._requests > 1 and self.body is not None and self.body.has_surplus

    def has_unread_bytes(self) -> bool:
        """Whether bytes, or the end of the connection, are to be read from the socket."""
        assert self._descriptor >= 0, "it has sent a request"
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)
        return bool(self._poll.poll(0))

    def take(self, limit: int) -> bytes:
        """Take up to `limit` bytes of the body that have arrived.

        Raises:
            BodyFault: the body was cut short.
        """
        assert self.body is not None, "the head has been read"
        data = self.body.take(limit)
        if self._is_paused and self.body.waiting_bytes < _BUFFER_BYTES and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
        return data

    def limit_reads(self) -> None:
        """Read no more at once than `READ_BYTES`, once the connection is made.

        asyncio's own 256 KiB would be held up to three times for a client that does not read: by the reader, by the
        write that waits, and by the transport (docs/spec/operations.md#c6). A TLS transport has no such limit.
        """
        if hasattr(self.transport, "max_size"):
            setattr(self.transport, "max_size", READ_BYTES)  # noqa: B010 - typing does not know it

    def data_received(self, data: bytes) -> None:
        if self._awaits_head:
            if not self._has_begun:
                self._has_begun, self._began_early = True, self._is_partly_sent()
            data = self._feed_head(data)
            if not data:
                return
        body = self.body
        if body is None:
            if not self._requests:
                super().data_received(data)
                return
            self._close_after_surplus()  # a goodbye, or a response to no request
            return
        if (
            self.on_lone_chunk is not None
            and (chunk := body.take_lone_chunk(data))
            and self.on_lone_chunk(chunk)
        ):
            return
        body.feed(data)
        # Bytes after the end must be seen now, not stay in the transport (TLS) until the connection is reused.
        if (
            body.waiting_bytes > 2 * _BUFFER_BYTES
            and not self._is_paused
            and not body.has_ended
            and self.transport is not None
        ):
            self._is_paused = True
            self.transport.pause_reading()
        if self.on_progress is not None:
            self.on_progress()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_lost = True
        if self.body is not None:
            if exc is None:
                self.body.close()
            elif not self.body.has_ended:
                self.body.fault = BodyFault("the connection was reset before the body ended")
        super().connection_lost(exc)
        if self.on_progress is not None:
            self.on_progress()

    def _feed_head(self, data: bytes) -> bytes:
        """Feed the parser with heads; returns the bytes that follow the last one."""
        while self._awaits_head and data:
            known = len(self._head_tail)
            end = _HEAD_END.search(self._head_tail + data)
            at = len(data) if end is None else end.end() - known
            head, data = data[:at], data[at:]
            self._head_tail = (self._head_tail + head)[-3:] if end is None else b""
            super().data_received(head)
            if self._exception is not None:
                return b""
        return data

    def feed_data(self, data: tuple[RawResponseMessage, Any], size: int = 0) -> None:
        """Handle a head that the parser has read."""
        if not self._requests:
            super().feed_data(data, size)
            return
        message = data[0]
        if 100 <= message.code < 200 and message.code != 101:
            self._has_begun = False  # an interim response may arrive before the request has been sent whole
        elif self._is_unexpected(message.code):
            self._reject_head()
            return
        else:
            self._awaits_head = False
            self.body = self._body_of(message)
            self.keeps_alive = self.keeps_alive and not self._began_early
        super().feed_data(data, size)

    def _is_unexpected(self, status: int) -> bool:
        """Whether a head can't be that of the response to the current request.

        On a new connection there is no other request, and a server may refuse it before it has read it whole.
        """
        if self._requests > 1:
            return self._began_early or status == _REQUEST_TIMEOUT
        return self._began_early and status < 400

    def _is_partly_sent(self) -> bool:
        """Whether part of the request is unwritten, or not acknowledged by the peer's system: a response that arrives
        now was sent before the peer had the whole request.
        """
        transport = self.transport
        if transport is None:
            return False
        if transport.get_write_buffer_size():
            return True
        if sys.platform != "linux":
            return False
        try:
            return fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, _NOTHING_UNSENT) != _NOTHING_UNSENT
        except OSError:
            return False  # the connection has ended, which `connection_lost` handles

    def _reject_head(self) -> None:
        """Fail the pending read of a head with `UnexpectedResponse`."""
        self.keeps_alive = False
        self._awaits_head, self.body = True, None
        self.set_exception(UnexpectedResponse("the upstream sent a response that is not to this request"))

    def _close_after_surplus(self) -> None:
        self._should_close = True
        if self.transport is not None:
            self.transport.close()

    def _body_of(self, message: RawResponseMessage) -> Body:
        headers = message.headers
        encoding = headers.get("content-encoding", "") if self._decodes else ""
        encoding = encoding.strip().lower().removeprefix("x-")  # an old name of gzip's
        if not self._has_body or message.code in _BODILESS or message.code == 101:
            return Body(length=0, is_chunked=False)
        length = headers.get("content-length")
        body = Body(
            length=None if length is None else int(length),
            is_chunked=message.chunked,
            encoding="" if encoding == "identity" else encoding,
        )
        if length is None and not message.chunked:
            self._should_close = True
        return body
