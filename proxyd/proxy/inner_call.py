"""What stands for the client in a call that the proxy makes for itself: a request without a connection, a response in
memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxyd import jsonio
from proxyd.codecs.anthropic.events import StreamEvent, TextDelta
from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.codecs.anthropic.passthrough import split_frames
from proxyd.errors import BadReply
from proxyd.proxy.aiohttp_server import WRITTEN_RESPONSE
from proxyd.server_tools.auto_mode.verdicts import ObjectEnd

__all__ = ["BodyWriter", "EventWriter", "InnerRequest", "VerdictWatch"]

#: Largest response of such a call.
MAX_BYTES = 1 << 20
#: Events of a streamed response that wait for their taker before reading from the upstream pauses.
_MAX_WAITING = 256


class InnerRequest:
    """In place of aiohttp's request."""

    method = "POST"
    raw_path = "/v1/messages"
    rel_url = URL(raw_path)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers: CIMultiDict[str] = CIMultiDict(headers)

    def get(self, key: Any) -> None:
        """Return what the API has noted about the request, which is nothing."""
        return


class VerdictWatch:
    """Watches the frames of a classifier's response for its verdicts."""

    def __init__(self) -> None:
        self._object = ObjectEnd()

    def __call__(self, frames: bytes) -> bool:
        """Return whether the rest of the response is not needed."""
        for _, event in split_frames(frames):
            if isinstance(event, TextDelta):
                self._object.feed(event.text)
        return self._object.needs_no_more


class BodyWriter:
    """Collects a whole response, in place of `proxyd.proxy.client_response.ResponseWriter`.

    Attributes:
        status: of the response.
    """

    def __init__(self) -> None:
        self.status = 200
        self.on_sent: Callable[[bytes], None] | None = None
        self._body = bytearray()
        self.is_committed = False

    response: web.StreamResponse = WRITTEN_RESPONSE

    def set_head(self, status: int, headers: Iterable[tuple[str, str]], *, is_stream: bool) -> None:
        self.status = status

    @property
    def is_writable(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        """Collect a part of the body.

        Raises:
            BadReply: it is too large.
        """
        self.is_committed = True
        self._body += data
        if len(self._body) > MAX_BYTES:
            raise BadReply(f"the response is larger than {MAX_BYTES >> 20} MiB")
        if self.on_sent is not None:
            self.on_sent(data)

    async def drained(self) -> None:
        """Do nothing: it is always writable."""

    async def finish(self, data: bytes = b"") -> None:
        self.write(data)

    def commit_after(self, delay_s: float, opening: Callable[[], bytes]) -> None:
        """Do nothing: nobody waits for the head."""

    def stay_uncommitted(self) -> None:
        """Do nothing, see `commit_after`."""

    def stop_pings(self) -> None:
        """Do nothing: nobody is sent pings."""

    def abort(self) -> None:
        """Do nothing: there is no connection."""

    def message(self) -> dict[str, Any]:
        """Return the response as a message.

        Raises:
            BadReply: it is none.
        """
        try:
            value = jsonio.loads(bytes(self._body))
        except jsonio.JSONError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("content"), list):
            raise BadReply("the response is no message of the Messages API")
        return value


class EventWriter(BodyWriter):
    """Takes a streamed response, and gives its events as they arrive to one taker."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[StreamEvent] = []
        self._collector = MessageCollector()
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_ended = False

    @property
    def is_writable(self) -> bool:
        return len(self._events) < _MAX_WAITING

    def write(self, data: bytes) -> None:
        """Take whole frames."""
        self.is_committed = True
        events = [event for _, event in split_frames(data) if event is not None]
        self._collector.add_all(events)
        self._events += events
        self._has_news.set()
        if self.on_sent is not None:
            self.on_sent(data)

    async def drained(self) -> None:
        """Wait until there is room for more events."""
        while not self.is_writable:
            self._has_room.clear()
            await self._has_room.wait()

    def close(self) -> None:
        """Let the taker know that there are no more events."""
        self._has_ended = True
        self._has_news.set()

    async def take(self, timeout_s: float | None = None) -> list[StreamEvent] | None:
        """Wait for events and return all that are there; None once there are no more.

        Raises:
            asyncio.TimeoutError: there were none for so long.
        """
        if not self._events and not self._has_ended:
            self._has_news.clear()
            await asyncio.wait_for(self._has_news.wait(), timeout_s)
        events, self._events = self._events, []
        self._has_room.set()
        return events or None

    def message(self) -> dict[str, Any]:
        """Return the message, as far as it was received."""
        return self._collector.message()
