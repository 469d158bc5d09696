"""Log lines for people: on a terminal one short line for each call, result first; also logfmt.

::

    12:04:31 ✓ kimi  main  3.2 s  42.9k in (50% cached), 240 out  $0.0236
    12:04:40 ✓ kimi  main  9.0 s  43.1k in (99% cached), 80 out  $0.0021  after 2 retries
    12:05:02 ✗ kimi 429 rate limit reached for this organisation  api.moonshot.ai  2.1 s  req_b3Qm0u4Xn1

A line is never longer than the terminal is wide, and at most 100 columns. What is shortened is in the ledger, in the
records and in the other formats. Other events have all their fields, in several lines where one is too narrow. Colors
have meanings: green is success, red failure, yellow a warning or a retry, and dim what is rarely read.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO
from urllib.parse import urlsplit

from structlog import DropEvent
from structlog.typing import EventDict, WrappedLogger

from proxyd.terminal import printable

__all__ = ["MAX_COLUMNS", "ConsoleRenderer", "clock_time", "columns_of", "render_logfmt"]

MAX_COLUMNS = 100
_MIN_COLUMNS = 60
#: Events that are part of a call's line, as a trial of a circuit is, too.
_IN_CALL_LINE = frozenset({"upstream.retry", "call.fallback", "request.retried_without_param"})
#: The fewest characters of a request id that are shown; `claude-proxy replay` accepts the beginning of an id.
_ID_CHARS = 14
_MODEL_CHARS = 24
#: Of a cause, this much is shown before seconds and retries are, and the smaller number before an address is.
_CAUSE_CHARS, _LEAST_CAUSE_CHARS = 38, 24
_GREEN, _RED, _YELLOW, _DIM, _BOLD = "32", "31", "33", "2", "1"
#: Result -> mark, mark without Unicode, color.
_MARKS = {
    "ok": ("✓", "+", _GREEN),
    "client_gone": ("–", "-", _DIM),
    "failure": ("✗", "x", _RED),
    "warning": ("!", "!", _YELLOW),
    "error": ("✗", "x", _RED),
}
#: Fields of other events that are not shown as key and value.
_SHOWN_OTHERWISE = frozenset({"event", "timestamp", "level", "part", "exception", "worker"})
_LINE_BREAK = "\n"
#: Events that are shown as sentences: what stands before the field, and the field.
_SENTENCES = {
    "config.warning": ("", "what"),
    "config.rejected": ("models.yaml is rejected, the one before stays in force:", "faults"),
}
_PLAIN_LOGFMT = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f]+\Z")
#: Control characters and line ends that JSON does not escape itself.
_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


def columns_of(stream: TextIO) -> int:
    """The width of a terminal, at most `MAX_COLUMNS`; `MAX_COLUMNS` where `stream` is none."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return MAX_COLUMNS
    return max(_MIN_COLUMNS, min(columns or MAX_COLUMNS, MAX_COLUMNS))


def clock_time(at: float, now: float | None = None) -> str:
    """A Unix time in the local time zone: the time of day, with the date on other days than today."""
    moment, today = time.localtime(at), time.localtime(now)
    is_today = moment[:3] == today[:3]
    return time.strftime("%H:%M:%S" if is_today else "%m-%d %H:%M:%S", moment)


