"""Executes a hook file and finds the functions that it defines."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxyd.logs.redact import redact

__all__ = ["FUNCTIONS", "DoesNotLoad", "Function", "functions_of", "place_of"]

FUNCTIONS = ("request_hook", "response_hook", "stream_event_hook")

Function = Callable[[Any, Any], Any]


class DoesNotLoad(Exception):
    """A hook file cannot be used; the text says why, and the line where there is one."""


def functions_of(path: Path, source: bytes) -> dict[str, tuple[Function, bool]]:
    """Execute the file and return its hooks by name: a function of payload and context, and whether it is async.

    Raises:
        DoesNotLoad: for anything that the file raises, KeyboardInterrupt and SystemExit included.
    """
    # Compiled from the source each time: the bytecode cache compares whole seconds and would miss a quick edit.
    name = f"claude_proxy_hooks.{path.stem}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses, among others, look up their module here
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - what hooks are
        found = {name: value for name in FUNCTIONS if (value := getattr(module, name, None)) is not None}
        if not found:
            raise DoesNotLoad(f"it defines none of {', '.join(FUNCTIONS)}")
        return {
            name: (_with_context(name, function), inspect.iscoroutinefunction(function))
            for name, function in found.items()
        }
    except BaseException as exc:
        if before is not None:
            sys.modules[name] = before
        else:
            sys.modules.pop(name, None)
        if isinstance(exc, DoesNotLoad):
            raise
        # Masked here, since check, status and /test-connection show it as it is, and a hook may read a key.
        line = place_of(exc, path)
        where = f" (line {line})" if line else ""
        text = _text_of(exc)
        if isinstance(exc, SyntaxError) and exc.lineno and exc.filename == str(path):
            text, where = exc.msg, f" (line {exc.lineno}, column {exc.offset or 1})"
        error = f"{type(exc).__name__}: {text}" if text else type(exc).__name__
        raise DoesNotLoad(redact(error + where)) from None


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException:  # raised by a __str__ of the hook file
        return "an exception whose text cannot be read"


def place_of(exc: BaseException, path: Path) -> int:
    """Return the last line of the file in the traceback of `exc`; 0 if there is none."""
    trace = exc.__traceback__
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _with_context(name: str, function: Any) -> Function:
    """Wrap `function` so that it takes payload and context."""
    if not callable(function):
        raise DoesNotLoad(f"{name} is not a function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise DoesNotLoad(f"{name} has no readable signature") from None
    for arguments in ((None, None), (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        if len(arguments) == 2:
            return function  # type: ignore[no-any-return]
        return lambda payload, context: function(payload)
    raise DoesNotLoad(f"{name} must take (payload) or (payload, ctx), it takes {signature}")
