"""The way of a response's bytes from its upstream to the client: one pump for every mode.

::

    transport ─▶ UpstreamReader ─▶ Decoder ─▶ hooks ─▶ HeldEnd ─▶ client
                                  (bytes to frames)    (with a finisher)

While the client keeps up, all of it happens within the read callback of the upstream's transport. What has to be waited
for is waited for by the task that runs the pump, and the state says what that is::

                     ┌──▶ PAUSED   the client has not taken the last write ──┐
    WAITING_HEAD ─▶ STREAMING ◀──────────────────────────────────────────────┤
                     ├──▶ LARGE    a thread decodes a large frame ───────────┤
                     ├──▶ HOOKED   a hook is at work on the last frames ─────┘
                     └──▶ ENDING, FAILED   the last frames are known, and are written by the caller
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Protocol

from proxyd.codecs.anthropic.held_end import HeldEnd
from proxyd.codecs.decoder import Decoder
from proxyd.errors import clear_tracebacks
from proxyd.hooks.runner import HookRun, StreamHooks
from proxyd.proxy.upstream_reader import UpstreamReader
from proxyd.proxy.wrong_address import EXCERPT_BYTES
from proxyd.telemetry.call_record import CallRecord
from proxyd.transport.client import BREAKS, failure_of
from proxyd.transport.timers import Timers

__all__ = ["HOOKED_READ_BYTES", "Sink", "State", "StreamPump"]

#: Reads of a stream with hooks are smaller: each event of a read waits for its turn in the hook's thread.
HOOKED_READ_BYTES = 16 * 1024
#: How long usage may come after the finish reason before we end without it (docs/spec/chat-to-messages.md#end).
FINISH_GRACE_S = 2.0


class _UsageMissing(Exception):
    """No usage came after the finish reason."""


class Sink(Protocol):
    """Where a pump writes to."""

    @property
    def is_writable(self) -> bool:
        """All that was written was taken, so that another write need not wait."""

    def write(self, data: bytes) -> None:
        """Write whole frames. Does not wait."""

    async def drained(self) -> None:
        """Return when enough of what was written was taken."""

    def stop_pings(self) -> None:
        """Send no pings any more."""


class State(enum.Enum):
    WAITING_HEAD = enum.auto()  # nothing was forwarded: the head for the client depends on the first frames
    STREAMING = enum.auto()  # waits for the upstream
    PAUSED = enum.auto()  # waits for the client; the upstream is read no further
    LARGE = enum.auto()  # what is to be decoded next would block the event loop
    HOOKED = enum.auto()  # waits for hooks
    ENDING = enum.auto()  # the last frames are in `last`; with a `HeldEnd`, those before the end
    FAILED = enum.auto()  # as ENDING, and they hold the error event of `Decoder.failure`


class StreamPump:
    """Forwards one response.

    Args:
        url: of the upstream, for errors.
        hooks: change the frames; None for none.
        held: holds back the end of the stream; None to let it pass.

    Attributes:
        state: see the module's text.
        first_frames: after `until_first_frames`.
        last: the client's last frames, once they are known.
        beginning: the first bytes of the response.
    """

    def __init__(
        self,
        reader: UpstreamReader,
        decoder: Decoder,
        timers: Timers,
        record: CallRecord,
        url: str,
        *,
        hooks: StreamHooks | None = None,
        held: HeldEnd | None = None,
    ) -> None:
        self._reader = reader
        self.decoder = decoder
        self._timers = timers
        self._record = record
        self._url = url
        self._hooks = hooks
        self._held = held
        self._sink: Sink | None = None
        self._hook_run: HookRun[bytes] | None = None
        self.state = State.WAITING_HEAD
        self.first_frames = self.last = self.beginning = b""
        if hooks is not None:
            reader.read_bytes = HOOKED_READ_BYTES

    @property
    def has_sent_last_event(self) -> bool:
        """The client has the last event; only the end of the body is missing."""
        is_amid = self.state in (State.STREAMING, State.PAUSED)
        return is_amid and self._held is None and self.decoder.has_last_event

    async def until_first_frames(self, beginning: bytes = b"") -> None:
        """Read the response up to its first frames, or to its end.

        Args:
            beginning: bytes of the response that were read already.

        Raises:
            ProxyError: the response failed before them.
        """
        frames = self._decoded(self.decoder.feed(beginning), monotonic()) if beginning else b""
        while True:
            if frames and self._hooks is not None:
                frames = await self._hooks.run(frames).finish()
            if frames or self._has_ended:
                self.first_frames = frames
                return
            frames = await self._decode_large() if self.decoder.is_large else self._decode()
            if not frames:
                await self._reader.wait()

    async def run(self, sink: Sink) -> None:
        """Forward the response until its last frames are known.

        Raises:
            ClientGone: the client does not read any more.
            ProxyError: the response broke and has no form of an error within it.
        """
        self._sink = sink
        await self._run()

    async def go_on(self, end: bytes) -> None:
        """Forward what follows the end that was held back, beginning with the end itself."""
        self._held, self.first_frames = None, end
        await self._run()

    async def _run(self) -> None:
        sink = self._sink
        assert sink is not None, "it runs"
        self.state = State.STREAMING
        frames, self.first_frames = self.first_frames, b""
        self._write(frames)
        del frames  # not held while a client does not read (docs/spec/operations.md#c6)
        while True:
            if self.state is State.STREAMING:
                await self._reader.wait(self._advance)
                if self.state is State.STREAMING:
                    self._advance()
            elif self.state is State.PAUSED:
                await sink.drained()
                self.state = State.STREAMING
            elif self.state is State.LARGE:
                self.state = State.STREAMING
                self._forward(await self._decode_large())
            elif self.state is State.HOOKED:
                assert self._hook_run is not None, "it is in this state"
                hook_run, self._hook_run = self._hook_run, None
                frames = await hook_run.finish()
                self.state = State.STREAMING
                self._write(frames)
                del frames
            else:
                return

    def close(self) -> None:
        self._timers.clear(self._end_without_usage)

    # -- steps that wait for nothing

    def _advance(self) -> bool:
        """Forward one read; return whether the next one is to be waited for."""
        if self.decoder.is_large:
            self.state = State.LARGE
        else:
            self._forward(self._decode())
        return self.state is State.STREAMING and self._reader.is_awaited

    def _forward(self, frames: bytes) -> None:
        """Forward decoded frames, through the hooks."""
        if frames and self._hooks is not None:
            hook_run = self._hooks.run(frames)
            if not hook_run.is_finished:
                self._hook_run, self.state = hook_run, State.HOOKED
                return
            frames = hook_run.result
        self._write(frames)

    def _decode(self) -> bytes:
        """Decode one read."""
        step, begun = self._next_step(), monotonic()
        return b"" if step is None else self._decoded(step(), begun)

    async def _decode_large(self) -> bytes:
        """As `_decode`, in a thread."""
        step, begun = self._next_step(), monotonic()
        return b"" if step is None else self._decoded(await asyncio.to_thread(step), begun)

    def _next_step(self) -> Callable[[], bytes] | None:
        """Take one read, and return what decodes it; None if there is nothing to decode."""
        reader, decoder = self._reader, self.decoder
        try:
            chunk = reader.take()
        except _UsageMissing:
            return decoder.close
        except BREAKS as exc:
            failure = failure_of(exc, self._url)
            if not decoder.has_started:
                raise failure from exc
            clear_tracebacks(exc)
            # With its finish reason the message is complete (docs/spec/chat-to-messages.md#end).
            return decoder.close if decoder.has_finish else partial(decoder.fail, failure)
        if chunk:
            if not self.beginning:
                self.beginning = chunk[:EXCERPT_BYTES]
            return partial(decoder.feed, chunk)
        return decoder.close if reader.is_over else None

    def _decoded(self, frames: bytes, begun: float) -> bytes:
        """Return decoded frames, and those of the end where nothing more is to be waited for."""
        decoder = self.decoder
        if decoder.has_finish and not decoder.has_ended:
            if self._reader.at_end:
                frames += decoder.close()
            elif not decoder.has_last_event:
                self._timers.set(self._end_without_usage, FINISH_GRACE_S)
        record = self._record
        record.codec_s += monotonic() - begun
        record.events = decoder.events
        return frames

    def _write(self, frames: bytes) -> None:
        assert self._sink is not None, "it runs"
        if self._held is not None:
            frames = self._held.feed(frames)
        if self._has_ended or (self._held is not None and self._held.is_complete):
            self.last = frames
            self.state = State.ENDING if self.decoder.failure is None else State.FAILED
        elif frames:
            self._sink.write(frames)
            if self.decoder.has_last_event:
                self._sink.stop_pings()  # however long the end of the body takes
            if not self._sink.is_writable:
                self.state = State.PAUSED

    @property
    def _has_ended(self) -> bool:
        """Nothing follows for the client, by the upstream or by a hook."""
        decoder, hooks = self.decoder, self._hooks
        # After the upstream's last event, its last bytes are still forwarded.
        return decoder.has_ended or (hooks is not None and hooks.has_ended and not decoder.has_last_event)

    def _end_without_usage(self) -> None:
        self._reader.interrupt(_UsageMissing())
