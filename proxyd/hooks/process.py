"""Hooks in a process of their own, for those that may block in C code (docs/hooks.md).

A thread that stays in such code, as in a regular expression that tries too much, keeps the interpreter's lock, and the
whole daemon with it. A process can be ended from outside. There is one for all hook files of a configuration; it runs
one call at a time, and is begun anew when it has been ended or has died.

::

    thread of a hook file ──bytes─▶ process ──bytes─▶ the same thread
                            └──no answer within the time──▶ SIGKILL, a new one for the next call

What goes over are JSON texts, each way one message. ``ctx.state`` stays in the process, by the number of its call.
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

#: For the start of a process, with all that a hook file imports.
_START_S = 30.0
#: How often it is looked whether a call takes too long to be sent or received; what it computes is waited for exactly.
_LOOK_S = 0.5
#: After the time of a call has passed, when nobody has ended the process: ours has died.
_ORPHAN_S = 10.0
#: How long the process may take to end by itself.
_END_S = 0.5


class _State(dict[str, Any]):
    """Stands for the state of a call, which is in the process."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Ended(Exception):
    """The process did not give an answer, and has been ended; the text says why."""


class HookProcess:
    """The process, begun when it is needed.

    Args:
        options: the setting ``hook_options``.
        timeout_s: how long one call may take.

    Attributes:
        longest_s: after which a call has certainly ended: it may wait for another, and for a new process.
    """

    def __init__(self, options: Mapping[str, Any], timeout_s: float) -> None:
        self.longest_s = 2 * timeout_s + _START_S
        self._options = options
        self._timeout_s = timeout_s
        self._sources: dict[str, tuple[Path, bytes]] = {}  # of those that load
        self._lock = threading.Lock()  # of everything below; one call at a time
        self._process: SpawnProcess | None = None
        self._connection: Connection[bytes, bytes] | None = None
        self._deadline: float | None = None
        self._is_closed = False
        self._is_retired = False
        self._numbers = itertools.count()
        self._open: set[int] = set()  # states of calls that have not ended
        self._forgotten: deque[int] = deque()

    def load(self, path: Path, source: bytes) -> dict[str, Function]:
        """The functions of a file, which run there.

        Raises:
            DoesNotLoad: whatever it raises; or it does not end, or ends the process.
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
        """For one call and one file."""
        number = next(self._numbers)
        state = _State(number)
        self._open.add(number)
        weakref.finalize(state, self._forget, number).atexit = False
        return state

    def retire(self) -> None:
        """End as soon as the calls that are open have ended."""
        self._is_retired = True
        self._end_if_idle()

    def close(self) -> None:
        """End it now."""
        has_lock = self._lock.acquire(timeout=_END_S)
        self._is_closed = True
        try:
            self._end()
        finally:
            if has_lock:
                self._lock.release()

    def _forget(self, number: int) -> None:
        # Called wherever the last reference goes, so it takes no lock.
        self._open.discard(number)
        self._forgotten.append(number)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._is_retired and not self._open and not self._is_closed:
            threading.Thread(target=self.close, name="end of hooks", daemon=True).start()

    def _call(self, file: str, function: str, payload: Any, context: HookContext) -> Any:
        """What the function makes of `payload`, called there. In a thread that may wait.

        Raises:
            HookFailed: it raised, took too long, or gave what cannot be sent.
        """
        is_event = function == "stream_event_hook"
        text = jsonio.dumps(data_of(payload) if is_event else payload)
        assert isinstance(context.state, _State), "it was made by this process"
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
            self._begin()
            head["forget"] = [self._forgotten.popleft() for _ in range(len(self._forgotten))]
            return jsonio.loads(self._ask(head, text, self._timeout_s), is_ours=True)
        except _Ended as exc:
            raise HookFailed(f"it {exc}") from None
        finally:
            self._lock.release()

    # -- with the lock

    def _begin(self) -> None:
        """A process with all files loaded, if there is none."""
        if self._is_closed:
            raise _Ended("was called when its process had ended for good")
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
        names: list[str] = jsonio.loads(self._ask(head, source, max(self._timeout_s, _START_S)))
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

    def _ask(self, head: Mapping[str, Any], text: bytes, timeout_s: float) -> bytes:
        process, connection = self._process, self._connection
        assert process is not None, "it has been begun"
        assert connection is not None, "it has been begun"
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
        """End `process` when it takes no bytes, or gives only some, for longer than a call may take."""
        while self._process is process:
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline + _LOOK_S:
                with contextlib.suppress(ValueError):  # it has been ended meanwhile
                    process.kill()
                return
            time.sleep(_LOOK_S)

    def _end(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return
        if self._deadline is None:
            connection.close()  # which it notices, when it is idle
            process.join(_END_S)
        process.kill()
        process.join()
        connection.close()
        process.close()


# -- in the process


def _run(connection: Connection[bytes, bytes], options: Mapping[str, Any], timeout_s: float) -> None:
    """Answer until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, meant for the daemon
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
        asked = jsonio.loads(head, is_ours=True)
        is_load = asked["do"] == "load"
        # The system ends a process that nobody can end any more, even within C code.
        limit_s = max(timeout_s, _START_S) if is_load else timeout_s
        signal.setitimer(signal.ITIMER_REAL, limit_s + _ORPHAN_S)
        try:
            value = files.load(Path(asked["path"]), text) if is_load else files.call(asked, text)
            reply = b"=" + jsonio.dumps(value)
        except (HookFailed, DoesNotLoad, jsonio.JSONError) as exc:
            reply = b"!" + str(exc).encode("utf-8", "replace")
        except BaseException as exc:  # of a hook that interferes with what is here
            reply = b"!" + type(exc).__name__.encode("utf-8", "replace")
        signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(OSError):
            connection.send_bytes(reply)


class _Files:
    """What has been loaded there."""

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

    def call(self, asked: Mapping[str, Any], text: bytes) -> Any:
        for number in asked["forget"]:
            self._states.pop(number, None)
        file, name = asked["file"], asked["function"]
        context = HookContext(
            asked["request_id"],
            asked["route"],
            asked["mode"],
            asked["direction"],
            self._options.get(file) or {},
            self._states.setdefault(asked["state"], {}),
        )
        is_event = name == "stream_event_hook"
        payload = jsonio.loads(text, is_ours=True)
        try:
            result = self._functions[file, name](event_from_data(payload) if is_event else payload, context)
            if inspect.isawaitable(result):
                result = self._loop.run_until_complete(_awaited(result))
        except BaseException as exc:
            # The text of the exception may quote a prompt.
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
    """What an event hook returned, as data; whether it may be sent is decided by the daemon."""
    events = []
    for each in result if isinstance(result, (list, tuple)) else [result]:
        if isinstance(each, dict):
            events.append(each)
        elif isinstance(each, get_args(StreamEvent)):
            events.append(data_of(each))
        elif each is not None:
            raise HookFailed(f"it returned a {type(each).__name__}, not an event")
    return events
