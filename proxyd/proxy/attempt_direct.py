"""An attempt at an Anthropic upstream: its response is passed through and watched (see `proxyd.proxy.attempt`)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import ErrorEvent, MessageStart, Ping
from proxyd.codecs.anthropic.opaque_body import OpaqueBody
from proxyd.codecs.anthropic.passthrough import (
    VAGUE_TYPES,
    PassthroughStream,
    begins_as_stream,
    split_frames,
)
from proxyd.codecs.decoder import Decoder
from proxyd.codecs.upstream_errors.errors import ErrorContext, refusal, refusal_from_chunk
from proxyd.codecs.upstream_errors.outline import outline_of
from proxyd.codecs.wire.decompression import ENCODINGS, Decompressor, compressed, uncompressed
from proxyd.config.settings import Settings
from proxyd.errors import BadReply, Refused
from proxyd.hooks.runner import CallHooks, StreamHooks
from proxyd.providers.base import UpstreamRequest
from proxyd.providers.direct_request import response_head
from proxyd.proxy.active_call import ActiveCall, Finisher
from proxyd.proxy.attempt import Attempt, WholeResponse
from proxyd.proxy.pump import StreamPump
from proxyd.proxy.retries import retry_after_in_seconds
from proxyd.proxy.upstream_reader import UpstreamReader
from proxyd.proxy.wrong_address import address_error, page_error, protocol_error
from proxyd.redaction import masked, masked_bytes
from proxyd.secret import configured_secrets
from proxyd.transport.client import BREAKS, UpstreamClient, failure_of
from proxyd.transport.response import Response

__all__ = ["DirectAttempt", "VerbatimRefusal"]

#: How much of an error with status 200 is logged (docs/spec/operations.md#d).
_EXCERPT_BYTES = 200
#: Largest read of a compressed body, whose copy is decompressed at once to read its usage.
_COMPRESSED_READ_BYTES = 4096


class VerbatimRefusal(Refused):
    """An upstream's error of a direct route, byte for byte except for keys: Claude Code's recovery parses it.

    The reason phrase is not forwarded: no client reads it, and it may hold anything.
    """

    def __init__(
        self, status: int, headers: list[tuple[str, str]], body: bytes, address: str = "the upstream"
    ) -> None:
        by_name = {name.lower(): value for name, value in headers}
        # Parsed for the log and for the choice of a fallback; the client is sent the original.
        meaning = refusal(status, by_name, body, ErrorContext())
        kind = meaning.kind if isinstance(meaning, Refused) else errors.kind_of_status(status)
        super().__init__(f"{address} answered {status}", status=status, kind=kind, headers=by_name)
        self.raw_headers = headers
        self.body, self.upstream_status = body, status
        self._meaning = meaning

    @property
    def words(self) -> str:
        """The upstream's message, without keys."""
        return self._meaning.message

    def stop_retries_if_useless(self) -> None:
        """Add ``x-should-retry: false`` where Claude Code would retry for minutes and that cannot help."""
        names = {name.lower() for name, _ in self.raw_headers}
        is_retried = self.status in (401, 429) or self.status >= 500
        if is_retried and "x-should-retry" not in names and errors.is_permanent(self._meaning):
            self.raw_headers = [*self.raw_headers, *errors.NO_RETRY.items()]


