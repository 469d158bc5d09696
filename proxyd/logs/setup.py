"""Log lines: structlog to stderr, readable on a terminal, JSON elsewhere, journald's priorities under systemd.

Event names are lower-case dotted nouns and verbs; all else is key and value. The last processor but the renderer masks
anything that looks like a credential, by field name and by value, tracebacks included
(docs/spec/operations.md#e7, #f4).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from proxyd import jsonio
from proxyd.errors import ProxyError
from proxyd.logs.writer import LineQueue
from proxyd.redaction import is_credential_name, looks_clean, masked, redacted
from proxyd.secret import MASK
from proxyd.telemetry.call_record import CallRecord
from proxyd.terminal import printable

__all__ = ["configure", "facts_of", "get_logger", "is_journal", "log_calls", "redact"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: sd-daemon(3) priorities
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}

#: Values without anything in them.
_PLAIN = frozenset({str, int, float, bool, type(None)})


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
    processors: list[Any] = [_complete, _redact_event]
    if as_console:
        colors = stream.isatty() and "NO_COLOR" not in os.environ
        processors.append(_for_terminal)
        processors.append(structlog.dev.ConsoleRenderer(colors=colors))
    else:
        processors.append(_to_json)
    stamp = None if in_journal else _local_time if as_console else _utc
    if stamp is not None:
        processors.insert(0, functools.partial(_stamp, stamp))
    else:
        processors.append(_put_priority)
    queue = _queue_to(stream, processors)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=queue,
        cache_logger_on_first_use=False,
    )
    global _in_force
    _in_force = _InForce(
        processors, _LEVELS[level], stamp, processors[processors.index(_redact_event) + 1 :], queue
    )
    # What libraries have to say (asyncio, aiohttp) goes the same way.
    logging.basicConfig(handlers=[_Handler()], level=logging.WARNING, force=True)


#: What writes the lines. One for the process, as there is one stderr.
_queue: LineQueue | None = None


class _InForce(NamedTuple):
    """What `configure` has set up, for lines that are made without structlog's own objects: see `log_calls`.

    Attributes:
        processors: structlog's, which tests replace in place.
        stamp: Unix seconds as the lines have them; None where they have none.
        last: the processors behind the redaction.
    """

    processors: list[Any]
    level: int
    stamp: Callable[[float], str] | None
    last: list[Any]
    queue: LineQueue


_in_force: _InForce | None = None


# Processors of our own where structlog has general ones: there is a line for each call, and these make it in a third of
# the time.


def _stamp(stamp: Callable[[float], str], logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["timestamp"] = stamp(time.time())
    return event


def _utc(at: float) -> str:
    seconds, microseconds = divmod(int(at * 1_000_000), 1_000_000)
    return f"{_to_the_second(seconds)}.{microseconds:06d}Z"


@functools.lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _local_time(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat(timespec="microseconds")


_with_traceback = structlog.processors.ExceptionRenderer(lambda exc_info: _traceback(exc_info))


def _complete(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The level, and the traceback where there is one."""
    event["level"] = "error" if method == "exception" else method
    if "exc_info" in event:
        event = _with_traceback(logger, method, event)
    return event


