"""Runs hooks in a separate process, for hooks that may block in C code (docs/hooks.md).

A thread that blocks in C code, such as a regular expression with catastrophic backtracking, keeps the interpreter's
lock and blocks the whole daemon. A process can be killed. There is one for all hook files of a configuration; it runs
one call at a time, and a new one is started when it was killed or has died.

::

    thread of a hook file ──request─▶ process ──reply─▶ the same thread
                            └──timeout──▶ SIGKILL, a new process for the next call

Request and reply are one message each, in JSON. ``ctx.state`` stays in the process, under the number of its call.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import multiprocessing
import resource
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, get_args

from proxyd import jsonio
from proxyd.codecs.anthropic.events import StreamEvent, data_of, event_from_data
from proxyd.hooks.api import HookContext
from proxyd.hooks.file import DoesNotLoad, Function, functions_of, place_of
from proxyd.hooks.worker import HookFailed

__all__ = ["HookProcess"]

#: Timeout for the start of a process, imports of the hook file included.
_START_S = 30.0
#: How often the watchdog checks for a request or reply that is stuck half-way; the wait for a reply is exact.
_WATCHDOG_S = 0.5
#: How long after the timeout of a call the process ends itself, in case the daemon has died.
_ORPHAN_S = 10.0
#: How long the process gets to end by itself.
_END_S = 0.5


class _State(dict[str, Any]):
    """Placeholder for the state of a call, which lives in the process."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Ended(Exception):
    """The process sent no reply and was ended; the text says why."""


