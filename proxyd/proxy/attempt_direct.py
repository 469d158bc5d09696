"""An attempt at an Anthropic upstream: its response is passed through and watched (see `proxyd.proxy.attempt`)."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.passthrough import (
    VAGUE_TYPES,
    PassthroughStream,
    begins_as_stream,
    frames_of,
    is_of_content,
    may_hold_error,
)
from proxyd.codecs.upstream_errors.errors import ErrorContext, refusal
from proxyd.codecs.wire.decompression import ENCODINGS, BadCompression, Decompressor, compressed, uncompressed
from proxyd.codecs.wire.json_patch import splice
from proxyd.config.settings import Settings
from proxyd.errors import BadReply, ProxyError, Refused, clear_tracebacks
from proxyd.hooks.runner import CallHooks, HookRun, StreamHooks
from proxyd.providers.base import UpstreamRequest
from proxyd.providers.direct_request import response_head
from proxyd.proxy.attempt import HOOKED_READ_BYTES, Attempt, Sink
from proxyd.proxy.retries import retry_after_in_seconds
from proxyd.proxy.wrong_address import address_error, page_error, protocol_error
from proxyd.redaction import BodyRedactor, masked, masked_bytes
from proxyd.secret import Secret, configured_secrets
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.client import BREAKS, UpstreamClient, failure_of
from proxyd.transport.pool import Response
from proxyd.transport.timers import Timers

__all__ = ["DirectAttempt", "VerbatimRefusal"]

#: How much of an invalid response is logged (docs/spec/operations.md#d).
_EXCERPT_BYTES = 200
#: Usage is not read from larger bodies. One of 128 000 tokens is some 600 KB; this takes 20 ms to parse.
_MAX_WATCHED_BYTES = 4 << 20


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
        self.body = body


class DirectAttempt(Attempt):
    """An attempt at an Anthropic upstream.

    Args:
        finish: returns members to add to a whole message (`proxyd.proxy.active_call.Finisher`).

    Attributes:
        is_stream: the response is an event stream that is parsed; else its bytes are opaque.
        status, headers: the response's head as it goes to the client, after `open`.
        failure: what broke the stream after its first frames; it has ended then.
    """

    _pending: bytes | None
    _hook_run: HookRun[bytes] | None

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: UpstreamClient,
        settings: Settings,
        timers: Timers,
        record: CallRecord,
        hooks: CallHooks | None = None,
        keys: Iterable[Secret] = (),
        finish: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        super().__init__(request, upstreams, settings, timers, record)
        self._hooks = hooks
        self._finish_message = finish
        self._decompressor: Decompressor | None = None
        self._stream_hooks = StreamHooks(hooks) if hooks is not None and hooks.changes_events else None
        if self._stream_hooks is not None:
            self._read_bytes = HOOKED_READ_BYTES
        self.is_stream = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.failure: ProxyError | None = None
        self.has_ended = False
        self._beginning = b""  # read ahead to see whether the response is a stream
        self._stream = PassthroughStream(settings.max_frame_bytes)
        # To read usage from an opaque response: its decompressor, its body so far, or whether it consists of frames.
        self._watch_decompressor: Decompressor | None = None
        self._body: bytearray | None = None
        self._has_frames = False
        self._has_output = False
        #: Keys that are masked in the response.
        self._keys = [*configured_secrets(), *(key for key in keys if key.is_searchable)]
        self._stream.watches_all = bool(self._keys)
        self._sent_headers = request.headers
        self._body_redactor: _BodyRedactor | None = None

    @property
    def reports_cache(self) -> bool:
        """The upstream has reported tokens that were read from a cache or written to one."""
        return self._stream.tap.reports_cache

    @property
    def has_last_event(self) -> bool:
        """The message is complete, whether or not the upstream has ended its body."""
        return self._stream.tap.has_ended

    async def open(self) -> bytes:
        """Send the call and wait for the first frames, or the first bytes of another body.

        Raises:
            VerbatimRefusal: the upstream's response is an error.
            ProxyError: there was no usable response.
        """
        response = await self._send(is_verbatim=True)
        headers = list(response.headers.items())
        self.status = response.status
        self.headers = self._without_keys(response_head(response.status, headers))
        if response.status >= 400:
            body = self._error_without_keys(await self._read_error(response))
            if self._is_of_messages():
                wrong = address_error(response.status, body, self._url, is_direct=True)
                if wrong is not None:
                    raise wrong
            raise VerbatimRefusal(response.status, self._with_retry_after(self.headers), body, self._address)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and self._hooks is not None and self._hooks.changes_events:
            encoding = self._decompress(encoding)
        elif encoding in ENCODINGS and (self._sent_configured_key or self._finish_message is not None):
            encoding = self._decompress(encoding)  # to mask keys in it, if it is an error
        wants_stream = self._record.is_stream and encoding == "identity" and self._is_of_messages()
        self.is_stream = response.content_type == "text/event-stream" and encoding == "identity"
        if wants_stream and response.content_type in VAGUE_TYPES:
            self.is_stream = await self._begins_as_stream(response)
        self._record.output_so_far = lambda: self._stream.usage_so_far.output_tokens
        if self._record.is_stream and self._is_of_messages():
            self._expect_stream(response, is_stream=self.is_stream)
        if not self.is_stream:
            self._watch_opaque(response.content_type, encoding)
            if encoding == "identity" and self._keys:
                self._body_redactor = _BodyRedactor(self._keys)
            is_json = response.content_type == "application/json" and encoding == "identity"
            hooks = self._hooks if self._hooks is not None and self._hooks.changes_bodies else None
            if is_json and (hooks or self._finish_message) and self._is_of_messages():
                return await self._changed_body(hooks)
            if "content-length" in response.headers and self._decompressor is None:
                self.headers.append(("Content-Length", response.headers["content-length"]))
        while not (data := await self.read()) and not self.has_ended:
            pass
        if self._is_of_messages() and (encoding == "identity" or self._decompressor is not None):
            wrong = protocol_error(None, data, self._url, is_direct=True)
            if wrong is not None:
                wrong.detail = data[:_EXCERPT_BYTES].decode("utf-8", "replace")
                raise wrong
        if wants_stream and not self.is_stream:
            self._check_is_message(response.content_type, data)
        return data

    def _check_is_message(self, content_type: str, beginning: bytes) -> None:
        """Check a response with status 200 that is no stream, although one was requested.

        Raises:
            BadReply: it is a login page or an error; its beginning is for the log alone.
        """
        excerpt = beginning[:_EXCERPT_BYTES].decode("utf-8", "replace")
        if content_type == "text/html":
            raise page_error(self._url, excerpt, is_direct=True)
        if content_type == "application/json" and _is_error(beginning):
            exc = BadReply(f"{self._address} answered with an error, with status 200")
            exc.detail = excerpt
            raise exc

    @staticmethod
    def _with_retry_after(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return `headers` with a ``retry-after`` that is a date in seconds."""
        seconds = retry_after_in_seconds({name.lower(): value for name, value in headers})
        return [(name, seconds.get(name.lower(), value)) for name, value in headers]

    def close(self, *, is_complete: bool = False) -> None:
        if self.status:
            self._record.settle = functools.partial(_settle, self._record, self._stream)
        self._record.output_so_far = None
        super().close(is_complete=is_complete)

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return the next bytes for the client; there may be none while a frame is incomplete.

        Args:
            sink: takes the chunks of a stream meanwhile.

        Raises:
            ProxyError: the response broke; for a stream, only before its first frames.
        """
        data = await self._read_frames(sink)
        hooks = self._stream_hooks
        hook_run, self._hook_run = self._hook_run, None
        if hooks is None or not self.is_stream or (hook_run is None and not data):
            return data
        data = await (hook_run or hooks.run(data)).finish()
        # A hook has ended the stream with an error. After the upstream's own end, its last bytes are still forwarded.
        if hooks.has_ended and not self._stream.tap.has_ended:
            self.has_ended = True
        return data

    async def _read_frames(self, sink: Sink | None) -> bytes:
        """Return what `read` passes to the hooks; nothing where the hooks have it already."""
        response = self._response
        assert response is not None, "read before open"
        is_plain = self.is_stream and self._decompressor is None
        try:
            if self._beginning:
                chunk, self._beginning = self._beginning, b""
            elif self._decompressor is None:
                chunk = await self._read_chunk(response, sink if is_plain else None)
            else:
                chunk = await self._read_decompressed(response, self._decompressor)
            at_end = response.at_end and (self._decompressor is None or not self._decompressor.has_more)
            if not self.is_stream:
                return await self._opaque(chunk, is_last=not chunk or at_end)
            if self._hook_run is not None:
                return b""
            kept, self._pending = self._pending, None
            data = kept if kept is not None else self._feed(chunk) if chunk else b""
            if (not chunk and kept is None) or (self.has_last_event and at_end):
                self.has_ended = True
                data += self._redacted_frames(self._stream.close())
        except BREAKS as exc:
            failure = failure_of(exc, self._url)
            errors.name_address(failure, self._address)
            if not self._has_output or not self.is_stream:
                raise failure from exc
            clear_tracebacks(exc)
            self.has_ended = True
            if not self._stream.tap.has_ended:  # else only bytes after its last event are missing
                self.failure = failure
            return b""
        self._has_output = self._has_output or bool(data)
        return data

    def _forward(self, chunk: bytes, sink: Sink) -> bool:
        frames = self._feed(chunk)
        if self.has_last_event:
            self._pending = frames
            return False
        hooks = self._stream_hooks
        made = self._hooked(hooks.run(frames), hooks) if hooks is not None and frames else frames
        if made:
            self._write(made, sink)
        return made is not None

    def _rewriter(self) -> Callable[[bytes], bytes] | None:
        return None if self.has_last_event or self._stream_hooks is not None else self._stream.pass_through

    def _feed(self, chunk: bytes) -> bytes:
        begun = perf_counter()
        frames = self._redacted_frames(self._stream.feed(chunk))
        self._record.codec_s += perf_counter() - begun
        return frames

    def _redacted_frames(self, frames: bytes) -> bytes:
        """Mask keys in whole frames, except in those that carry the model's output."""
        if not self._keys or not may_hold_error(frames):
            return frames
        return b"".join(
            frame if is_of_content(frame) else masked_bytes(frame, self._keys) for frame in frames_of(frames)
        )

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

    async def _begins_as_stream(self, response: Response) -> bool:
        """Return whether a response of a vague content type is an event stream, by its first bytes.

        They stay in `_beginning`, from where `read` takes them.

        Raises:
            ProxyError: the response broke in them.
        """
        while (found := begins_as_stream(self._beginning)) is None:
            try:
                if self._decompressor is None:
                    data = await self._read_chunk(response)
                else:
                    data = await self._read_decompressed(response, self._decompressor)
            except BREAKS as exc:
                raise failure_of(exc, self._url) from exc
            if not data:
                return False
            self._beginning += data
        return found

    def _is_of_messages(self) -> bool:
        """Whether the request is for a message, and not for a token count."""
        return urlsplit(self._url).path.endswith("/messages")

    async def _changed_body(self, hooks: CallHooks | None) -> bytes:
        """Read the whole body, which is no stream, and return it as hooks and the finisher changed it."""
        whole, limit = bytearray(), self._settings.max_upstream_body_bytes
        while not self.has_ended:
            whole += await self.read()
            if len(whole) > limit:
                raise BadReply(f"the upstream's response is larger than {limit >> 20} MiB")
        body = bytes(whole)
        try:
            message = jsonio.loads(body)
        except jsonio.TooManyValues as exc:  # no response may bypass a hook
            raise BadReply(f"the upstream's response has {exc}, too many to be shown to hooks") from None
        except jsonio.JSONError:
            message = None
        if isinstance(message, dict):
            changed = message if hooks is None else await hooks.on_response(message)
            body = body if changed is message else jsonio.dumps(changed)
            added = {} if self._finish_message is None else await self._finish_message(changed)
            body = splice(body, added) if added else body
        self.headers.append(("Content-Length", str(len(body))))
        return body

    def _decompress(self, encoding: str) -> str:
        """Begin to decompress a response although we asked for none compressed, since hooks must see all of it."""
        if encoding not in ENCODINGS:
            raise BadReply(
                f"the upstream compressed its response ({encoding}) though asked not to, and hooks could not look at "
                "it; give the entry hooks: [] to have it passed on as it is"
            )
        self._decompressor = Decompressor()
        self._remove_encoding()
        return "identity"

    async def _read_decompressed(self, response: Response, decompressor: Decompressor) -> bytes:
        """Return the next decompressed bytes, b"" at the end of the response."""
        if decompressor.has_more:
            await asyncio.sleep(0)  # it may be long: let other tasks run
        try:
            while not (data := decompressor.take()):
                chunk = await self._read_chunk(response)
                if not chunk:
                    return b""
                decompressor.feed(chunk)
        except BadCompression as exc:
            raise BadReply(f"the upstream's compressed response {exc}") from None
        return data

    def _watch_opaque(self, content_type: str, encoding: str) -> None:
        """Prepare to read usage from a copy of an opaque response. The standard library has no br and zstd."""
        if encoding in ENCODINGS:
            self._watch_decompressor = Decompressor()
        elif encoding != "identity":
            return
        if content_type == "application/json":
            self._body = bytearray()
        self._has_frames = content_type == "text/event-stream"

    async def _opaque(self, chunk: bytes, *, is_last: bool) -> bytes:
        if chunk:
            self._has_output = True
            if self._body is not None or self._has_frames:
                try:
                    await self._watch_chunk(chunk)
                except (BadCompression, ProxyError):
                    self._body, self._has_frames = None, False
        if is_last:
            self.has_ended = True
            if self._body:
                self._stream.tap.watch_body(bytes(self._body))
        if self._body_redactor is not None:
            chunk = self._body_redactor.feed(chunk) + (self._body_redactor.close() if is_last else b"")
        return chunk

    async def _watch_chunk(self, chunk: bytes) -> None:
        if self._watch_decompressor is None:
            self._watch_plain(chunk)
            return
        self._watch_decompressor.feed(chunk)
        while data := self._watch_decompressor.take():
            self._watch_plain(data)
            if self._watch_decompressor.has_more:
                await asyncio.sleep(0)  # let other tasks run

    def _watch_plain(self, data: bytes) -> None:
        if self._has_frames:
            self._stream.feed(data)
        elif self._body is not None:
            self._body += data
            if len(self._body) > _MAX_WATCHED_BYTES:
                raise BadReply("the response is too large to read its usage")


class _BodyRedactor:
    """Masks keys in a body that is no stream, until it turns out to be a message: the model's output is not changed."""

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


def _settle(record: CallRecord, stream: PassthroughStream) -> None:
    """Put usage and stop reason of the response into `record`."""
    tap = stream.tap
    record.usage = stream.usage_so_far
    record.stop_reason = tap.stop_reason
    if tap.error_type is not None:
        record.error_type = tap.error_type


def _is_error(body: bytes) -> bool:
    try:
        value = jsonio.loads(body)
    except jsonio.JSONError:
        return False  # it is incomplete, so it is no short error
    return isinstance(value, dict) and value.get("error") is not None and "content" not in value
