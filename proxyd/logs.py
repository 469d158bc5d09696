"""Log lines: structlog to stderr, readable on a terminal, JSON elsewhere, journald's priorities under systemd.

Event names are lower-case dotted nouns and verbs; all else is key and value. The last processor but the renderer masks
anything that looks like a credential, by field name and by value, tracebacks included (operations.md E7, F4).
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from proxyd.calls import CallRecord
from proxyd.errors import ProxyError
from proxyd.log_queue import LineQueue
from proxyd.secret import MASK, masked

__all__ = ["configure", "get_logger", "is_journal", "log_call", "redact"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: sd-daemon(3) priorities
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}

_SECRET_NAME = re.compile(
    r"authorization|api[-_]?key|token$|secret|password|cookie|credential", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|sess|key|ghp|gho|AIza)[-_][A-Za-z0-9_\-]{8,}|\bAIza[A-Za-z0-9_\-]{20,}"
    r"|\bBearer\s+[A-Za-z0-9._~+/\-]{6,}=*|\beyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-.]+",
)


def get_logger(name: str) -> Any:
    """A logger; `name`, a part of the program, is shown with each line."""
    return structlog.get_logger(part=name)


def is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether `stream` is a connection to journald: ``$JOURNAL_STREAM`` names its device and inode."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return device == str(stat.st_dev) and inode == str(stat.st_ino)


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``console``, ``json``, or ``auto``: console on a terminal.
    """
    stream = stream or sys.stderr
    in_journal = is_journal(os.environ, stream)
    as_console = log_format == "console" or (log_format == "auto" and stream.isatty())
    processors: list[Any] = [structlog.stdlib.add_log_level]
    if not in_journal:
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=not as_console))
    processors.append(structlog.processors.ExceptionRenderer(_traceback))
    processors.append(_redact_event)
    if as_console:
        processors.append(
            structlog.dev.ConsoleRenderer(colors=stream.isatty() and "NO_COLOR" not in os.environ)
        )
    else:
        processors.append(structlog.processors.JSONRenderer(ensure_ascii=False))
    if in_journal:
        processors.append(_put_priority)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_queue_to(stream, processors),
        cache_logger_on_first_use=False,
    )
    # What libraries have to say (asyncio, aiohttp) goes the same way.
    logging.basicConfig(handlers=[_Handler()], level=logging.WARNING, force=True)


#: What writes the lines. One for the process, as there is one stderr.
_queue: LineQueue | None = None


def _queue_to(stream: TextIO, processors: list[Any]) -> LineQueue:
    def say_dropped(lines: int) -> str:
        event: Any = {"event": "logs.dropped", "lines": lines, "part": "logs"}
        for processor in processors:
            event = processor(None, "warning", event)
        return str(event)

    global _queue
    if _queue is not None:
        _queue.close()
    _queue = LineQueue(stream, say_dropped)
    return _queue


class _Handler(logging.Handler):
    """Hands records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        method = record.levelname.lower() if record.levelname.lower() in _LEVELS else "error"
        fields: dict[str, Any] = {"message": record.getMessage()}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        getattr(get_logger(record.name), method)("library.said", **fields)


#: Exceptions whose words are of code, of the system, or our own. Those of any other may quote what it failed on.
_SPEAKS_OF_CODE = (TypeError, AttributeError, NameError, ImportError, AssertionError, OSError, ProxyError)


def _traceback(exc_info: tuple[Any, Any, Any]) -> str:
    """A traceback without data: places, types and causes, and the words of those exceptions that hold none.

    What an exception says may be a part of a prompt, which is not for the log (operations.md E7).
    """
    parts: list[str] = []
    exc: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        frames = "".join(traceback.format_tb(exc.__traceback__)).rstrip("\n")
        says = f": {exc}" if isinstance(exc, _SPEAKS_OF_CODE) else " (what it says may quote data: left out)"
        head = f"Traceback (most recent call last):\n{frames}\n" if frames else ""
        parts.append(f"{head}{type(exc).__qualname__}{says}")
        if exc.__cause__ is not None:
            exc = exc.__cause__
        else:
            exc = None if exc.__suppress_context__ else exc.__context__
    return "\n\nThat came of the one before:\n\n".join(reversed(parts))


def redact(value: Any, name: str = "") -> Any:
    """`value` with everything masked that looks like a credential, or stands under a credential's name."""
    if isinstance(value, str):
        return MASK if _names_a_secret(name) else _SECRET_VALUE.sub(MASK, masked(value))
    if isinstance(value, bytes) and _names_a_secret(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


@functools.lru_cache(maxsize=512)  # the names of log fields, the same in every line
def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _redact_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: redact(value, key) for key, value in event.items()}


def _put_priority(logger: WrappedLogger, method: str, line: str) -> str:
    priority = _PRIORITIES.get(method, 6)
    return "\n".join(f"<{priority}>{part}" for part in line.splitlines())


def log_call(record: CallRecord) -> None:
    """The one canonical line of a call."""
    usage = record.usage
    fields = {
        "request_id": record.request_id,
        "model": record.model,
        "route": record.route,
        "mode": record.mode,
        "kind": record.kind,
        "status": record.status,
        "outcome": record.outcome,
        "client_gone": record.outcome == "client_gone" or None,
        "stop_reason": record.stop_reason,
        "stream": record.is_stream,
        "ttfb_ms": None if record.ttfb_s is None else round(record.ttfb_s * 1000),
        "duration_ms": round(record.duration_s * 1000),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "events": record.events,
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_is_estimated": usage.is_estimated or None,
        "cost_usd": record.cost_usd,
        "cache_break": record.cache_break,
        "retries": record.retries,
        "fallback_from": record.fallback_from,
        "session_id": record.session_id,
        "upstream_request_id": record.upstream_request_id,
        "client_request_id": record.client_request_id,
        "error_type": record.error_type,
        "error": record.error,
    }
    shown = {name: value for name, value in fields.items() if value is not None}
    logger = get_logger("call")
    (logger.info if record.outcome in ("ok", "client_gone") else logger.warning)("call.finished", **shown)
