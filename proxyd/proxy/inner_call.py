"""What stands for the client in a call that the proxy makes for itself: a request without a connection, a response in
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxyd import jsonio
from proxyd.codecs.anthropic.events import TextDelta
from proxyd.codecs.anthropic.passthrough import split_frames
from proxyd.errors import BadReply
from proxyd.proxy.aiohttp_server import WRITTEN_RESPONSE
from proxyd.server_tools.auto_mode.verdicts import ObjectEnd

__all__ = ["BodyWriter", "InnerRequest", "VerdictWatch"]

#: Largest response of such a call.
MAX_BYTES = 1 << 20


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