class HookProcess:
    """Starts the process when it is needed and sends calls to it. Thread-safe.

    Args:
        options: the setting ``hook_options``.
        timeout_s: limit for one call.

    Attributes:
        longest_s: upper bound of a call that first waits for another one and for a new process.
    """

    def __init__(self, options: Mapping[str, Any], timeout_s: float) -> None:
        self.longest_s = 2 * timeout_s + _START_S
        self._options = options
        self._timeout_s = timeout_s
        self._sources: dict[str, tuple[Path, bytes]] = {}  # of the files that load
        self._lock = threading.Lock()  # guards everything below; one call at a time
        self._process: SpawnProcess | None = None
        self._connection: Connection[bytes, bytes] | None = None
        self._deadline: float | None = None
        self._is_closed = False
        self._is_retired = False
        self._numbers = itertools.count()
        self._open: set[int] = set()  # numbers of the states of open calls
        self._forgotten: deque[int] = deque()

    def load(self, path: Path, source: bytes) -> dict[str, Function]:
        """Load a file in the process; return functions that call it there.

        Raises:
            DoesNotLoad: the file raises, does not end, or ends the process.
        """
        with self._lock:
            try:
                names = self._load(path, source)
            except HookFailed as exc:
                raise DoesNotLoad(str(exc)) from None
            except _Ended as exc:
                raise DoesNotLoad(f"it {exc} while it was loaded") from None
            self._sources[path.stem] = path, source
        return {name: partial(self._call, path.stem, name) for name in names}

    def new_state(self) -> dict[str, Any]:
        """Return the placeholder for the state of one call and file."""
        number = next(self._numbers)
        state = _State(number)
        self._open.add(number)
        weakref.finalize(state, self._forget, number).atexit = False
        return state

    def retire(self) -> None:
        """End the process as soon as the open calls have finished."""
        self._is_retired = True
        self._end_if_idle()

    def close(self) -> None:
        """End the process now."""
        has_lock = self._lock.acquire(timeout=_END_S)
        self._is_closed = True
        try:
            self._end()
        finally:
            if has_lock:
                self._lock.release()

    def _forget(self, number: int) -> None:
        # Called in whichever thread drops the last reference, so it must not take the lock.
        self._open.discard(number)
        self._forgotten.append(number)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._is_retired and not self._open and not self._is_closed:
            threading.Thread(target=self.close, name="end of hooks", daemon=True).start()

    def _call(self, file: str, function: str, payload: Any, context: HookContext) -> Any:
        """Call the function in the process; blocks until its result is there.

        Raises:
            HookFailed: it raised, timed out, or returned what has no JSON form.
        """
        is_event = function == "stream_event_hook"
        text = jsonio.dumps(data_of(payload) if is_event else payload)
        assert isinstance(context.state, _State), "it was created by new_state"
        head = {
            "do": "call",
            "file": file,
            "function": function,
            "request_id": context.request_id,
            "route": context.route,
            "mode": context.mode,
            "direction": context.direction,
            "state": context.state.number,
        }
        if not self._lock.acquire(timeout=self._timeout_s):
            raise HookFailed(f"other hooks kept the process of hooks busy for {self._timeout_s:g} s")
        try:
            self._ensure_process()
            head["forget"] = [self._forgotten.popleft() for _ in range(len(self._forgotten))]
            return jsonio.loads(self._request(head, text, self._timeout_s), is_ours=True)
        except _Ended as exc:
            raise HookFailed(f"it {exc}") from None
        finally:
            self._lock.release()

    # -- with the lock

    def _ensure_process(self) -> None:
        """Start a process with all files loaded if there is none."""
        if self._is_closed:
            raise _Ended("was called after its process had ended for good")
        if self._process is not None and self._process.is_alive():
            return
        self._end()
        for path, source in list(self._sources.values()):
            try:
                self._load(path, source)
            except (HookFailed, _Ended) as exc:
                raise HookFailed(f"{path.stem} did not load again: {exc}") from None

    def _load(self, path: Path, source: bytes) -> list[str]:
        if self._process is None or not self._process.is_alive():
            self._spawn()
        head = {"do": "load", "path": str(path)}
        names: list[str] = jsonio.loads(self._request(head, source, max(self._timeout_s, _START_S)))
        return names

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_run, args=(theirs, self._options, self._timeout_s), name="hooks", daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._connection = process, ours
        threading.Thread(target=self._watch, args=(process,), name="watch of hooks", daemon=True).start()

    def _request(self, head: Mapping[str, Any], text: bytes, timeout_s: float) -> bytes:
        process, connection = self._process, self._connection
        assert process is not None, "the process has been started"
        assert connection is not None, "the process has been started"
        self._deadline = time.monotonic() + timeout_s
        try:
            connection.send_bytes(jsonio.dumps(head) + b"\n" + text)
            if not connection.poll(timeout_s):
                self._end()
                raise _Ended(f"took longer than {timeout_s:g} s; its process was ended")
            reply = connection.recv_bytes()
        except (EOFError, OSError):
            try:
                process.join(_END_S)
                code = process.exitcode
            except ValueError:
                raise _Ended("was called when the daemon ended") from None
            is_late = time.monotonic() >= self._deadline
            self._end()
            why = (
                f"took longer than {timeout_s:g} s; its process was ended"
                if is_late
                else f"ended its process ({code})"
            )
            raise _Ended(why) from None
        finally:
            self._deadline = None
        if reply[:1] != b"=":
            raise HookFailed(reply[1:].decode("utf-8", "replace"))
        return reply[1:]

    def _watch(self, process: SpawnProcess) -> None:
        """Kill `process` when it reads nothing, or sends half a reply, for longer than the timeout of a call."""
        while self._process is process:
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline + _WATCHDOG_S:
                with contextlib.suppress(ValueError):  # it was closed meanwhile
                    process.kill()
                return
            time.sleep(_WATCHDOG_S)

    def _end(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return
        if self._deadline is None:
            connection.close()  # an idle process ends by itself
            process.join(_END_S)
        process.kill()
        process.join()
        connection.close()
        process.close()


# -- in the process


def _run(connection: Connection[bytes, bytes], options: Mapping[str, Any], timeout_s: float) -> None:
    """Serve requests until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the daemon as well
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold prompts
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    files = _Files(options, loop)
    while True:
        try:
            head, _, text = connection.recv_bytes().partition(b"\n")
        except (EOFError, OSError):
            return
        request = jsonio.loads(head, is_ours=True)
        is_load = request["do"] == "load"
        # If the daemon has died, the alarm ends this process even in C code.
        limit_s = max(timeout_s, _START_S) if is_load else timeout_s
        signal.setitimer(signal.ITIMER_REAL, limit_s + _ORPHAN_S)
        try:
            value = files.load(Path(request["path"]), text) if is_load else files.call(request, text)
            reply = b"=" + jsonio.dumps(value)
        except (HookFailed, DoesNotLoad, jsonio.JSONError) as exc:
            reply = b"!" + str(exc).encode("utf-8", "replace")
        except BaseException as exc:  # of a hook that tampers with this process
            reply = b"!" + type(exc).__name__.encode("utf-8", "replace")
        signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(OSError):
            connection.send_bytes(reply)


class _Files:
    """The hook files loaded in the process."""

    def __init__(self, options: Mapping[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._options = options
        self._loop = loop
        self._functions: dict[tuple[str, str], Callable[[Any, Any], Any]] = {}
        self._paths: dict[str, Path] = {}
        self._states: dict[int, dict[str, Any]] = {}

    def load(self, path: Path, source: bytes) -> list[str]:
        found = functions_of(path, source)
        self._paths[path.stem] = path
        self._functions.update({(path.stem, name): function for name, (function, _) in found.items()})
        return list(found)

    def call(self, request: Mapping[str, Any], text: bytes) -> Any:
        for number in request["forget"]:
            self._states.pop(number, None)
        file, name = request["file"], request["function"]
        context = HookContext(
            request["request_id"],
            request["route"],
            request["mode"],
            request["direction"],
            self._options.get(file) or {},
            self._states.setdefault(request["state"], {}),
        )
        is_event = name == "stream_event_hook"
        payload = jsonio.loads(text, is_ours=True)
        try:
            result = self._functions[file, name](event_from_data(payload) if is_event else payload, context)
            if inspect.isawaitable(result):
                result = self._loop.run_until_complete(_awaited(result))
        except BaseException as exc:
            # The text of the exception may contain a prompt.
            line = place_of(exc, self._paths[file])
            where = f" in line {line}" if line else ""
            raise HookFailed(f"{type(exc).__name__}{where}") from None
        return _events_of(result) if is_event else _payload_of(result)


async def _awaited(result: Any) -> Any:
    return await result


def _payload_of(result: Any) -> dict[str, Any] | None:
    if result is not None and not isinstance(result, dict):
        raise HookFailed(f"it returned a {type(result).__name__}, not a dict")
    return result


def _events_of(result: Any) -> list[dict[str, Any]]:
    """Convert the result of an event hook to data; the daemon validates it."""
    events = []
    for each in result if isinstance(result, (list, tuple)) else [result]:
        if isinstance(each, dict):
            events.append(each)
        elif isinstance(each, get_args(StreamEvent)):
            events.append(data_of(each))
        elif each is not None:
            raise HookFailed(f"it returned a {type(each).__name__}, not an event")
    return events