class ConsoleRenderer:
    """A structlog renderer that formats lines for a terminal.

    Args:
        columns: returns the width of the terminal.
        is_unicode: the terminal can show other characters than ASCII.
    """

    def __init__(self, columns: Callable[[], int], *, colors: bool, is_unicode: bool = True) -> None:
        self._columns = columns
        self._colors = colors
        self._mark_index = 0 if is_unicode else 1
        self._ellipsis = "…" if is_unicode else "."

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        """Render `event`.

        Raises:
            DropEvent: the line of the call has the same.
        """
        name = event.get("event")
        if name in _IN_CALL_LINE or (name == "circuit.changed" and event.get("state") == "trial"):
            raise DropEvent
        if "worker" in event:
            event["timestamp"] = f"{event.get('timestamp', '')} w{event['worker']}"
        if name == "call.finished":
            return self._call(event)
        return self._refused_request(event) if name == "request.refused" else self._other(event)

    # -- calls

    def _call(self, event: Mapping[str, Any]) -> str:
        outcome = str(event.get("outcome"))
        is_failure = outcome not in ("ok", "client_gone")
        mark = _MARKS["failure" if is_failure else outcome]
        line = _Line(self._columns(), self._ellipsis, colors=self._colors)
        line.add(str(event.get("timestamp", "")), _DIM)
        line.add(mark[self._mark_index], mark[2])
        model = event.get("fallback_from") or event.get("route") or event.get("model")
        line.add(_cut(_text(model), _MODEL_CHARS, self._ellipsis), _BOLD)
        if is_failure:
            self._add_failure(line, event, outcome)
        else:
            line.add_column(_text(event.get("kind")))
            line.add_column(_seconds(event))
            line.add_column(_tokens(event))
            if (cost := event.get("cost_usd")) is not None:
                line.add_column(_usd(cost))
            if outcome == "client_gone":
                line.add_column("client left", _YELLOW)
            line.add_column(_attempts(event), _YELLOW)
            if "cache_break" in event:
                line.add_column("cache break", _YELLOW)
            if "blocked" in str(event.get("safeguards")) or "without verdict" in str(event.get("safeguards")):
                line.add_column(f"auto mode: {event['safeguards']}", _YELLOW)
        return line.text()

    def _refused_request(self, event: Mapping[str, Any]) -> str:
        """Render a request that did not become a call, such as one for an unknown model."""
        mark = _MARKS["failure"]
        line = _Line(self._columns(), self._ellipsis, colors=self._colors)
        line.add(str(event.get("timestamp", "")), _DIM)
        line.add(mark[self._mark_index], mark[2])
        name = event.get("model") or f"{event.get('method')} {event.get('path')}"
        line.add(_cut(_text(name), _MODEL_CHARS, self._ellipsis), _BOLD)
        self._add_failure(line, {**event, "error": event.get("reason")}, "refused")
        return line.text()

    def _add_failure(self, line: _Line, event: Mapping[str, Any], outcome: str) -> None:
        """Add status, cause, address, retries, seconds and request id, as much as fits beside the cause."""
        status = _text(event.get("status")) if outcome == "refused" else outcome
        request_id, address = _text(event.get("request_id")), _text(event.get("address"))
        cause = printable(" ".join(str(event.get("error") or event.get("error_type") or outcome).split()))
        before, mark, last = cause.partition("; the last failure: ")
        cause = _without_address(f"paused: {last}" if mark else before, address)
        url, host, short_id = address.partition("://")[2], urlsplit(address).netloc, request_id[:_ID_CHARS]
        attempts = _attempts(event).removeprefix("after ")
        seconds = _seconds(event) if "duration_ms" in event else ""
        choices = (
            (url, attempts, seconds, request_id),
            (url, attempts, seconds, short_id),
            (host, attempts, seconds, short_id),
            (host, attempts, "", short_id),
            (host, "", "", short_id),
            ("", "", "", short_id),
        )
        room = line.room - len(status) - 2
        chosen, rest = choices[-1], 1
        for least in (len(cause), min(len(cause), _CAUSE_CHARS), min(len(cause), _LEAST_CAUSE_CHARS), 1):
            candidates = (
                choices[:4]
                if least > _CAUSE_CHARS
                else choices[:5]
                if least > _LEAST_CAUSE_CHARS
                else choices
            )
            fitting = [each for each in candidates if room - _width(each) >= least]
            if fitting:
                chosen, rest = fitting[0], room - _width(fitting[0])
                break
        line.add(f"{status} {_cut(cause, rest, self._ellipsis)}", _RED)
        for text, color in zip(chosen, (_DIM, _YELLOW, "", _DIM), strict=True):
            line.add_column(text, color)

    # -- other events

    def _other(self, event: Mapping[str, Any]) -> str:
        level = str(event.get("level", "info"))
        mark = _MARKS.get(level, (" ", " ", ""))
        columns, timestamp = self._columns(), str(event.get("timestamp", ""))
        line = _Line(columns, self._ellipsis, colors=self._colors)
        line.add(timestamp, _DIM)
        line.add(mark[self._mark_index], mark[2])
        indent, lines = " " * (len(timestamp) + 2), []
        for word, color in self._words(event, mark[2]):
            if word == _LINE_BREAK or (len(word) >= line.room and line.room < columns - len(indent)):
                lines.append(line.text())
                line = _Line(columns, self._ellipsis, colors=self._colors, indent=indent)
            line.add_whole(word.strip(), color)
        text = "\n".join([*lines, line.text()])
        return (
            f"{text}\n{printable(str(event['exception']), has_lines=True)}" if "exception" in event else text
        )

    @staticmethod
    def _words(event: Mapping[str, Any], color: str) -> Iterable[tuple[str, str]]:
        """Yield the words of an event that is no call, with their colors."""
        name = str(event.get("event"))
        before, field = _SENTENCES.get(name, ("", ""))
        if name == "circuit.changed":
            for word in _circuit_sentence(event).split():
                yield word, color
            return
        if field in event:
            for word in before.split():
                yield word, color
            value = event[field]
            for text in value if isinstance(value, list) else [value]:
                if before:
                    yield _LINE_BREAK, ""
                for word in _text(text).split():
                    yield word, ""
            return
        yield _text(name), color or _BOLD
        for key, value in event.items():
            if key not in _SHOWN_OTHERWISE:
                for word in f"{printable(str(key))}={_text(value)}".split(" "):
                    yield word, ""