class DirectAttempt(Attempt):
    """An attempt at an Anthropic upstream.

    Attributes:
        is_stream: the response is an event stream that is parsed; else its bytes are opaque.
        status, headers: the response's head as it goes to the client, after `open`.
    """

    _IS_VERBATIM = True

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: UpstreamClient,
        settings: Settings,
        call: ActiveCall,
        hooks: CallHooks | None = None,
        finisher: Finisher | None = None,
    ) -> None:
        super().__init__(request, upstreams, settings, call, hooks, finisher)
        if hooks is not None and hooks.changes_events:
            self._stream_hooks = StreamHooks(hooks)
        self.is_stream = self._is_whole = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        #: Keys that are masked in the response.
        self._keys = [*configured_secrets(), *(key for key in call.keys.all if key.is_searchable)]
        self._sent_headers = request.headers
        self._has_key_pool = call.has_key_pool

    @property
    def whole(self) -> WholeResponse | None:
        return _WholeBody(self._settings.max_upstream_body_bytes) if self._is_whole else None

    def set_head(self, call: ActiveCall) -> None:
        call.writer.set_head(self.status, self._with_own(call), is_stream=self.is_stream)

    def whole_head(self, call: ActiveCall) -> tuple[int, Iterable[tuple[str, str]]]:
        return self.status, self._with_own(call)

    def _with_own(self, call: ActiveCall) -> list[tuple[str, str]]:
        theirs = {name.lower() for name, _ in self.headers}
        return [*(each for each in call.own_headers if each[0] not in theirs), *self.headers]

    async def open(self) -> StreamPump:
        """As `Attempt.open`.

        Raises:
            VerbatimRefusal: the upstream's response is an error.
            ProxyError: there was no usable response.
        """
        response, reader = await self._send()
        self.status = response.status
        self.headers = self._without_keys(response_head(response.status, list(response.headers.items())))
        if response.status >= 400:
            body = self._error_without_keys(await reader.read_up_to(self._settings.max_error_body_bytes))
            if self._is_of_messages():
                wrong = address_error(response.status, body, self._url, is_direct=True)
                if wrong is not None:
                    raise wrong
            raise VerbatimRefusal(response.status, self._with_retry_after(self.headers), body, self._address)
        return await self._open_body(response, reader)

    async def _open_body(self, response: Response, reader: UpstreamReader) -> StreamPump:
        kind = response.content_type
        encoding = response.headers.get("content-encoding", "identity").lower()
        is_decompressed = encoding != "identity" and self._is_to_be_read(encoding)
        if is_decompressed:
            reader.decompress()
            self._remove_encoding()
            encoding = "identity"
        is_plain, is_message = encoding == "identity", self._is_of_messages()
        wants_stream = self._record.is_stream and is_plain and is_message
        beginning = b""
        self.is_stream = kind == "text/event-stream" and is_plain
        if wants_stream and kind in VAGUE_TYPES:
            beginning, self.is_stream = await self._begins_as_stream(reader)
        if self._record.is_stream and is_message:
            self._expect_stream(response, is_stream=self.is_stream)
        decoder: Decoder
        if self.is_stream:
            mask = functools.partial(masked_bytes, secrets=self._keys) if self._keys else None
            decoder = PassthroughStream(self._settings.max_frame_bytes, mask)
        else:
            self._is_whole = kind == "application/json" and is_plain and is_message and self._changes_bodies
            if "content-length" in response.headers and not is_decompressed and not self._is_whole:
                self.headers.append(("Content-Length", response.headers["content-length"]))
            if encoding in ENCODINGS:
                reader.read_bytes = _COMPRESSED_READ_BYTES
            decoder = OpaqueBody(
                kind if is_plain or encoding in ENCODINGS else "",
                Decompressor() if encoding in ENCODINGS else None,
                self._keys if is_plain else (),
            )
        pump = self._start_pump(reader, decoder, is_stream=self.is_stream)
        await pump.until_first_frames(beginning)
        if self._has_key_pool and self.is_stream and is_message:
            self._check_for_error(pump.first_frames)
        if not self._is_whole:
            self._check_beginning(pump.first_frames, kind, is_plain=is_plain, wants_stream=wants_stream)
        return pump

    @property
    def _changes_bodies(self) -> bool:
        """Whether a body that is no stream is changed, by hooks or a finisher."""
        return self.finisher is not None or (self.hooks is not None and self.hooks.changes_bodies)

    def _is_to_be_read(self, encoding: str) -> bool:
        """Whether a response is decompressed although we asked for none compressed.

        Raises:
            BadReply: it must be, and there is no decompressor for it.
        """
        if self._stream_hooks is not None and encoding not in ENCODINGS:
            raise BadReply(
                f"the upstream compressed its response ({encoding}) though asked not to, and hooks could not look at "
                "it; give the entry hooks: [] to have it passed on as it is"
            )
        # Keys are masked in it, if it is an error.
        is_needed = self._changes_bodies or self._stream_hooks is not None or self._sent_configured_key
        return encoding in ENCODINGS and is_needed

    async def _begins_as_stream(self, reader: UpstreamReader) -> tuple[bytes, bool]:
        """Read the beginning of a response of a vague content type; return it, and whether it is an event stream.

        Raises:
            ProxyError: the response broke in it.
        """
        beginning = b""
        while (found := begins_as_stream(beginning)) is None:
            try:
                data = await reader.read()
            except BREAKS as exc:
                raise failure_of(exc, self._url) from exc
            if not data:
                return beginning, False
            beginning += data
        return beginning, found

    def _check_beginning(self, data: bytes, content_type: str, *, is_plain: bool, wants_stream: bool) -> None:
        """Check the first bytes of a response with status 200.

        Raises:
            BadReply: it is in another protocol; or a stream was requested, and it is a login page or an error.
        """
        if is_plain and self._is_of_messages():
            wrong = protocol_error(None, data, self._url, is_direct=True)
            if wrong is not None:
                wrong.detail = outline_of(data)
                raise wrong
        if wants_stream and not self.is_stream:
            self._check_is_message(content_type, data)

    def _check_for_error(self, frames: bytes) -> None:
        """Check the first frames of a stream whose request can be sent with another key.

        Raises:
            Refused: there is an error before any content, of which the client need not know.
        """
        for _, event in split_frames(frames):
            if isinstance(event, ErrorEvent):
                raise refusal_from_chunk(event.body.get("error"), ErrorContext())
            if not isinstance(event, (MessageStart, Ping)):
                return

    def _check_is_message(self, content_type: str, beginning: bytes) -> None:
        """Check a response with status 200 that is no stream, although one was requested.

        Raises:
            BadReply: it is a login page or an error; what it says is for the log alone.
        """
        if content_type == "text/html":
            raise page_error(self._url, outline_of(beginning), is_direct=True)
        if content_type == "application/json" and _is_error(beginning):
            exc = BadReply(f"{self._address} answered with an error, with status 200")
            exc.detail = beginning[:_EXCERPT_BYTES].decode("utf-8", "replace")
            raise exc

    @staticmethod
    def _with_retry_after(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return `headers` with a ``retry-after`` that is a date in seconds."""
        seconds = retry_after_in_seconds({name.lower(): value for name, value in headers})
        return [(name, seconds.get(name.lower(), value)) for name, value in headers]

    def _without_keys(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(name, masked(value, self._keys)) for name, value in headers]

    def _error_without_keys(self, body: bytes) -> bytes:
        """Mask keys in the body of an error, and keep its compression. An unreadable body is replaced."""
        encoding = next(
            (value for name, value in self.headers if name.lower() == "content-encoding"), "identity"
        )
        encoding = encoding.lower()
        if encoding == "identity":
            return masked_bytes(body, self._keys)
        plain = uncompressed(body) if encoding in ENCODINGS else None
        if plain is not None:
            found = masked_bytes(plain, self._keys)
            return body if found is plain else compressed(found, encoding)
        if not self._keys:
            return body
        self._remove_encoding()
        text = f"the upstream answered {self.status} with a body that could not be read ({encoding[:20]!r})"
        return jsonio.dumps(
            {"type": "error", "error": {"type": errors.kind_of_status(self.status), "message": text}}
        )

    @property
    def _sent_configured_key(self) -> bool:
        """Whether the upstream was sent a key that is not the client's own, so that its response may contain one."""
        values = self._sent_headers.values()
        return any(key.reveal() in value for key in self._keys if key.is_configured for value in values)

    def _remove_encoding(self) -> None:
        dropped = ("content-encoding", "content-length")
        self.headers = [(name, value) for name, value in self.headers if name.lower() not in dropped]

    def _is_of_messages(self) -> bool:
        """Whether the request is for a message, and not for a token count."""
        return urlsplit(self._url).path.endswith("/messages")


class _WholeBody:
    """Collects a body that is no stream."""

    is_writable = True

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    @property
    def body(self) -> bytes:
        return bytes(self._data)

    def write(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._limit:
            raise BadReply(f"the upstream's response is larger than {self._limit >> 20} MiB")

    async def drained(self) -> None:
        raise AssertionError("it is always writable")

    def stop_pings(self) -> None:
        pass

    def message(self) -> dict[str, Any] | None:
        try:
            message = jsonio.loads(bytes(self._data))
        except jsonio.TooManyValues as exc:  # no response may bypass a hook
            raise BadReply(f"the upstream's response has {exc}, too many to be shown to hooks") from None
        except jsonio.JSONError:
            return None
        return message if isinstance(message, dict) else None


def _is_error(body: bytes) -> bool:
    try:
        value = jsonio.loads(body)
    except jsonio.JSONError:
        return False  # it is incomplete, so it is no short error
    return isinstance(value, dict) and value.get("error") is not None and "content" not in value
