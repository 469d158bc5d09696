"""An attempt at an Anthropic upstream: its pieces pass, and are watched (see `proxyd.proxy.attempt`)."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from time import perf_counter
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
from proxyd.codecs.openai.errors import ErrorContext, refusal
from proxyd.codecs.wire.decompression import ENCODINGS, BadCompression, Decompressor, compressed, uncompressed
from proxyd.config.settings import Settings
from proxyd.errors import BadReply, ProxyError, Refused, clear_tracebacks
from proxyd.hooks.runner import CallHooks, HookRun, StreamHooks
from proxyd.providers.base import UpstreamRequest
from proxyd.providers.direct_request import response_head
from proxyd.proxy.attempt import HOOKED_READ_BYTES, Attempt, Sink
from proxyd.redaction import BodyRedactor, masked, masked_bytes
from proxyd.secret import Secret, configured_secrets
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.client import BREAKS, UpstreamClient, failure_of
from proxyd.transport.pool import Response
from proxyd.transport.timers import Timers

__all__ = ["DirectAttempt", "VerbatimRefusal"]

#: What of an answer that is none goes into the log (docs/spec/operations.md#d).
_EXCERPT_BYTES = 200
#: Larger bodies are not looked at for their usage. One of 128 000 tokens is some 600 KB; this takes 20 ms to parse.
_MAX_WATCHED_BYTES = 4 << 20


class VerbatimRefusal(Refused):
    """An upstream's error of a direct route, byte for byte but for keys: Claude Code's recovery reads it.

    The reason phrase does not go on: nobody reads it, and it may hold anything.
    """

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        by_name = {name.lower(): value for name, value in headers}
        # What it means, for the log and for the choice of a fallback; the client is sent the original.
        meaning = refusal(status, by_name, body, ErrorContext())
        kind = meaning.kind if isinstance(meaning, Refused) else errors.kind_of_status(status)
        super().__init__(f"the upstream answered {status}", status=status, kind=kind, headers=by_name)
        self.raw_headers = headers
        self.body = body


class DirectAttempt(Attempt):
    """An attempt at an Anthropic upstream.

    Attributes:
        is_stream: the answer is an event stream that we can watch; else its bytes are opaque.
        status, headers: the answer's head as it goes to the client, after `open`.
        failure: what broke the stream after its first frames; it has ended then.
    """

    _kept: bytes | None
    _passage: HookRun[bytes] | None

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: UpstreamClient,
        settings: Settings,
        deadlines: Timers,
        record: CallRecord,
        hooks: CallHooks | None = None,
        keys: Iterable[Secret] = (),
    ) -> None:
        super().__init__(request, upstreams, settings, deadlines, record)
        self._hooks = hooks
        self._decompressor: Decompressor | None = None
        self._stream_hooks = StreamHooks(hooks) if hooks is not None and hooks.changes_events else None
        if self._stream_hooks is not None:
            self._read_bytes = HOOKED_READ_BYTES
        self.is_stream = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.failure: ProxyError | None = None
        self.has_ended = False
        self._beginning = b""  # was read to see what the answer is
        self._stream = PassthroughStream(settings.max_frame_bytes)
        # For the usage of an answer that is opaque: its packing, its body so far, or whether it comes in frames.
        self._inflate: Decompressor | None = None
        self._body: bytearray | None = None
        self._has_frames = False
        self._has_given = False
        #: Those that the response may not repeat to the client.
        self._keys = [*configured_secrets(), *(key for key in keys if key.is_searchable)]
        self._stream.watches_all = bool(self._keys)
        self._sent_headers = request.headers
        self._body_masks: _BodyMasks | None = None

    @property
    def reports_cache(self) -> bool:
        """The upstream has said so far that it reads the prompt from a cache, or puts it there."""
        return self._stream.tap.reports_cache

    @property
    def has_last_event(self) -> bool:
        """The message is whole, whether or not the upstream has ended its body."""
        return self._stream.tap.has_ended

    async def open(self) -> bytes:
        """Send the call and wait for the first frames, or the first bytes of another body.

        Raises:
            VerbatimRefusal: the upstream answered with an error.
            ProxyError: there was no answer.
        """
        response = await self._send(is_verbatim=True)
        headers = list(response.headers.items())
        self.status = response.status
        self.headers = self._without_keys(response_head(response.status, headers))
        if response.status >= 400:
            body = self._error_without_keys(await self._read_error(response))
            raise VerbatimRefusal(response.status, self.headers, body)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and self._hooks is not None and self._hooks.changes_events:
            encoding = self._decompress(encoding)
        elif encoding in ENCODINGS and self._sent_configured_key:
            encoding = self._decompress(
                encoding
            )  # it may be an error, which only then can be searched for keys
        wants_stream = self._record.is_stream and encoding == "identity" and self._is_of_messages()
        self.is_stream = response.content_type == "text/event-stream" and encoding == "identity"
        if wants_stream and response.content_type in VAGUE_TYPES:
            self.is_stream = await self._begins_as_stream(response)
        self._record.output_so_far = lambda: self._stream.usage_so_far.output_tokens
        if self._record.is_stream and self._is_of_messages():
            self._expect_stream(response, is_stream=self.is_stream)
        if not self.is_stream:
            self._watch_aside(response.content_type, encoding)
            if encoding == "identity" and self._keys:
                self._body_masks = _BodyMasks(self._keys)
            is_json = response.content_type == "application/json" and encoding == "identity"
            if is_json and self._hooks is not None and self._hooks.changes_bodies and self._is_of_messages():
                return await self._hooked_body(self._hooks)
            if "content-length" in response.headers and self._decompressor is None:
                self.headers.append(("Content-Length", response.headers["content-length"]))
        while not (data := await self.read()) and not self.has_ended:
            pass
        if wants_stream and not self.is_stream:
            _check_is_message(response.content_type, data)
        return data

    def close(self, *, is_complete: bool = False) -> None:
        if self.status:
            self._record.settle = functools.partial(_settle, self._record, self._stream)
        self._record.output_so_far = None
        super().close(is_complete=is_complete)

    async def read(self, sink: Sink | None = None) -> bytes:
        """The next bytes for the client; there may be none while a frame is incomplete.

        Args:
            sink: takes the pieces of a stream meanwhile.

        Raises:
            ProxyError: the answer broke; for a stream, only while nothing of it has been given out.
        """
        data = await self._read_on(sink)
        hooks = self._stream_hooks
        passage, self._passage = self._passage, None
        if hooks is None or not self.is_stream or (passage is None and not data):
            return data
        data = await (passage or hooks.run_frames(data)).finish()
        # The client has an error that a hook has made. After the upstream's own end, its last bytes still go on.
        if hooks.has_ended and not self._stream.tap.has_ended:
            self.has_ended = True
        return data

    async def _read_on(self, sink: Sink | None) -> bytes:
        """As `read`, ahead of the hooks. Nothing, where they have been given it already."""
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
            if self._passage is not None:
                return b""
            kept, self._kept = self._kept, None
            data = kept if kept is not None else self._feed(chunk) if chunk else b""
            if (not chunk and kept is None) or (self.has_last_event and at_end):
                self.has_ended = True
                data += self._masked_frames(self._stream.close())
        except BREAKS as exc:
            failure = failure_of(exc, self._url)
            if not self._has_given or not self.is_stream:
                raise failure from exc
            clear_tracebacks(exc)
            self.has_ended = True
            if not self._stream.tap.has_ended:  # else it was cut behind its last event: nothing is missing
                self.failure = failure
            return b""
        self._has_given = self._has_given or bool(data)
        return data

    def _pass_on(self, chunk: bytes, sink: Sink) -> bool:
        frames = self._feed(chunk)
        if self.has_last_event:
            self._kept = frames
            return False
        hooks = self._stream_hooks
        made = self._made(hooks.run_frames(frames), hooks) if hooks is not None and frames else frames
        if made:
            self._push(made, sink)
        return made is not None

    def _rewriter(self) -> Callable[[bytes], bytes] | None:
        return None if self.has_last_event or self._stream_hooks is not None else self._stream.pass_through

    def _feed(self, chunk: bytes) -> bytes:
        begun = perf_counter()
        frames = self._masked_frames(self._stream.feed(chunk))
        self._record.codec_s += perf_counter() - begun
        return frames

    def _masked_frames(self, frames: bytes) -> bytes:
        """Whole frames without keys, but for those that carry the model's words: these are not touched."""
        if not self._keys or not may_hold_error(frames):
            return frames
        return b"".join(
            frame if is_of_content(frame) else masked_bytes(frame, self._keys) for frame in frames_of(frames)
        )

    def _without_keys(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(name, masked(value, self._keys)) for name, value in headers]

    def _error_without_keys(self, body: bytes) -> bytes:
        """The body of an error without keys, compressed as it came. One that we cannot read is not passed on."""
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
        self._forget_encoding()
        text = f"the upstream answered {self.status} with a body that could not be read ({encoding[:20]!r})"
        return jsonio.dumps(
            {"type": "error", "error": {"type": errors.kind_of_status(self.status), "message": text}}
        )

    @property
    def _sent_configured_key(self) -> bool:
        """Whether the upstream was sent a key that is not the client's own, and so can repeat one."""
        values = self._sent_headers.values()
        return any(key.reveal() in value for key in self._keys if key.is_configured for value in values)

    def _forget_encoding(self) -> None:
        packed = ("content-encoding", "content-length")
        self.headers = [(name, value) for name, value in self.headers if name.lower() not in packed]

    async def _begins_as_stream(self, response: Response) -> bool:
        """Whether an answer that does not say so is an event stream, by its first bytes: `read` gives them again.

        Raises:
            ProxyError: it broke in them.
        """
        while (found := begins_as_stream(self._beginning)) is None:
            try:
                if self._decompressor is None:
                    piece = await self._read_chunk(response)
                else:
                    piece = await self._read_decompressed(response, self._decompressor)
            except BREAKS as exc:
                raise failure_of(exc, self._url) from exc
            if not piece:
                return False
            self._beginning += piece
        return found

    def _is_of_messages(self) -> bool:
        """Whether a message is what was asked for, and not a count of tokens."""
        return urlsplit(self._url).path.endswith("/messages")

    async def _hooked_body(self, hooks: CallHooks) -> bytes:
        """The whole body, as the hooks leave it. Nobody waits for parts of it: it is no stream."""
        whole, limit = bytearray(), self._settings.max_upstream_body_bytes
        while not self.has_ended:
            whole += await self.read()
            if len(whole) > limit:
                raise BadReply(f"the upstream's answer is larger than {limit >> 20} MiB")
        body = bytes(whole)
        try:
            message = jsonio.loads(body)
        except jsonio.TooManyValues as exc:  # no answer escapes a hook
            raise BadReply(f"the upstream's answer has {exc}, too many to be shown to hooks") from None
        except jsonio.JSONError:
            message = None
        if isinstance(message, dict):
            changed = await hooks.on_response(message)
            body = body if changed is message else jsonio.dumps(changed)
        self.headers.append(("Content-Length", str(len(body))))
        return body

    def _decompress(self, encoding: str) -> str:
        """Undo a packing that we have not asked for: a hook that keeps something back must see all of it."""
        if encoding not in ENCODINGS:
            raise BadReply(
                f"the upstream packed its answer ({encoding}) though asked not to, and hooks could not look at it; "
                "give the entry hooks: [] to have it passed on as it is"
            )
        self._decompressor = Decompressor()
        self._forget_encoding()
        return "identity"

    async def _read_decompressed(self, response: Response, decompressor: Decompressor) -> bytes:
        """The next piece of an answer that is unpacked, b"" at its end."""
        if decompressor.has_more:
            await asyncio.sleep(0)  # it may be long: the others have a turn between two pieces
        try:
            while not (piece := decompressor.take()):
                chunk = await self._read_chunk(response)
                if not chunk:
                    return b""
                decompressor.feed(chunk)
        except BadCompression as exc:
            raise BadReply(f"the upstream's packed answer {exc}") from None
        return piece

    def _watch_aside(self, content_type: str, encoding: str) -> None:
        """Read usage from a copy of an answer that goes on as it is; br and zstd are beyond the standard library."""
        if encoding in ENCODINGS:
            self._inflate = Decompressor()
        elif encoding != "identity":
            return
        if content_type == "application/json":
            self._body = bytearray()
        self._has_frames = content_type == "text/event-stream"

    async def _opaque(self, chunk: bytes, *, is_last: bool) -> bytes:
        if chunk:
            self._has_given = True
            if self._body is not None or self._has_frames:
                try:
                    await self._look_into(chunk)
                except (BadCompression, ProxyError):
                    self._body, self._has_frames = None, False
        if is_last:
            self.has_ended = True
            if self._body:
                self._stream.tap.watch_body(bytes(self._body))
        if self._body_masks is not None:
            chunk = self._body_masks.feed(chunk) + (self._body_masks.close() if is_last else b"")
        return chunk

    async def _look_into(self, chunk: bytes) -> None:
        if self._inflate is None:
            self._look_at(chunk)
            return
        self._inflate.feed(chunk)
        while piece := self._inflate.take():
            self._look_at(piece)
            if self._inflate.has_more:
                await asyncio.sleep(0)  # as above

    def _look_at(self, piece: bytes) -> None:
        if self._has_frames:
            self._stream.feed(piece)
        elif self._body is not None:
            self._body += piece
            if len(self._body) > _MAX_WATCHED_BYTES:
                raise BadReply("too large an answer to look for its usage")


class _BodyMasks:
    """Mask keys in a body that is no stream, until it turns out to be a message: the model's words are not touched."""

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
    """Put into `record` what the answer has said of usage and its end."""
    tee = stream.tap
    record.usage = stream.usage_so_far
    record.stop_reason = tee.stop_reason
    if tee.error_type is not None:
        record.error_type = tee.error_type


def _check_is_message(content_type: str, beginning: bytes) -> None:
    """Tell what comes with status 200 where a stream was asked for, and surely is no answer.

    Raises:
        BadReply: a login page, an error; the beginning is for the log alone.
    """
    if content_type == "text/html":
        what = "a page, not with an answer"
    elif content_type == "application/json" and _is_error(beginning):
        what = "an error, with status 200"
    else:
        return
    exc = BadReply(f"the upstream answered with {what}")
    exc.detail = beginning[:_EXCERPT_BYTES].decode("utf-8", "replace")
    raise exc


def _is_error(body: bytes) -> bool:
    try:
        value = jsonio.loads(body)
    except jsonio.JSONError:
        return False  # more of it is to come, so it is no short error
    return isinstance(value, dict) and value.get("error") is not None and "content" not in value
