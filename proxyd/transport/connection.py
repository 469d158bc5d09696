"""One connection to an upstream: requests go out as they are, an answer's head is read by aiohttp's parser, its body by
`proxyd.codecs.wire.http1_body`.

Whoever reads the body is told of each arrival at once, within the reading of the socket, and is offered a piece that
comes alone before it is kept anywhere.
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

__all__ = ["READ_BYTES", "OutOfTurn", "UpstreamConnection"]

#: Reading from an upstream pauses above twice this; one more read of the loop's may follow.
_BUFFER_BYTES = 32 * 1024
#: What is taken at once, from a socket and from its reader.
READ_BYTES = 64 * 1024
#: Lines and number of an answer's headers (docs/spec/operations.md#c2 has the same for requests).
_MAX_LINE, _MAX_HEADERS = 8190, 128
#: Larger bodies are not copied behind their heads: a second system call takes less time.
_APART_BYTES = 512 * 1024
#: Where the head of an answer ends. aiohttp's parser forgives servers that end lines with LF alone.
_HEAD_END = re.compile(rb"\r?\n\r?\n")
#: Answers that have no body whatever their head says (RFC 9112, 6.3).
_BODILESS = frozenset({204, 304})


#: A server that says this has waited for a request in vain: on a connection that had idled it can't be the response to
#: one that was written whole.
_REQUEST_TIMEOUT = 408
#: How the system says that a connection has nothing left to send.
_NO_BYTES = bytes(4)


class OutOfTurn(aiohttp.ClientError):
    """The upstream sent something that can't be the response to the request at hand."""


class UpstreamConnection(ResponseHandler):
    """A connection: aiohttp's parser reads the head of an answer, a `Body` of ours what is behind it.

    Attributes:
        body: of the answer at hand, from its head on.
        on_progress: told of everything that happens to it.
        on_piece: is offered pieces that come alone, see `Response.on_piece`.
        is_lost: the connection has ended.
        keeps_alive: the connection may serve again, if its response ends as it should.

    Until the first request is sent, it is aiohttp's own: the connector speaks to a proxy by it (CONNECT).
    """

    body: Body | None = None
    on_progress: Callable[[], None] | None = None
    on_piece: Callable[[bytes], bool] | None = None
    is_lost = False
    keeps_alive = True
    _requests = 0  # that have been sent
    _is_early = False  # the response began before all of its request had been taken
    _has_begun = False  # the response has
    _poll: select.poll | None = None
    _is_asked = False  # a request has gone out, and its answer's head has not come
    _is_paused = False
    _head_tail = b""
    _decodes = _has_body = True
    _descriptor = -1

    def ask(self, head: bytes, body: bytes, *, decodes: bool, has_body: bool) -> None:
        """Send a request. Its answer's head is to be `read`, then its `body`.

        Args:
            decodes: undo the content encoding of the body.
            has_body: its answer may have one.
        """
        assert self.transport is not None, "the connection is there"
        self._is_asked, self._decodes, self._has_body, self._head_tail = True, decodes, has_body, b""
        self._requests += 1
        self._has_begun = self._is_early = False
        if self._descriptor < 0:
            self._descriptor = self.transport.get_extra_info("socket").fileno()
        if self._parser is None:
            # It is fed heads alone, so one parser, which takes no answer to have a body, reads them all.
            self.set_response_params(
                skip_payload=True,
                auto_decompress=False,
                max_line_size=_MAX_LINE,
                max_field_size=_MAX_LINE,
                max_headers=_MAX_HEADERS,
            )
        if len(body) > _APART_BYTES:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)

    def give_up(self) -> None:
        """Have whoever waits for a head get a timeout."""
        self.set_exception(aiohttp.SocketTimeoutError("no answer"))

    @property
    def should_close(self) -> bool:
        """Whether the connection can serve no other request."""
        if not self._requests:
            return super().should_close or self.is_lost
        body = self.body
        return (
            self._should_close
            or not self.keeps_alive
            or self.is_lost
            or self._is_asked
            or self._exception is not None
            or (body is not None and (body.has_surplus or not body.is_complete))
        )

    @property
    def brought_another(self) -> bool:
        """More than one response has come on a reused connection: nobody can say which one is to this request."""
        return self._requests > 1 and self.body is not None and self.body.has_surplus

    def has_unread(self) -> bool:
        """Whether bytes, or the end of the connection, wait to be read from the socket."""
        assert self._descriptor >= 0, "it has served"
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)
        return bool(self._poll.poll(0))

    def take(self, limit: int) -> bytes:
        """What has come of the body.

        Raises:
            BodyFault: nothing more will, and its end was not there.
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
        if self._is_asked:
            if not self._has_begun:
                self._has_begun, self._is_early = True, self._is_partly_sent()
            data = self._feed_head(data)
            if not data:
                return
        body = self.body
        if body is None:
            if not self._requests:
                super().data_received(data)
                return
            self._close_idle()  # a farewell, or a response to no request
            return
        if self.on_piece is not None and (piece := body.alone(data)) and self.on_piece(piece):
            return
        body.feed(data)
        # What follows the end must not wait unseen in the transport (TLS) until the connection serves again.
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
        """Give the parser what is of a head; returns what is behind the last one."""
        while self._is_asked and data:
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
        """The parser has read a head."""
        if not self._requests:
            super().feed_data(data, size)
            return
        message = data[0]
        if 100 <= message.code < 200 and message.code != 101:
            self._has_begun = False  # an interim one may come before the request has been sent whole
        elif self._is_out_of_turn(message.code):
            self._refuse()
            return
        else:
            self._is_asked = False
            self.body = self._body_of(message)
            self.keeps_alive = self.keeps_alive and not self._is_early
        super().feed_data(data, size)

    def _is_out_of_turn(self, status: int) -> bool:
        """Whether the head that came can't be that of the response to this request.

        A new connection has no other request, and a server may refuse one before it has read it whole.
        """
        if self._requests > 1:
            return self._is_early or status == _REQUEST_TIMEOUT
        return self._is_early and status < 400

    def _is_partly_sent(self) -> bool:
        """Whether part of the request has not been written, or not been received by the peer's system: then what came
        was sent before the request was there.
        """
        transport = self.transport
        if transport is None:
            return False
        if transport.get_write_buffer_size():
            return True
        if sys.platform != "linux":
            return False
        try:
            return fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, _NO_BYTES) != _NO_BYTES
        except OSError:
            return False  # the connection has ended, which others see

    def _refuse(self) -> None:
        """Have whoever waits for a head get `OutOfTurn`."""
        self.keeps_alive = False
        self._is_asked, self.body = True, None
        self.set_exception(OutOfTurn("the upstream sent a response that is not to this request"))

    def _close_idle(self) -> None:
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
