"""Finds and loads hook files, and counts calls and failures of each.

Hook files are ``hooks/*.py`` beside models.yaml, in the order of their names; a leading ``_`` disables one. A file that
does not load is reported in the log and by ``check``, and the others run without it. The same holds for a file that
other users may change or replace (`proxyd.config.trust`), since it runs with the daemon's rights
(docs/spec/operations.md#e11).

`HookSet` holds the hooks of one configuration. `HookSet.for_call` selects those of one call; it returns None where
there are none, which is the fast path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from proxyd.config.faults import hint
from proxyd.config.routes import ModelRoute
from proxyd.config.trust import Untrusted, read_trusted
from proxyd.errors import ConfigError
from proxyd.hooks.file import FUNCTIONS, DoesNotLoad, Function, functions_of
from proxyd.hooks.process import HookProcess
from proxyd.hooks.runner import CallHooks
from proxyd.hooks.worker import Worker
from proxyd.logs.setup import get_logger

__all__ = ["HookFile", "HookSet", "find_hook_files", "load_hooks"]

log = get_logger("hooks")

#: Consecutive failures of one function after which a hook is switched off until the next reload
#: (docs/spec/design.md#hook-failures).
MAX_FAILURES = 5
#: Slower calls are counted and logged once (docs/spec/design.md#hook-slow).
SLOW_S = 0.010
#: How long the end of the daemon waits for the threads of hooks.
_JOIN_S = 0.5


class HookFile:
    """One loaded file.

    Attributes:
        functions: the hooks that it defines, by name; each takes payload and context.
        is_async: at least one of them is ``async def``.
        new_state: returns ``ctx.state`` for a new call.
        calls, failures, slow_calls: since it was loaded.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        functions: Mapping[str, Function],
        *,
        is_async: bool,
        new_state: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.name = name
        self.path = path
        self.functions = functions
        self.is_async = is_async
        self.new_state = new_state
        self.worker = Worker(name, is_async=is_async)
        self.calls = 0
        self.failures = 0
        self.slow_calls = 0
        self.last_failure: str | None = None
        self.is_off = False
        self._consecutive = dict.fromkeys(functions, 0)
        self._warned: set[str] = set()

    def on_success(self, function: str, duration_s: float) -> None:
        """Count a call whose result is valid."""
        self.calls += 1
        self._consecutive[function] = 0
        if duration_s > SLOW_S:
            self.slow_calls += 1
            self.warn_once("slow", "hook.slow", duration_ms=round(duration_s * 1000, 1))

    def on_failure(self, function: str, request_id: str, why: str) -> None:
        """Count a failed call, whose result is not used; switch the hook off after `MAX_FAILURES`."""
        self.calls += 1
        self.failures += 1
        self._consecutive[function] += 1
        self.last_failure = f"{function}: {why}"
        log.warning("hook.failed", hook=self.name, function=function, request_id=request_id, why=why)
        if self._consecutive[function] >= MAX_FAILURES and not self.is_off:
            self.is_off = True
            log.error("hook.switched_off", hook=self.name, function=function, until="reload", why=why)

    def warn_once(self, topic: str, event: str, **fields: Any) -> None:
        """Log a warning that would otherwise repeat with every call."""
        if topic not in self._warned:
            self._warned.add(topic)
            log.warning(event, hook=self.name, **fields)

    def describe(self) -> dict[str, Any]:
        """Describe it for ``check``, ``/test-connection`` and metrics."""
        return {
            "name": self.name,
            "path": str(self.path),
            "functions": [name for name in FUNCTIONS if name in self.functions],
            "calls": self.calls,
            "failures": self.failures,
            "slow_calls": self.slow_calls,
            "is_off": self.is_off,
            "last_failure": self.last_failure,
        }