class _Line:
    """A line that is built from the left. Escape sequences do not count."""

    def __init__(self, columns: int, ellipsis: str, *, colors: bool, indent: str = "") -> None:
        self.room = columns - len(indent)
        self._ellipsis = ellipsis
        self._colors = colors
        self._parts: list[str] = [indent] if indent else []

    def add(self, text: str, color: str = "", *, gap: int = 1) -> None:
        """Add a text, cut to what is left of the line."""
        if not text:
            return
        gap = gap if self._parts else 0
        if self.room <= gap:
            return
        self._append(_cut(text, self.room - gap, self._ellipsis), color, gap)

    def add_whole(self, text: str, color: str = "") -> None:
        """Add a text, even if it is longer than what is left of the line."""
        if text:
            self._append(text, color, 1 if self._parts else 0)

    def add_column(self, text: str, color: str = "") -> None:
        """Add a text behind a wider gap; left out where not all of it fits."""
        if len(text) + 2 <= self.room:
            self.add(text, color, gap=2)

    def text(self) -> str:
        return "".join(self._parts)

    def _append(self, text: str, color: str, gap: int) -> None:
        self.room -= gap + len(text)
        is_colored = self._colors and color
        self._parts.append(" " * gap + (f"\x1b[{color}m{text}\x1b[0m" if is_colored else text))


def _circuit_sentence(event: Mapping[str, Any]) -> str:
    host = urlsplit(_text(event.get("origin"))).netloc
    if event.get("state") == "closed":
        return f"{host} works again"
    return f"{host} failed {_text(event.get('failures'))} times in a row: paused for {_text(event.get('open_for_s'))} s"


def _without_address(cause: str, address: str) -> str:
    """Return a cause without the address that stands beside it in the line."""
    if not address or address not in cause:
        return cause
    cause = re.sub(rf" \({re.escape(address)}( answered \d+)?\)", "", cause)
    return cause.replace(f" to {address}", "").replace(f"{address} ", "")


def _width(columns: Iterable[str]) -> int:
    return sum(len(text) + 2 for text in columns if text)


def _cut(text: str, size: int, ellipsis: str) -> str:
    return text if len(text) <= size else text[: size - 1] + ellipsis


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return printable(text)


def _seconds(event: Mapping[str, Any]) -> str:
    seconds = _number(event.get("duration_ms")) / 1000
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def _tokens(event: Mapping[str, Any]) -> str:
    cached = _number(event.get("cache_read_tokens"))
    received = _number(event.get("input_tokens")) + cached + _number(event.get("cache_write_tokens"))
    sent = _number(event.get("output_tokens"))
    share = f" ({100 * cached / received:.0f}% cached)" if cached and received else ""
    about = "~" if event.get("usage_is_estimated") else ""
    return f"{_count(received)} in{share}, {about}{_count(sent)} out"


def _attempts(event: Mapping[str, Any]) -> str:
    """The retries and the fallback of a call, which have no lines of their own."""
    retries = int(_number(event.get("retries")))
    parts = [f"after {retries} {'retry' if retries == 1 else 'retries'}"] if retries else []
    if event.get("fallback_from") is not None:
        parts.append(f"by {_text(event.get('route'))}")
    return ", ".join(parts)


def _count(tokens: float) -> str:
    if tokens < 1000:
        return f"{tokens:.0f}"
    return f"{tokens / 1000:.1f}k" if tokens < 999_950 else f"{tokens / 1e6:.2f}M"


def _usd(cost: Any) -> str:
    cost = _number(cost)
    return f"${cost:.4f}" if cost < 1 else f"${cost:.2f}"


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


# -- logfmt


def render_logfmt(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Render an event as ``key=value`` pairs; values with blanks, quotes or control characters are JSON strings."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return " ".join(f"{_logfmt_key(name)}={_logfmt(value)}" for name, value in {**first, **event}.items())


def _logfmt_key(name: object) -> str:
    return re.sub(r"[\s\"=\\\x00-\x1f\x7f-\x9f]", "_", str(name)) or "_"


def _logfmt(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if _PLAIN_LOGFMT.match(text) else json.dumps(text, ensure_ascii=False).translate(_ESCAPES)
