"""The body of a direct route's response that is no event stream, or is one in an encoding that is passed on."""

from __future__ import annotations

from collections.abc import Iterable

from proxyd.codecs.anthropic.passthrough import PassthroughStream
from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.decoder import LARGE_BYTES
from proxyd.codecs.wire.decompression import BadCompression, Decompressor
from proxyd.errors import ProxyError
from proxyd.redaction import BodyRedactor
from proxyd.secret import Secret

__all__ = ["OpaqueBody"]

#: Usage is not read from larger bodies. One of 128 000 tokens is some 600 KB; this takes 20 ms to parse.
_MAX_WATCHED_BYTES = 4 << 20


class OpaqueBody:
    """The decoder of one body (`codecs.decoder`), which passes its bytes on as they come and reads usage from a copy.

    A failure is always raised: only a closed connection can show it to the client.

    Args:
        content_type: ``application/json`` for a message, ``text/event-stream`` for frames; usage is read from no other.
        decompressor: decompresses the copy.
        keys: are masked, unless the body is a message.
    """

    __slots__ = (
        "_copy",
        "_decompressor",
        "_frames",
        "_redactor",
        "_size",
        "address",
        "events",
        "failure",
        "has_ended",
        "has_started",
    )

    def __init__(
        self, content_type: str, decompressor: Decompressor | None = None, keys: Iterable[Secret] = ()
    ) -> None:
        self._decompressor = decompressor
        self._frames = PassthroughStream()
        self._copy: list[bytes] | None = [] if content_type == "application/json" else None
        self._size: int | None = 0 if content_type in ("application/json", "text/event-stream") else None
        keys = list(keys)
        self._redactor = _ErrorRedactor(keys) if keys else None
        self.address = ""
        self.failure: ProxyError | None = None
        self.events = 0
        self.has_started = self.has_ended = False

    @property
    def usage(self) -> Usage:
        return self._frames.usage

    @property
    def stop_reason(self) -> str | None:
        return self._frames.stop_reason

    @property
    def error_type(self) -> str | None:
        return self._frames.error_type

    @property
    def response_model(self) -> str | None:
        return self._frames.response_model

    @property
    def reports_cache(self) -> bool:
        """The upstream has reported tokens that were read from a cache or written to one."""
        return self._frames.reports_cache

    @property
    def has_finish(self) -> bool:
        return self._frames.has_finish

    @property
    def has_last_event(self) -> bool:
        return self._frames.has_last_event

    @property
    def is_large(self) -> bool:
        return self._frames.is_large or (self._copy is not None and (self._size or 0) > LARGE_BYTES)

    def feed(self, data: bytes) -> bytes:
        if self._size is not None:
            try:
                self._watch(data)
            except (BadCompression, ProxyError):
                self._stop_watching()
        return data if self._redactor is None else self._redactor.feed(data)

    def close(self) -> bytes:
        self.has_ended = True
        if self._copy:
            self._frames.tap.watch_body(b"".join(self._copy))
            self._copy = None
        return b"" if self._redactor is None else self._redactor.close()

    def fail(self, exc: ProxyError) -> bytes:
        self.has_ended = True
        return b""

    def _watch(self, data: bytes) -> None:
        if self._decompressor is None:
            self._watch_plain(data)
            return
        self._decompressor.feed(data)
        while plain := self._decompressor.take():
            self._watch_plain(plain)

    def _watch_plain(self, data: bytes) -> None:
        if self._copy is None:
            self._frames.feed(data)
            return
        assert self._size is not None, "it is watched"
        self._size += len(data)
        self._copy.append(data)
        if self._size > _MAX_WATCHED_BYTES:
            self._stop_watching()

    def _stop_watching(self) -> None:
        self._size = self._copy = None


class _ErrorRedactor:
    """Masks keys in a body until it turns out to be a message: the model's output is not changed."""

    __slots__ = ("_end", "_is_error", "_redactor")

    def __init__(self, keys: list[Secret]) -> None:
        self._redactor: BodyRedactor | None = BodyRedactor(keys)
        self._is_error = False
        self._end = b""

    def feed(self, chunk: bytes) -> bytes:
        if self._redactor is None:
            return chunk
        if not self._is_error:
            seen = self._end + chunk
            content, error = seen.find(b'"content"'), seen.find(b'"error"')
            self._is_error = error >= 0 and (content < 0 or error < content)
            if content >= 0 and not self._is_error:
                held, self._redactor = self._redactor.close(), None
                return held + chunk
            self._end = seen[-8:]
        return self._redactor.feed(chunk)

    def close(self) -> bytes:
        return b"" if self._redactor is None else self._redactor.close()
