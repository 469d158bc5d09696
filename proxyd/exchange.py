"""One attempt at one upstream: the call goes out, the answer is read piece by piece.

Two kinds, alike from outside: `open` returns once the answer is known to be usable (its first events, or its whole
error), `read` gives what came next. Whatever fails before the client has been promised anything is raised, so that it
can be tried again or answered with its true status; afterwards it becomes the one error event that ends the stream.
"""

from __future__ import annotations

import asyncio
import zlib
from time import monotonic, perf_counter
from typing import Protocol
from urllib.parse import urlsplit

from proxyd import errors, jsonio
from proxyd.calls import CallRecord
from proxyd.codecs.anthropic import DirectStream
from proxyd.codecs.events import DeltaRun, StreamEvent, count_events, encode_events
from proxyd.codecs.openai_errors import ErrorContext, refusal
from proxyd.deadlines import Deadlines
from proxyd.errors import BadReply, ProxyError, Refused, TimedOut
from proxyd.hookrunner import CallHooks, StreamHooks
from proxyd.pipeline import TranslatedAnswer
from proxyd.providers.base import UpstreamRequest
from proxyd.providers.direct import response_headers
from proxyd.providers.openai import TranslatedCall
from proxyd.secret import masked
from proxyd.settings import Settings
from proxyd.uplink import Response
from proxyd.upstream import BREAKS, Upstreams, failure_of, host_of

__all__ = ["DirectExchange", "TranslatedExchange", "VerbatimRefusal"]

#: What of an answer that is none goes into the log (operations.md D).
_EXCERPT_BYTES = 200
#: How long usage may follow the finish reason before we end without it (protocol.md 4.6).
FINISH_GRACE_S = 2.0

#: A timer may come early by so much.
_TICK_S = 0.002

#: Where upstreams put their own request id.
_REQUEST_ID_HEADERS = ("request-id", "x-request-id", "x-generation-id")


class VerbatimRefusal(Refused):
    """An upstream's error of a direct route: it goes on byte for byte, since Claude Code's recovery reads it."""

    def __init__(
        self, status: int, headers: list[tuple[str, str]], body: bytes, reason: str | None = None
    ) -> None:
        by_name = {name.lower(): value for name, value in headers}
        # What it means, for the log and for the choice of a fallback; the client is sent the original.
        meaning = refusal(status, by_name, body, ErrorContext())
        kind = meaning.kind if isinstance(meaning, Refused) else errors.kind_of_status(status)
        super().__init__(f"the upstream answered {status}", status=status, kind=kind, headers=by_name)
        self.reason = reason
        self.raw_headers = headers
        self.body = body


class Sink(Protocol):
    """The client's side, where pieces can be written without waiting."""

    @property
    def keeps_up(self) -> bool:
        """It has taken all that was written: one more piece can be."""

    def push(self, data: bytes) -> None:
        """Write whole frames. To be called only while it `keeps_up`."""


class _GraceOver(Exception):
    """No usage came after the finish reason."""


