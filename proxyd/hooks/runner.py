"""Runs the hooks of one call and validates what they return.

A hook works on copies, so that one that fails half-way has changed nothing. Its result is used if it has the right type
and a JSON form; anything else counts as a failure and leaves the payload unchanged. A result equal to the payload
counts as unchanged, which in direct mode keeps the original bytes.

::

    StreamHooks.run ─▶ HookRun ──all hooks were quick──▶ result
                          └──one is slow──▶ finish(), awaited by a task
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
    encode_events,
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

__all__ = ["CallHooks", "HookRun", "StreamHooks"]

T = TypeVar("T")
_Function = Callable[[Any, Any], Any]
#: Runs the hook files one after the other. Yields work that has to be waited for, and continues once that has finished
#: or timed out.
_Steps = Generator["Running[Any]", None, T]

#: Valid types of events that a hook returns: the type is a line of the stream, so it must not contain a line break.
_EVENT_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
#: Events without mutable parts, which hooks get without a copy: nearly all of a stream.
_IMMUTABLE = frozenset({TextDelta, ThinkingDelta, SignatureDelta, JsonDelta, BlockStop, MessageStop, Ping})


class HookRun(Generic[T]):
    """Hooks at work on one value: finished at once where all of them are quick, else after `finish`.

    Attributes:
        is_finished: all hooks have run.
    """

    __slots__ = ("_result", "_running", "_steps", "_timeout_s", "is_finished")

    def __init__(self, steps: _Steps[T], timeout_s: float) -> None:
        self._steps = steps
        self._timeout_s = timeout_s
        self._running: Running[Any] | None = None
        self._result: T | None = None
        self.is_finished = False
        self._advance()

    @property
    def result(self) -> T:
        """The value after all hooks. Requires `is_finished`."""
        assert self.is_finished, "hooks are still running"
        return self._result  # type: ignore[return-value]

    async def finish(self) -> T:
        """Wait for the remaining hooks, and return the result."""
        while (running := self._running) is not None:
            await running.wait(self._timeout_s)
            self._advance()
        return self.result

    def _advance(self) -> None:
        self._running = None
        try:
            self._running = next(self._steps)
        except StopIteration as done:
            self._result, self.is_finished = done.value, True


class CallHooks:
    """The hook files that apply to one call, in their order.

    Attributes:
        changes_requests, changes_bodies, changes_events: whether any of them defines a function for that.
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
        """Return the request body to send; `body` itself if nothing changed it."""
        return await self.start(self._on_body("request_hook", "request", body)).finish()

    async def on_response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the whole response for the client; `body` itself if nothing changed it."""
        return await self.start(self._on_body("response_hook", "response", body)).finish()

    def start(self, steps: _Steps[T]) -> HookRun[T]:
        """Start to run `steps`."""
        return HookRun(steps, self._wait_s)

    def on_events(self, events: Iterable[StreamEvent]) -> _Steps[list[tuple[StreamEvent, list[StreamEvent]]]]:
        """Run the hooks over `events`. Pairs each with its results: the same object if nothing changed it."""
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
        """Return the result of `work`; None if it timed out or raised an exception that is not an `Exception`."""
        running = file.worker.submit(work)
        if not running.wait_briefly(self._timeout_s):
            yield running
        if running.is_cancelled:
            why = f"it took longer than {self._timeout_s:g} s (hook_timeout_s)"
        elif running.error is None or isinstance(running.error, Exception):
            return running.result()
        else:  # such as a CancelledError of its own, which would end the call or the daemon
            why = type(running.error).__name__
        file.on_failure(work.function_name, self._context(file).request_id, why)
        return None


class StreamHooks:
    """The hooks over one stream, followed by the `StreamRepair` that keeps the stream legal."""

    __slots__ = ("_hooks", "_repair", "_unseen")

    def __init__(self, hooks: CallHooks) -> None:
        self._hooks = hooks
        self._repair = StreamRepair()
        self._unseen = b""

    @property
    def has_ended(self) -> bool:
        """Whether the client has been sent the last event."""
        return self._repair.has_ended

    def pass_through(self, frames: bytes) -> bytes:
        """Return `frames` for the client without waiting for hooks.

        For the start of a stream that is forced by silence, and the end of one that is cut. Hooks see them with the
        next events, and their changes are dropped.
        """
        self._unseen += frames
        parsed = split_frames(frames)
        return b"".join(self._repaired(raw, event, [event]) if event else raw for raw, event in parsed)

    def run(self, frames: bytes) -> HookRun[bytes]:
        """Run the hooks over whole frames. Unchanged ones keep their bytes. Must be finished before the next call."""
        return self._hooks.start(self._run(frames))

    def _run(self, frames: bytes) -> _Steps[bytes]:
        yield from self._show_unseen()
        parsed = split_frames(frames)
        changed = yield from self._hooks.on_events([event for _, event in parsed if event is not None])
        pairs = iter(changed)
        out: list[bytes] = []
        for raw, event in parsed:
            if event is None:
                out.append(raw)
                continue
            out.append(self._repaired(raw, *next(pairs)))
        return b"".join(out)

    def _repaired(self, raw: bytes, original: StreamEvent, results: list[StreamEvent]) -> bytes:
        """Return the frames for the client in place of `raw`, the frame of `original`."""
        repaired = self._repair.repair(original, results)
        is_unchanged = len(repaired) == 1 and repaired[0] is original
        return raw if is_unchanged else encode_events(repaired)

    def _show_unseen(self) -> _Steps[None]:
        if self._unseen:
            unseen, self._unseen = split_frames(self._unseen), b""
            yield from self._hooks.on_events([event for _, event in unseen if event is not None])


def _call(file: HookFile, function: _Function, payload: Any, context: HookContext) -> Any:
    """Call the hook. Raises `HookFailed`."""
    try:
        return function(payload, context)
    except HookFailed:
        raise
    except (Exception, SystemExit) as exc:
        raise _failure(file, exc) from exc


async def _await(file: HookFile, result: Awaitable[Any]) -> Any:
    """Await what the hook returned. Raises `HookFailed`."""

    async def as_coroutine() -> Any:
        return await result

    try:
        return await result if file.is_async else asyncio.run(as_coroutine())
    except (Exception, SystemExit) as exc:
        raise _failure(file, exc) from exc


def _failure(file: HookFile, exc: BaseException) -> HookFailed:
    # The text of the exception may contain a prompt, so it is not logged.
    line = place_of(exc, file.path)
    return HookFailed(f"{type(exc).__name__} in line {line}" if line else type(exc).__name__)


class _BodyWork:
    """Runs ``request_hook`` or ``response_hook`` over a whole body."""

    def __init__(self, file: HookFile, name: str, context: HookContext, body: dict[str, Any]) -> None:
        self.function_name = name
        self._file, self._context, self._body = file, context, body

    async def __call__(self) -> dict[str, Any]:
        changed = await _run_on_payload(self._file, self.function_name, self._context, self._body)
        return self._body if changed is None else changed


class _EventWork:
    """Runs ``response_hook``, then ``stream_event_hook``, over the events of one chunk of a stream.

    `function_name` is the function that is running, for the message when it times out.
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
        changed = await _run_on_payload(
            self._file, self.function_name, self._context, data_of(event), is_event=True
        )
        return event if changed is None else event_from_data(changed)

    async def _on_event(self, event: StreamEvent) -> list[StreamEvent]:
        file, name, context = self._file, self.function_name, self._context
        if file.is_off:
            return [event]
        before = b"" if type(event) in _IMMUTABLE else jsonio.dumps(data_of(event))
        started = time.perf_counter()
        try:
            given = event_from_data(jsonio.loads(before, is_ours=True)) if before else event
            result = _call(file, file.functions[name], given, context)
            if result is not event and inspect.isawaitable(result):
                result = await _await(file, result)
            if result is event:
                file.on_success(name, time.perf_counter() - started)
                return [event]
            results = result if isinstance(result, (list, tuple)) else [result]
            encoded = [jsonio.dumps(_data_of_result(each)) for each in results if each is not None]
        except (HookFailed, jsonio.JSONError) as exc:
            file.on_failure(name, context.request_id, str(exc))
            return [event]
        file.on_success(name, time.perf_counter() - started)
        if encoded == [before or jsonio.dumps(data_of(event))]:
            return [event]
        return [event_from_data(jsonio.loads(each, is_ours=True)) for each in encoded]


async def _run_on_payload(
    file: HookFile, name: str, context: HookContext, payload: dict[str, Any], *, is_event: bool = False
) -> dict[str, Any] | None:
    """Run the hook on a copy of `payload`; return its result, or None if nothing changed."""
    if file.is_off:
        return None
    before = jsonio.dumps(payload)
    started = time.perf_counter()
    try:
        result = _call(file, file.functions[name], jsonio.loads(before, is_ours=True), context)
        if inspect.isawaitable(result):
            result = await _await(file, result)
        if result is not None and not isinstance(result, dict):
            raise HookFailed(f"it returned a {type(result).__name__}, not a dict")
        after = before if result is None else jsonio.dumps(result)
        if is_event and result is not None and after != before:
            _check_type(result)
    except (HookFailed, jsonio.JSONError) as exc:
        file.on_failure(name, context.request_id, str(exc))
        return None
    file.on_success(name, time.perf_counter() - started)
    if result is None:
        file.warn_once(f"{name} returned nothing", "hook.returned_none", function=name, taken_as="unchanged")
    # Parsed again, since the hook may keep its result and change it later.
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
        raise HookFailed("it returned an event whose type is not a plain word")
    return data