def _for_terminal(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Control characters shown, at any depth; a traceback keeps its lines."""
    return {key: _printable(value, has_lines=key == "exception") for key, value in event.items()}


def _printable(value: Any, *, has_lines: bool = False) -> Any:
    if isinstance(value, str):
        return printable(value, has_lines=has_lines)
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value


#: JSON escapes the C0 controls by itself.
_C1_IN_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def _to_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    try:
        line = jsonio.dump_text(event)
    except jsonio.JSONError:  # something that only its repr can show
        line = json.dumps(event, ensure_ascii=False, default=repr)
    return line if line.isprintable() else line.translate(_C1_IN_JSON)


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

    What an exception says may be a part of a prompt, which is not for the log (docs/spec/operations.md#e7).
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
        return MASK if is_credential_name(name) else redacted(value)
    if isinstance(value, bytes) and is_credential_name(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def _redact_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if (
        _is_clean({value for value in event.values() if type(value) is str})
        and not _name_a_secret(tuple(event))
        and _PLAIN.issuperset(map(type, event.values()))
    ):
        return event
    return {key: redact(value, key) for key, value in event.items()}


def _is_clean(texts: Iterable[str]) -> bool:
    # One look at all texts together tells, nearly always, that there is nothing to mask in any of them.
    text = "\n".join(texts)
    return masked(text) is text and looks_clean(text)


@functools.lru_cache(maxsize=512)  # the fields of a kind of line are nearly always the same
def _name_a_secret(names: tuple[str, ...]) -> bool:
    return any(map(is_credential_name, names))


def _put_priority(logger: WrappedLogger, method: str, line: str) -> str:
    priority = _PRIORITIES.get(method, 6)
    return "\n".join(f"<{priority}>{part}" for part in line.split("\n"))


#: Facts that many calls do not have, texts all of them, by the names of a call's record.
_RARE = (
    "stop_reason",
    "cache_break",
    "fallback_from",
    "session_id",
    "upstream_request_id",
    "client_request_id",
    "error_type",
    "error",
)
_rare = attrgetter(*_RARE)
#: All texts of a line.
_texts = attrgetter("request_id", "model", "route", "mode", "kind", "outcome", *_RARE)

#: A text as JSON. Most are the same in many calls; long ones are not kept.
_quoted = functools.lru_cache(maxsize=512)(jsonio.dump_text)
_LONGEST_KEPT = 200


def facts_of(record: CallRecord) -> dict[str, Any]:
    """All there is to know of a call that is over, by the names of the log's fields."""
    facts: dict[str, Any] = jsonio.loads(f"{{{_facts_of(record)}}}")
    return facts


def _facts_of(record: CallRecord) -> str:
    """As the members of a JSON object: each call has a line, which is made in two thirds of the time without a dict."""
    usage, ttfb_s, cost_usd = record.usage, record.ttfb_s, record.cost_usd
    model = (_quoted if len(record.model) <= _LONGEST_KEPT else jsonio.dump_text)(record.model)
    facts = (
        f'"request_id":{jsonio.dump_text(record.request_id)},"model":{model},"route":{_quoted(record.route)},'
        f'"mode":{_quoted(record.mode)},"kind":{_quoted(record.kind)},"status":{record.status},'
        f'"outcome":{_quoted(record.outcome)},"stream":{"true" if record.is_stream else "false"},'
        f'"duration_ms":{round(record.duration_s * 1000)},"bytes_in":{record.bytes_in},"bytes_out":{record.bytes_out},'
        f'"events":{record.events},"input_tokens":{usage.input_tokens},"cache_read_tokens":{usage.cache_read_tokens},'
        f'"cache_write_tokens":{usage.cache_write_tokens},"output_tokens":{usage.output_tokens},'
        f'"retries":{record.retries}'
    )
    if ttfb_s is not None:
        facts += f',"ttfb_ms":{round(ttfb_s * 1000)}'
    if usage.reasoning_tokens is not None:
        facts += f',"reasoning_tokens":{usage.reasoning_tokens}'
    if usage.is_estimated:
        facts += ',"usage_is_estimated":true'
    if record.outcome == "client_gone":
        facts += ',"client_gone":true'
    if cost_usd is not None:
        facts += f',"cost_usd":{jsonio.dump_text(cost_usd)}'
    for name, text in zip(_RARE, _rare(record), strict=True):
        if text is not None:
            facts += f',"{name}":{_quoted(text) if len(text) <= _LONGEST_KEPT else jsonio.dump_text(text)}'
    if record.outcome != "ok" and record.address:
        facts += f',"address":{jsonio.dump_text(record.address)}'
    return facts


def log_calls(records: Sequence[CallRecord]) -> None:
    """The one canonical line of each call, with the time at which it ended."""
    in_force = _in_force
    processors = structlog.get_config()["processors"]
    if in_force is None or processors is not in_force.processors or _redact_event not in processors:
        # A test listens, which puts its own processors in place of ours.
        for record in records:
            getattr(get_logger("call"), _method_of(record))("call.finished", **facts_of(record))
        return
    told = [(record, level) for record in records if _LEVELS[level := _method_of(record)] >= in_force.level]
    texts: set[Any] = set()  # a fifth of them all, since most are the same in many calls
    for record, _ in told:
        texts.update(_texts(record))
    texts.discard(None)
    is_clean = _is_clean(texts)
    lines: list[str] = []
    for record, level in told:
        line = f'{{{_facts_of(record)},"event":"call.finished","part":"call","level":"{level}"'
        if in_force.stamp is not None:
            line += f',"timestamp":"{in_force.stamp(record.started_at + record.duration_s)}"'
        line += "}"
        if not is_clean or in_force.last != [_to_json]:
            event: Any = jsonio.loads(line)
            event = event if is_clean else {key: redact(value, key) for key, value in event.items()}
            for processor in in_force.last:
                event = processor(None, level, event)
            line = event
        elif not line.isprintable():
            line = line.translate(_C1_IN_JSON)
        lines.append(line)
    in_force.queue.take(lines)


def _method_of(record: CallRecord) -> str:
    return "info" if record.outcome in ("ok", "client_gone") else "warning"