class _Exchange:
    """What both kinds share: the response, its clocks, and the wait for what comes next.

    Nearly all of a stream is pieces that are rewritten and written on in one go, to a client that keeps up. Where a
    `Sink` is given that is done as they arrive, within the reading of the socket, while the reader sleeps. Everything
    else, such as an end, a fault, or a client that falls behind, wakes the reader and is dealt with by it.
    """

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: Upstreams,
        settings: Settings,
        deadlines: Deadlines,
        record: CallRecord,
    ) -> None:
        self._request: UpstreamRequest | None = request
        self._url, self._clocks = request.url, request.clocks
        self._upstreams = upstreams
        self._settings = settings
        self._deadlines = deadlines
        self._record = record
        self._trace = record.trace
        self._context = ErrorContext()
        self._response: Response | None = None
        self._progress: asyncio.Future[None] | None = None  # the reader sleeps
        self._sink: Sink | None = None  # and pieces go there meanwhile
        self._is_flowing = False
        self._heard_at = 0.0  # by the monotonic clock, while pieces flow
        self._fault: Exception | None = None  # one of them could not: for the reader

    async def _send(self, *, is_verbatim: bool) -> Response:
        request, self._request = self._request, None  # its body is not needed any more: a retry makes its own
        assert request is not None, "an exchange is opened once"
        if self._trace is not None:
            self._trace.on_sent(request, self._record.route, self._record.mode, self._context)
        response = await self._upstreams.send(request, self._deadlines, is_verbatim=is_verbatim)
        if self._trace is not None:
            self._trace.on_head(response.status, response.headers.items())
        self._response = response
        response.on_progress = self._on_progress
        headers = response.headers
        for name in _REQUEST_ID_HEADERS:
            if name in headers:
                self._record.upstream_request_id = headers[name][:128]
                break
        self._deadlines.set(self._too_long, self._clocks.total_s)
        if 300 <= response.status < 400:
            raise BadReply(
                f"{host_of(self._url)} answered with a redirect ({response.status}), which is not followed, since "
                "that would carry the key to another address: correct api_base"
            )
        return response

    async def _read_chunk(self, response: Response, sink: Sink | None = None) -> bytes:
        """What has arrived, b"" at the end, or where a piece became more than a write (see `_pass_on`).

        Raises as aiohttp does, or what a clock has set.
        """
        while not (chunk := self._take(response)) and not response.is_over:
            self._heard_at = monotonic()
            self._deadlines.set(
                self._silent, self._clocks.idle_s
            )  # and it runs on, set anew by the next read
            self._progress = asyncio.get_running_loop().create_future()
            self._sink = sink
            try:
                await self._progress
            finally:
                self._progress = self._sink = None
            if self._fault is not None:
                fault, self._fault = self._fault, None
                raise fault
            if self._has_kept:
                break
        return chunk

    def _take(self, response: Response) -> bytes:
        chunk = response.take()
        if chunk and self._trace is not None:
            self._trace.on_chunk(chunk)
        return chunk

    @property
    def _has_kept(self) -> bool:
        """A piece has become something that the reader must see."""
        return False

    def _on_progress(self) -> None:
        """Something has arrived, or the connection has ended."""
        if self._is_flowing:
            return  # taking a piece has made room, and brought the next one
        if self._sink is not None:
            self._is_flowing = True
            try:
                if self._flow(self._sink):
                    self._heard_at = monotonic()
                    return
            except Exception as exc:
                self._fault = exc
            finally:
                self._is_flowing = False
            self._sink = None
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _flow(self, sink: Sink) -> bool:
        """Pass on what has arrived; whether that was all there is to do."""
        response = self._response
        assert response is not None, "the reader sleeps on it"
        while response.has_more:
            if not sink.keeps_up or response.is_over or not self._pass_on(self._take(response), sink):
                return False
        return not response.is_over

    def _pass_on(self, chunk: bytes, sink: Sink) -> bool:
        """Rewrite one piece and write it on; False where it is kept for the reader instead."""
        raise AssertionError("only where a sink was given")

    async def _read_error(self, response: Response) -> bytes:
        """The body of an error, as far as it comes; beyond ``max_error_body_bytes`` it is cut off."""
        limit = self._settings.max_error_body_bytes
        body = bytearray()
        try:
            while len(body) <= limit and (chunk := await self._read_chunk(response)):
                body += chunk
        except BREAKS:
            pass  # what came is all there is
        return bytes(body[:limit])

    def close(self, *, is_complete: bool = False) -> None:
        """Let go of the connection: it serves again if the answer `is_complete`, else the call is cancelled."""
        self._deadlines.clear(self._silent)
        self._deadlines.clear(self._too_long)
        response, self._response = self._response, None
        if response is not None:
            if self._trace is not None and response.at_end:
                self._trace.on_chunk(b"")
            if is_complete:
                self._upstreams.let_go(response)
            else:
                response.close()

    def _interrupt(self, exc: Exception) -> None:
        """Have whoever reads get `exc`."""
        if self._response is not None:
            self._sink = None
            self._response.interrupt(exc)

    def _silent(self) -> None:
        """Due `idle_s` after the reader fell asleep: where pieces flowed meanwhile, this is put off."""
        seconds = self._clocks.idle_s
        if self._progress is None:
            return  # it is our client who is slow
        silence_s = monotonic() - self._heard_at
        if silence_s < seconds - _TICK_S:
            self._deadlines.set(self._silent, seconds - silence_s)
            return
        self._interrupt(TimedOut(f"the upstream was silent for {seconds:g} s"))

    def _too_long(self) -> None:
        seconds = self._clocks.total_s
        self._interrupt(TimedOut(f"the upstream's answer took longer than {seconds:g} s"))