class HookSet:
    """The hooks of one configuration.

    Args:
        faults: files that did not load, name to reason.
        options: the setting ``hook_options``.
        timeout_s: limit for one call of a hook.
        process: runs the hooks, unless they run in threads.
    """

    def __init__(
        self,
        files: Iterable[HookFile] = (),
        *,
        faults: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        timeout_s: float = 5.0,
        process: HookProcess | None = None,
    ) -> None:
        self.files = tuple(files)
        self.faults = dict(faults or {})
        self._options = options or {}
        self._timeout_s = timeout_s
        self._process = process

    def for_call(
        self, route: ModelRoute, request_id: str, mode: Literal["direct", "translated"]
    ) -> CallHooks | None:
        """Return the hooks that apply to this call, or None."""
        if not self.files:
            return None
        chosen = [
            file
            for file in self.files
            if not file.is_off and (route.hooks is None or file.name in route.hooks)
        ]
        if not chosen:
            return None
        return CallHooks(
            chosen,
            request_id=request_id,
            route=route.model_id,
            mode=mode,
            options=self._options,
            timeout_s=self._timeout_s,
            wait_s=self._timeout_s if self._process is None else self._process.longest_s,
        )

    def check_names(self, routes: Iterable[ModelRoute]) -> None:
        """Check that the hooks named by entries exist.

        Raises:
            ConfigError: one line per unknown name.
        """
        known = [file.name for file in self.files] + list(self.faults)
        wrong = [
            f"model {route.model_id!r}: hooks: there is no hook {name!r}; "
            + (hint(name, known) if known else "the hooks folder is empty")
            for route in routes
            for name in route.hooks or ()
            if name not in known
        ]
        if wrong:
            raise ConfigError("\n".join(wrong))

    def report(self) -> None:
        """Log which files did not load, and which options belong to no hook."""
        for name, why in self.faults.items():
            log.error("hook.not_loaded", hook=name, why=why)
        for name in sorted(set(self._options) - {file.name for file in self.files} - set(self.faults)):
            log.warning("hook.options_unused", hook=name, why="hook_options names a hook that does not exist")

    def describe(self) -> list[dict[str, Any]]:
        """Describe the loaded files, then those that did not load."""
        broken = [{"name": name, "error": why} for name, why in self.faults.items()]
        return [file.describe() for file in self.files] + broken

    def failures(self) -> dict[str, int]:
        """Return the failures of each since it was loaded; 0 for one that did not load."""
        return {**dict.fromkeys(self.faults, 0), **{file.name: file.failures for file in self.files}}

    def retire(self) -> None:
        """End the threads and the process when the calls that use this set have finished."""
        for file in self.files:
            file.worker.retire()
        if self._process is not None:
            self._process.retire()

    def close(self) -> None:
        """End the threads and the process now."""
        if self._process is not None:
            self._process.close()
        deadline = time.monotonic() + _JOIN_S
        for file in self.files:
            file.worker.close(max(0.0, deadline - time.monotonic()))


def find_hook_files(folder: Path) -> list[Path]:
    """Return the hook files that `load_hooks` would load, in the order of their names; none if it cannot be read."""
    try:
        return _hook_files(folder)
    except OSError:
        return []


def load_hooks(
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    timeout_s: float = 5.0,
    isolation: Literal["thread", "process"] = "thread",
) -> HookSet:
    """Load the hook files of `folder`; a missing folder has none.

    Args:
        isolation: run the hooks in threads of this process, or in a separate process.
    """
    files: list[HookFile] = []
    faults: dict[str, str] = {}
    try:
        paths = _hook_files(folder)
    except (FileNotFoundError, NotADirectoryError):
        return HookSet(options=options, timeout_s=timeout_s)
    except OSError as exc:
        reason = (exc.strerror or "unknown reason").lower()
        return HookSet(faults={str(folder): f"the folder cannot be read ({reason})"})
    process = HookProcess(options or {}, timeout_s) if paths and isolation == "process" else None
    for path in paths:
        try:
            source = _source_of(path)
            files.append(
                _load_in_thread(path, source) if process is None else _load_in_process(process, path, source)
            )
        except DoesNotLoad as exc:
            faults[_printable(path.stem)] = str(exc)
    return HookSet(files, faults=faults, options=options, timeout_s=timeout_s, process=process)


def _hook_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix == ".py" and not path.name.startswith("_") and path.is_file()
    )


def _source_of(path: Path) -> bytes:
    if not path.stem.isprintable() or path.stem != _printable(path.stem):
        raise DoesNotLoad("its name is not plain UTF-8 text; rename it")
    try:
        return read_trusted(path)
    except Untrusted as exc:
        raise DoesNotLoad(f"not run, since others may change it: {exc}") from None
    except OSError as exc:
        raise DoesNotLoad(f"it cannot be read ({(exc.strerror or 'unknown reason').lower()})") from None


def _load_in_thread(path: Path, source: bytes) -> HookFile:
    found = functions_of(path, source)
    functions = {name: function for name, (function, _) in found.items()}
    return HookFile(path.stem, path, functions, is_async=any(is_async for _, is_async in found.values()))


def _load_in_process(process: HookProcess, path: Path, source: bytes) -> HookFile:
    """Load it in the process. Its functions here wait for the process, in the thread of the file."""
    functions = process.load(path, source)
    return HookFile(path.stem, path, functions, is_async=False, new_state=process.new_state)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
