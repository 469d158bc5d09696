"""Logging for the process: structlog to stderr, readable on a terminal, JSON elsewhere, priorities for journald.

Event names are lower-case dotted nouns and verbs; everything else is key and value (docs/spec/operations.md#e7, #f4).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from proxyd import jsonio
from proxyd.logs.console import ConsoleRenderer, clock_time, columns_of, render_logfmt
from proxyd.logs.redact import redact_event, safe_traceback
from proxyd.logs.writer import LineQueue
from proxyd.terminal import printable

__all__ = ["call_after_writes", "configure", "get_logger", "is_journal", "set_worker"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: sd-daemon(3) priorities
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}


def get_logger(name: str) -> Any:
    """Create a logger; `name`, a part of the program, is shown in each line."""
    return structlog.get_logger(part=name)


def is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether `stream` is a connection to journald: ``$JOURNAL_STREAM`` names its device and inode."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return device == str(stat.st_dev) and inode == str(stat.st_ino)


_worker: int | None = None


def set_worker(number: int) -> None:
    """Put the number of this worker into each line, from the next `configure` on."""
    global _worker
    _worker = number


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``console`` (short lines, or all fields at level debug), ``json``, ``logfmt``, or ``auto``: console
            on a terminal, else JSON.
    """
    stream = stream or sys.stderr
    in_journal = is_journal(os.environ, stream)
    as_console = log_format == "console" or (log_format == "auto" and stream.isatty())
    is_short = as_console and level != "debug"
    format_time = clock_time if is_short else _local_time if as_console else _utc
    processors: list[Any] = [
        functools.partial(_add_time, None if in_journal else format_time),
        _add_level_and_traceback,
        redact_event,
    ]
    if _worker is not None:
        processors.insert(0, functools.partial(_add_worker, _worker))
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    if is_short:
        is_unicode = (stream.encoding or "utf-8").lower().replace("-", "") == "utf8"
        columns = functools.partial(columns_of, stream)
        processors += [ConsoleRenderer(columns, colors=colors, is_unicode=is_unicode)]
    elif as_console:
        processors += [_escape_controls, structlog.dev.ConsoleRenderer(colors=colors)]
    elif log_format == "logfmt":
        processors.append(render_logfmt)
    else:
        processors.append(_to_json)
    if in_journal:
        processors.append(_add_priority)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_replace_queue(stream, processors),
        cache_logger_on_first_use=False,
    )
    # What libraries (asyncio, aiohttp) log goes the same way.
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)


#: The writer of all lines. One for the process, as there is one stderr.
_queue: LineQueue | None = None


def _replace_queue(stream: TextIO, processors: list[Any]) -> LineQueue:
    def render_dropped(lines: int) -> str:
        event: Any = {"event": "logs.dropped", "lines": lines, "part": "logs"}
        for processor in processors:
            event = processor(None, "warning", event)
        return str(event)

    global _queue
    if _queue is not None:
        _queue.close()
    _queue = LineQueue(stream, render_dropped)
    _queue.after_write = _after_write
    return _queue


_after_write: Callable[[], None] | None = None


def call_after_writes(callback: Callable[[], None]) -> None:
    """Have the writer thread call `callback` after each write, from now on; it must not raise."""
    global _after_write
    _after_write = callback
    if _queue is not None:
        _queue.after_write = callback


# structlog has general processors for these. Ours take a third of their time, and there is a line for each call.


def _add_time(
    format_time: Callable[[float], str] | None, logger: WrappedLogger, method: str, event: EventDict
) -> EventDict:
    """Add the timestamp: of `ended_at` (Unix seconds) where an event has it, else of this moment."""
    moment = event.pop("ended_at", None)
    if format_time is not None:
        event["timestamp"] = format_time(time.time() if moment is None else moment)
    return event


def _add_worker(number: int, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["worker"] = number
    return event


def _utc(at: float) -> str:
    seconds, microseconds = divmod(int(at * 1_000_000), 1_000_000)
    return f"{_utc_seconds(seconds)}.{microseconds:06d}Z"


@functools.lru_cache(maxsize=4)
def _utc_seconds(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _local_time(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat(timespec="microseconds")


_render_traceback = structlog.processors.ExceptionRenderer(safe_traceback)


def _add_level_and_traceback(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["level"] = "error" if method == "exception" else method
    return _render_traceback(logger, method, event) if "exc_info" in event else event


def _escape_controls(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape control characters at any depth; a traceback keeps its line ends."""
    return {key: _escaped(value, has_lines=key == "exception") for key, value in event.items()}


def _escaped(value: Any, *, has_lines: bool = False) -> Any:
    if isinstance(value, str):
        return printable(value, has_lines=has_lines)
    if isinstance(value, Mapping):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(item) for item in value]
    return value


#: JSON escapes the C0 controls itself.
_C1_IN_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def _to_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    try:
        line = jsonio.dump_text(event)
    except jsonio.JSONError:  # a value that only its repr can show
        line = json.dumps(event, ensure_ascii=False, default=repr)
    return line if line.isprintable() else line.translate(_C1_IN_JSON)


def _add_priority(logger: WrappedLogger, method: str, line: str) -> str:
    priority = _PRIORITIES.get(method, 6)
    return "\n".join(f"<{priority}>{part}" for part in line.split("\n"))


class _LibraryHandler(logging.Handler):
    """Forward records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        method = record.levelname.lower() if record.levelname.lower() in _LEVELS else "error"
        fields: dict[str, Any] = {"message": record.getMessage()}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        getattr(get_logger(record.name), method)("library.log", **fields)