class TranslatedExchange(_Exchange):
    """An attempt at a Chat Completions upstream. `answer` may be begun ahead of its first event.

    Attributes:
        refused: status and body with which the upstream refused the call, as it sent them.
        sent: the request's body, parsed; empty once the upstream has accepted it.
    """

    def __init__(
        self,
        call: TranslatedCall,
        upstreams: Upstreams,
        settings: Settings,
        deadlines: Deadlines,
        record: CallRecord,
        hooks: CallHooks | None = None,
        *,
        joins_deltas: bool = False,
    ) -> None:
        super().__init__(call.request, upstreams, settings, deadlines, record)
        self._context = call.context
        self.sent = call.sent
        self._is_accepted = False  # the upstream is at work, and what it does is paid for
        self._hooks = StreamHooks(hooks) if hooks is not None and hooks.changes_events else None
        self.answer: TranslatedAnswer = call.new_answer()
        self.answer.joins_deltas = joins_deltas and self._hooks is None
        self._kept: list[StreamEvent] | None = None
        self.refused: tuple[int, bytes] | None = None

    @property
    def has_ended(self) -> bool:
        """The client's stream is over, by the upstream's last event or by one that a hook has made."""
        return self.answer.has_ended or (self._hooks is not None and self._hooks.has_ended)

    def start(self) -> list[StreamEvent]:
        """Begin the message now, whatever comes."""
        events = self.answer.start()
        return events if self._hooks is None else self._hooks.pass_by(events)

    def fail(self, exc: ProxyError) -> list[StreamEvent]:
        """End the stream with `exc`."""
        events = self.answer.fail(exc)
        return events if self._hooks is None else self._hooks.pass_by(events)

    async def open(self) -> list[StreamEvent]:
        """Send the call and wait for the first events.

        Raises:
            ProxyError: there will be none.
        """
        response = await self._send(is_verbatim=False)
        if response.status != 200:
            body = await self._read_error(response)
            headers = {name.lower(): value for name, value in response.headers.items()}
            self.refused = (response.status, body)
            raise refusal(response.status, headers, body, self._context)
        self._is_accepted = True
        self.sent = {}
        self._record.output_so_far = lambda: self.answer.usage_so_far.output_tokens
        while not (events := await self.read()) and not self.has_ended:
            pass
        return events

    async def read(self, sink: Sink | None = None) -> list[StreamEvent]:
        """The events of the next piece; there may be none.

        Args:
            sink: takes pieces meanwhile that are nothing but more of what is being said.

        Raises:
            ProxyError: the answer failed and none of its events has been given out.
        """
        response = self._response
        assert response is not None, "read before open"
        answer = self.answer
        if self._hooks is not None or answer.has_finish:
            sink = None
        try:
            chunk = await self._read_chunk(response, sink)
        except _GraceOver:
            chunk = b""
        except BREAKS as exc:
            failure = failure_of(exc, self._url)
            if not answer.has_started:
                raise failure from exc
            if not answer.has_finish:
                return await self._give(answer.fail(failure))
            chunk = b""  # the message is whole; what broke off was its usage (protocol.md 4.6)
        if self._kept is not None:
            events, self._kept = self._kept, None
        elif not chunk:
            self._deadlines.clear(self._finish)
            events = answer.close()
        else:
            events = self._feed(chunk)
        if answer.has_finish and not answer.has_ended:
            self._deadlines.set(self._finish, FINISH_GRACE_S)
        return await self._give(events)

    @property
    def _has_kept(self) -> bool:
        return self._kept is not None

    def _pass_on(self, chunk: bytes, sink: Sink) -> bool:
        answer = self.answer
        events = self._feed(chunk)
        if answer.has_finish or answer.failure is not None:
            self._kept = events
            return False
        if len(events) == 1 and type(run := events[0]) is DeltaRun:  # nearly all of a stream
            self._record.events += run.count
            sink.push(run.frames)
        elif events:
            self._record.events += count_events(events)
            sink.push(encode_events(events))
        return True

    def _feed(self, chunk: bytes) -> list[StreamEvent]:
        begun = perf_counter()
        events = self.answer.feed(chunk)
        self._record.codec_s += perf_counter() - begun
        return events

    def close(self, *, is_complete: bool = False) -> None:
        self._deadlines.clear(self._finish)
        self._record.output_so_far = None
        if self._is_accepted:
            self._record.usage = self.answer.usage_so_far
        super().close(is_complete=is_complete)

    async def _give(self, events: list[StreamEvent]) -> list[StreamEvent]:
        record, answer = self._record, self.answer
        record.events += count_events(events)
        record.stop_reason = answer.stop_reason
        return events if self._hooks is None else await self._hooks.over(events)

    def _finish(self) -> None:
        self._interrupt(_GraceOver())


