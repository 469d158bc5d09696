"""The hooks of one call: what they are given, and what is made of what they return.

A hook never gets objects of ours that can be changed: it works on copies, so that one that fails half-way has changed
nothing. Its result is taken over when it is of the right kind and has a JSON form; anything else counts as a failure
and leaves the payload as it was. A payload that comes back equal counts as unchanged, which in direct mode keeps the
original bytes.

::

    StreamHooks.over ─▶ Passage ──all hooks were quick──▶ made
                           └──one takes its time──▶ end(), by a task that can wait for it
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from proxyd import jsonio
from proxyd.codecs.anthropic.events import (
    BlockStop,
    JsonDelta,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    data_of,
    encode_event,
    event_from_data,
)
from proxyd.codecs.anthropic.passthrough import split_frames
from proxyd.codecs.anthropic.stream_repair import StreamRepair
from proxyd.hooks.api import HookContext
from proxyd.hooks.file import place_of
from proxyd.hooks.worker import HookFailed

if TYPE_CHECKING:
    from proxyd.hooks.loader import HookFile
    from proxyd.hooks.worker import Running

__all__ = ["CallHooks", "Passage", "StreamHooks"]

T = TypeVar("T")
_Function = Callable[[Any, Any], Any]
#: What hooks do with something, one file after the other. It gives work that has to be waited for, and goes on when
#: that is over or has taken too long.
_Steps = Generator["Running[Any]", None, T]

#: What a hook may call an event: the name is a line of the stream, which a line break in it would end.
_EVENT_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
#: Events of which no part can be changed: a hook may have the very ones. Nearly all of a stream.
_IMMUTABLE = frozenset({TextDelta, ThinkingDelta, SignatureDelta, JsonDelta, BlockStop, MessageStop, Ping})


class Passage(Generic[T]):
    """Something on its way through hooks: there at once where all of them are quick, else after `end`.

    Attributes:
        is_over: it has been through all of them.
    """

    __slots__ = ("_made", "_running", "_steps", "_timeout_s", "is_over")

    def __init__(self, steps: _Steps[T], timeout_s: float) -> None:
        self._steps = steps
        self._timeout_s = timeout_s
        self._running: Running[Any] | None = None
        self._made: T | None = None
        self.is_over = False
        self._go_on()

    @property
    def made(self) -> T:
        """What has become of it, where it `is_over`."""
        assert self.is_over, "hooks are at work on it"
        return self._made  # type: ignore[return-value]

    async def end(self) -> T:
        """What has become of it. Waits where it has to."""
        while (running := self._running) is not None:
            await running.wait(self._timeout_s)
            self._go_on()
        return self.made

    def _go_on(self) -> None:
        self._running = None
        try:
            self._running = next(self._steps)
        except StopIteration as done:
            self._made, self.is_over = done.value, True


class CallHooks:
    """The hook files that look at one call, in their order.

    Attributes:
        changes_requests, changes_bodies, changes_events: whether any of them has a function for that.
    """

    __slots__ = (
        "_contexts",
        "_files",
        "_timeout_s",
        "_wait_s",
        "changes_bodies",
        "changes_events",
        "changes_requests",
    )

    def __init__(
        self,
        files: Sequence[HookFile],
        *,
        request_id: str,
        route: str,
        mode: Literal["direct", "translated"],
        options: Mapping[str, Any],
        timeout_s: float,
        wait_s: float,
    ) -> None:
        self._files = files
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._contexts: dict[tuple[str, str], HookContext] = {}
        directions: tuple[Literal["request", "response"], ...] = ("request", "response")
        for file in files:
            state = file.new_state()
            for direction in directions:
                self._contexts[file.name, direction] = HookContext(
                    request_id, route, mode, direction, options.get(file.name) or {}, state
                )
        names = {name for file in files for name in file.functions}
        self.changes_requests = "request_hook" in names
        self.changes_bodies = "response_hook" in names
        self.changes_events = bool(names & {"response_hook", "stream_event_hook"})

    async def on_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request body that will be sent; `body` itself where nothing changed it."""
        return await self.passage(self._on_body("request_hook", "request", body)).end()

    async def on_response(self, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer that the client gets; `body` itself where nothing changed it."""
        return await self.passage(self._on_body("response_hook", "response", body)).end()

    def passage(self, steps: _Steps[T]) -> Passage[T]:
        """`steps`, begun."""
        return Passage(steps, self._wait_s)

    def on_events(self, events: Iterable[StreamEvent]) -> _Steps[list[tuple[StreamEvent, list[StreamEvent]]]]:
        """Each event with what has become of it: the very event where nothing changed it."""
        current = [(event, [event]) for event in events]
        for file in self._files:
            functions = file.functions
            if (
                current
                and not file.is_off
                and ("response_hook" in functions or "stream_event_hook" in functions)
            ):
                changed = yield from self._run(file, _EventWork(file, self._context(file), current))
                current = current if changed is None else changed
        return current

    def _on_body(
        self, name: str, direction: Literal["request", "response"], body: dict[str, Any]
    ) -> _Steps[dict[str, Any]]:
        for file in self._files:
            if name in file.functions and not file.is_off:
                work = _BodyWork(file, name, self._contexts[file.name, direction], body)
                changed = yield from self._run(file, work)
                body = body if changed is None else changed
        return body

    def _context(self, file: HookFile) -> HookContext:
        return self._contexts[file.name, "response"]

    def _run(self, file: HookFile, work: _BodyWork | _EventWork) -> _Steps[Any]:
        """What `work` gives; None where it took too long, or where a hook has raised what ends more than itself."""
        running = file.worker.begin(work)
        if not running.is_over_at_once(self._timeout_s):
            yield running
        if running.is_cancelled:
            why = f"it took longer than {self._timeout_s:g} s (hook_timeout_s)"
        elif running.error is None or isinstance(running.error, Exception):
            return running.result()
        else:  # such as a CancelledError of its own, which would end the call or the daemon if it came here
            why = type(running.error).__name__
        file.on_failure(work.function_name, self._context(file).request_id, why)
        return None


class StreamHooks:
    """The hooks over one stream, and behind them the `StreamRepair` that keeps it legal."""

    __slots__ = ("_hooks", "_mender", "_unseen")

    def __init__(self, hooks: CallHooks) -> None:
        self._hooks = hooks
        self._mender = StreamRepair()
        self._unseen: list[StreamEvent] = []

    @property
    def has_ended(self) -> bool:
        """The client has the last event."""
        return self._mender.has_ended

    def pass_by(self, events: Iterable[StreamEvent]) -> list[StreamEvent]:
        """`events` as the client gets them when hooks cannot be waited for: a beginning that silence has called for,
        the end of a stream that is cut. Hooks are shown them with the next events, and cannot change them any more.
        """
        events = list(events)
        self._unseen += events
        return [out for event in events for out in self._mender.repair(event, [event])]

    def over(self, events: Iterable[StreamEvent]) -> Passage[list[StreamEvent]]:
        """What the client gets in place of `events`. The next ones are not to be given before this is over."""
        return self._hooks.passage(self._over(events))

    def over_frames(self, frames: bytes) -> Passage[bytes]:
        """What the client gets in place of whole frames of a direct stream: the same bytes where nothing changed. As
        `over`.
        """
        return self._hooks.passage(self._over_frames(frames))

    def _over(self, events: Iterable[StreamEvent]) -> _Steps[list[StreamEvent]]:
        yield from self._show_unseen()
        changed = yield from self._hooks.on_events(events)
        return [out for event, made in changed for out in self._mender.repair(event, made)]

    def _over_frames(self, frames: bytes) -> _Steps[bytes]:
        yield from self._show_unseen()
        pieces = split_frames(frames)
        changed = yield from self._hooks.on_events([event for _, event in pieces if event is not None])
        results = iter(changed)
        out: list[bytes] = []
        for raw, event in pieces:
            if event is None:
                out.append(raw)
                continue
            original, made = next(results)
            mended = self._mender.repair(original, made)
            is_unchanged = len(mended) == 1 and mended[0] is original
            out += [raw] if is_unchanged else map(encode_event, mended)
        return b"".join(out)

    def _show_unseen(self) -> _Steps[None]:
        if self._unseen:
            unseen, self._unseen = self._unseen, []
            yield from self._hooks.on_events(unseen)


def _called(file: HookFile, function: _Function, payload: Any, context: HookContext) -> Any:
    """What one call returns. Raises `HookFailed`."""
    try:
        return function(payload, context)
    except HookFailed:
        raise
    except (Exception, SystemExit) as exc:
        raise _failure(file, exc) from exc


async def _awaited(file: HookFile, result: Awaitable[Any]) -> Any:
    """What one call returns when it is awaited. Raises `HookFailed`."""

    async def whole() -> Any:
        return await result

    try:
        return await result if file.is_async else asyncio.run(whole())
    except (Exception, SystemExit) as exc:
        raise _failure(file, exc) from exc


def _failure(file: HookFile, exc: BaseException) -> HookFailed:
    # The text of the exception may quote a prompt, so it stays out of the log.
    line = place_of(exc, file.path)
    return HookFailed(f"{type(exc).__name__} in line {line}" if line else type(exc).__name__)


class _BodyWork:
    """``request_hook`` or ``response_hook`` over a whole body."""

    def __init__(self, file: HookFile, name: str, context: HookContext, body: dict[str, Any]) -> None:
        self.function_name = name
        self._file, self._context, self._body = file, context, body

    async def __call__(self) -> dict[str, Any]:
        changed = await _over_payload(self._file, self.function_name, self._context, self._body)
        return self._body if changed is None else changed


class _EventWork:
    """``response_hook``, then ``stream_event_hook``, over the events of one piece of a stream.

    `function_name` is the one that runs, should it never come back.
    """

    def __init__(
        self, file: HookFile, context: HookContext, events: list[tuple[StreamEvent, list[StreamEvent]]]
    ) -> None:
        self.function_name = ""
        self._file, self._context, self._events = file, context, events

    async def __call__(self) -> list[tuple[StreamEvent, list[StreamEvent]]]:
        on_data, on_event = (name in self._file.functions for name in ("response_hook", "stream_event_hook"))
        changed: list[tuple[StreamEvent, list[StreamEvent]]] = []
        for original, events in self._events:
            if on_data:
                self.function_name = "response_hook"
                events = [await self._on_data(event) for event in events]
            if on_event:
                self.function_name = "stream_event_hook"
                events = [each for event in events for each in await self._on_event(event)]
            changed.append((original, events))
        return changed

    async def _on_data(self, event: StreamEvent) -> StreamEvent:
        changed = await _over_payload(
            self._file, self.function_name, self._context, data_of(event), is_event=True
        )
        return event if changed is None else event_from_data(changed)

    async def _on_event(self, event: StreamEvent) -> list[StreamEvent]:
        file, name, context = self._file, self.function_name, self._context
        if file.is_off:
            return [event]
        before = b"" if type(event) in _IMMUTABLE else jsonio.dumps(data_of(event))
        begun = time.perf_counter()
        try:
            given = event_from_data(jsonio.loads(before, is_ours=True)) if before else event
            result = _called(file, file.functions[name], given, context)
            if result is not event and inspect.isawaitable(result):
                result = await _awaited(file, result)
            if result is event:
                file.on_success(name, time.perf_counter() - begun)
                return [event]
            results = result if isinstance(result, (list, tuple)) else [result]
            made = [jsonio.dumps(_data_of_result(each)) for each in results if each is not None]
        except (HookFailed, jsonio.JSONError) as exc:
            file.on_failure(name, context.request_id, str(exc))
            return [event]
        file.on_success(name, time.perf_counter() - begun)
        if made == [before or jsonio.dumps(data_of(event))]:
            return [event]
        return [event_from_data(jsonio.loads(each, is_ours=True)) for each in made]


async def _over_payload(
    file: HookFile, name: str, context: HookContext, payload: dict[str, Any], *, is_event: bool = False
) -> dict[str, Any] | None:
    """What the hook makes of `payload`; None where that is nothing new."""
    if file.is_off:
        return None
    before = jsonio.dumps(payload)
    begun = time.perf_counter()
    try:
        result = _called(file, file.functions[name], jsonio.loads(before, is_ours=True), context)
        if inspect.isawaitable(result):
            result = await _awaited(file, result)
        if result is not None and not isinstance(result, dict):
            raise HookFailed(f"it returned a {type(result).__name__}, not a dict")
        after = before if result is None else jsonio.dumps(result)
        if is_event and result is not None and after != before:
            _check_type(result)
    except (HookFailed, jsonio.JSONError) as exc:
        file.on_failure(name, context.request_id, str(exc))
        return None
    file.on_success(name, time.perf_counter() - begun)
    if result is None:
        file.warn_once(f"{name} returned nothing", "hook.returned_none", function=name, taken_as="unchanged")
    # What goes on has no parts that the hook may still hold and change.
    return None if after == before else jsonio.loads(after, is_ours=True)


def _data_of_result(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return _check_type(value)
    if not isinstance(value, get_args(StreamEvent)):
        raise HookFailed(f"it returned a {type(value).__name__}, not an event")
    return _check_type(data_of(value))


def _check_type(data: dict[str, Any]) -> dict[str, Any]:
    kind = data.get("type")
    if not isinstance(kind, str) or not _EVENT_TYPE.match(kind):
        raise HookFailed("it returned an event whose type is no plain word")
    return data
