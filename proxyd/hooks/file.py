"""A hook file as the functions that it defines, and where in it something went wrong."""

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
    """What is wrong with a hook file."""


def functions_of(path: Path, source: bytes) -> dict[str, tuple[Function, bool]]:
    """What the file defines by the names of hooks, as functions of payload and context; with whether each is
    ``async def``.

    Raises:
        DoesNotLoad: whatever it raises, KeyboardInterrupt and SystemExit as well.
    """
    # Compiled from its text each time: a byte code cache, which goes by whole seconds, would miss a quick edit.
    name = f"claude_proxy_hooks.{path.stem}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses, among others, look their module up here
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - what hooks are
        found = {name: value for name in FUNCTIONS if (value := getattr(module, name, None)) is not None}
        if not found:
            raise DoesNotLoad(f"it defines none of {', '.join(FUNCTIONS)}")
        return {
            name: (_taking_context(name, function), inspect.iscoroutinefunction(function))
            for name, function in found.items()
        }
    except BaseException as exc:
        if before is not None:
            sys.modules[name] = before
        else:
            sys.modules.pop(name, None)
        if isinstance(exc, DoesNotLoad):
            raise
        # Shown by check, status and /test-connection, which do not mask: a hook may well read a key.
        line = place_of(exc, path)
        where = f" (line {line})" if line else ""
        text = _text_of(exc)
        said = f"{type(exc).__name__}: {text}" if text else type(exc).__name__
        raise DoesNotLoad(redact(said + where)) from None


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException:  # its own, of the hook file
        return "an exception without words"


def place_of(exc: BaseException, path: Path) -> int:
    """The last line of the file that `exc` has passed; 0 for none."""
    trace = exc.__traceback__
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _taking_context(name: str, function: Any) -> Function:
    """`function` as one of two parameters."""
    if not callable(function):
        raise DoesNotLoad(f"{name} is no function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise DoesNotLoad(f"{name} has no signature that can be read") from None
    for arguments in ((None, None), (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        if len(arguments) == 2:
            return function  # type: ignore[no-any-return]
        return lambda payload, context: function(payload)
    raise DoesNotLoad(f"{name} must take (payload) or (payload, ctx), it takes {signature}")