class DirectExchange(_Exchange):
    """An attempt at an Anthropic upstream.

    Attributes:
        is_stream: the answer is an event stream that we can watch; else its bytes are opaque.
        status, reason, headers: the answer's head as it goes to the client, after `open`.
        failure: what broke the stream after its first frames; it has ended then.
    """

    def __init__(
        self,
        request: UpstreamRequest,
        upstreams: Upstreams,
        settings: Settings,
        deadlines: Deadlines,
        record: CallRecord,
        hooks: CallHooks | None = None,
    ) -> None:
        super().__init__(request, upstreams, settings, deadlines, record)
        self._hooks = hooks
        self._unpacker: zlib._Decompress | None = None
        self._stream_hooks = StreamHooks(hooks) if hooks is not None and hooks.changes_events else None
        self.is_stream = False
        self.status = 0
        self.reason: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.failure: ProxyError | None = None
        self.has_ended = False
        self._kept: bytes | None = None  # frames with the last event, for the reader
        self._stream = DirectStream(settings.max_frame_bytes)
        # For the usage of an answer that is opaque: its packing, its body so far, or whether it comes in frames.
        self._inflate: zlib._Decompress | None = None
        self._body: bytearray | None = None
        self._has_frames = False
        self._has_given = False

    @property
    def is_cached(self) -> bool:
        """The upstream has said that it reads the prompt from a cache, or puts it there; or it has not said yet."""
        usage = self._stream.tee.usage
        return not self.is_stream or bool(usage.cache_read_tokens or usage.cache_write_tokens)

    @property
    def has_last_event(self) -> bool:
        """The message is whole, whether or not the upstream has ended its body."""
        return self._stream.tee.has_ended

    async def open(self) -> bytes:
        """Send the call and wait for the first frames, or the first bytes of another body.

        Raises:
            VerbatimRefusal: the upstream answered with an error.
            ProxyError: there was no answer.
        """
        response = await self._send(is_verbatim=True)
        headers = list(response.headers.items())
        self.status, self.reason, self.headers = response.status, response.reason, response_headers(headers)
        if response.status >= 400:
            body = await self._read_error(response)
            raise VerbatimRefusal(response.status, self.headers, masked(body), response.reason)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and self._hooks is not None and self._hooks.changes_events:
            encoding = self._unpack(encoding)
        self.is_stream = response.content_type == "text/event-stream" and encoding == "identity"
        self._record.output_so_far = lambda: self._stream.usage_so_far.output_tokens
        if not self.is_stream:
            self._watch_aside(response.content_type, encoding)
            is_json = response.content_type == "application/json" and encoding == "identity"
            if is_json and self._hooks is not None and self._hooks.changes_bodies and self._is_of_messages():
                return await self._hooked_body(self._hooks)
            if "content-length" in response.headers and self._unpacker is None:
                self.headers.append(("Content-Length", response.headers["content-length"]))
        while not (data := await self.read()) and not self.has_ended:
            pass
        if (
            not self.is_stream
            and self._record.is_stream
            and encoding == "identity"
            and self._is_of_messages()
        ):
            _check_is_message(response.content_type, data)
        return data

    def close(self, *, is_complete: bool = False) -> None:
        if self.status:
            self._note()
            self._record.usage = self._stream.usage_so_far
        self._record.output_so_far = None
        super().close(is_complete=is_complete)

    async def read(self, sink: Sink | None = None) -> bytes:
        """The next bytes for the client; there may be none while a frame is incomplete.

        Args:
            sink: takes the pieces of a stream meanwhile.

        Raises:
            ProxyError: the answer broke; for a stream, only while nothing of it has been given out.
        """
        response = self._response
        assert response is not None, "read before open"
        is_plain = self.is_stream and self._unpacker is None and self._stream_hooks is None
        try:
            chunk = await self._read_chunk(response, sink if is_plain else None)
            if chunk and self._unpacker is not None:
                chunk = self._unpacked(chunk)
                if not chunk:
                    return b""
            if not self.is_stream:
                return self._opaque(chunk, is_last=not chunk or response.at_end)
            if (kept := self._kept) is not None:
                data, self._kept = kept, None
            else:
                data = self._feed(chunk) if chunk else b""
            if (not chunk and kept is None) or (self.has_last_event and response.at_end):
                self.has_ended = True
                data += self._stream.close()
        except BREAKS as exc:
            failure = failure_of(exc, self._url)
            if not self._has_given or not self.is_stream:
                raise failure from exc
            self.has_ended = True
            if not self._stream.tee.has_ended:  # else it was cut behind its last event: nothing is missing
                self.failure = failure
            return b""
        self._has_given = self._has_given or bool(data)
        self._note()
        if self._stream_hooks is not None and data:
            data = await self._stream_hooks.over_frames(data)
            # The client has an error that a hook has made. After the upstream's own end, its last bytes still go on.
            if self._stream_hooks.has_ended and not self._stream.tee.has_ended:
                self.has_ended = True
        return data

    @property
    def _has_kept(self) -> bool:
        return self._kept is not None

    def _pass_on(self, chunk: bytes, sink: Sink) -> bool:
        frames = self._feed(chunk)
        if self.has_last_event:
            self._kept = frames
            return False
        if frames:
            sink.push(frames)
        return True

    def _feed(self, chunk: bytes) -> bytes:
        begun = perf_counter()
        frames = self._stream.feed(chunk)
        self._record.codec_s += perf_counter() - begun
        return frames

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
        except jsonio.JSONError:
            message = None
        if isinstance(message, dict):
            changed = await hooks.on_response(message)
            body = body if changed is message else jsonio.dumps(changed)
        self.headers.append(("Content-Length", str(len(body))))
        return body

    def _unpack(self, encoding: str) -> str:
        """Undo a packing that we have not asked for: a hook that keeps something back must see all of it."""
        if encoding not in ("gzip", "deflate"):
            raise BadReply(
                f"the upstream packed its answer ({encoding}) though asked not to, and hooks could not look at it; "
                "give the entry hooks: [] to have it passed on as it is"
            )
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header
        packed = ("content-encoding", "content-length")
        self.headers = [(name, value) for name, value in self.headers if name.lower() not in packed]
        return "identity"

    def _unpacked(self, chunk: bytes) -> bytes:
        assert self._unpacker is not None, "asked only where there is one"
        try:
            data = self._unpacker.decompress(chunk, self._settings.max_upstream_body_bytes)
        except zlib.error:
            raise BadReply("the upstream's packed answer is broken") from None
        if self._unpacker.unconsumed_tail:
            raise BadReply("one piece of the upstream's packed answer is larger than max_upstream_body_bytes")
        return data

    def _watch_aside(self, content_type: str, encoding: str) -> None:
        """Read usage from a copy of an answer that goes on as it is; br and zstd are beyond the standard library."""
        if encoding not in ("identity", "gzip", "deflate"):
            return
        if encoding != "identity":
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header
        if content_type == "application/json":
            self._body = bytearray()
        self._has_frames = content_type == "text/event-stream"

    def _opaque(self, chunk: bytes, *, is_last: bool) -> bytes:
        if chunk:
            self._has_given = True
            if self._body is not None or self._has_frames:
                try:
                    self._look_at(chunk)
                except (zlib.error, ProxyError):
                    self._body, self._has_frames = None, False
        if is_last:
            self.has_ended = True
            if self._body:
                self._stream.tee.watch_body(bytes(self._body))
            self._note()
        return chunk

    def _look_at(self, chunk: bytes) -> None:
        limit = self._settings.max_upstream_body_bytes
        if self._inflate is not None:
            chunk = self._inflate.decompress(chunk, limit)
        if self._has_frames:
            self._stream.feed(chunk)
        elif self._body is not None:
            self._body += chunk
            if len(self._body) > limit:
                raise BadReply(f"an answer larger than {limit} bytes")

    def _note(self) -> None:
        tee, record = self._stream.tee, self._record
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
