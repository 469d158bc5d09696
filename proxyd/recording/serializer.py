"""Serialization of a call's trace and fields into the files of a record, with keys masked.

`proxyd.recording.store` describes the files.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import proxyd
from proxyd.config.routes import ModelRoute, RouteTable
from proxyd.config.settings import Settings
from proxyd.providers.base import ClientKeys
from proxyd.recording.key_masking import Masks, shown_headers, shown_url
from proxyd.recording.store import FORMAT, timing
from proxyd.telemetry.access_log import call_facts
from proxyd.telemetry.call_trace import AttemptTrace, CallTrace, Flow
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.urls import origin_of

if TYPE_CHECKING:
    from proxyd.hooks.loader import HookSet

__all__ = ["files_of", "outline_of"]

#: The most bytes of one decompressed body.
_MAX_DECOMPRESSED_BYTES = 16 * 1024 * 1024

#: Error messages of our own about a response that had begun. Any other may be the upstream's and quote a prompt.
_OWN_MESSAGES = re.compile(
    r"(?:the upstream|\S{1,300}) closed the stream before finishing(?: \(\S{1,300}\))?"
    r"|(?:the upstream|\S{1,300}) was silent for [\d.]+ s"
    r"|(?:the upstream's (?:answer|response)|the response of \S{1,300}) took longer than [\d.]+ s"
    r"|(?:the upstream|\S{1,300}) (?:answered|responded with) \d+"
    r"|claude-proxy is shutting down|internal error in claude-proxy; see its log"
)
_TOKEN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: Fields of an entry that do not affect requests and responses, or are secret.
_OMITTED_FIELDS = frozenset(
    {
        "api_key",
        "api_keys",
        "key_origin",
        "is_token",
        "obtains_token",
        "targets",
        "balance",
        "timeouts",
        "pricing",
        "aliases",
    }
)
#: Settings that affect how a response is read and ended.
_SETTINGS = (
    "context_edits",
    "forward_headers",
    "max_frame_bytes",
    "max_upstream_body_bytes",
    "max_error_body_bytes",
    "on_midstream_error",
)


def files_of(record: FinishedCall) -> dict[str, bytes]:
    """Build the files of a record, by name."""
    trace = record.trace
    assert trace is not None, "only traced calls are recorded"
    masks = Masks()
    files = _Files(masks)
    settings, table, hooks = (
        trace.in_force if isinstance(trace.in_force, tuple) else (Settings(), RouteTable(), None)
    )
    notes: list[str] = []
    client = _client_head(trace)
    if trace.is_body_truncated:
        notes.append("the client's request is too large to be kept")
    elif trace.keeps_bodies:
        client["body_file"] = files.add("client-request.body.json", trace.body)
    files.add_json("client-request.json", client)
    encoding = ""
    for number, attempt in enumerate(trace.attempts, 1):
        encoding = _add_attempt(files, number, attempt, record, table, notes)
    _add_response(files, record, trace, encoding, notes)
    if trace.further_attempts:
        notes.append(f"{trace.further_attempts} further attempts are not in here")
    if trace.has_failed:
        notes.append("claude-proxy failed while it traced this call: something may be missing")
    call = {
        "format": FORMAT,
        "claude_proxy": proxyd.__version__,
        "started": _iso(record.started_at),
        "facts": _fields(record, trace, keeps_bodies=trace.keeps_bodies),
        "attempts": len(trace.attempts),
        "has_bodies": trace.keeps_bodies,
        "notes": notes,
    }
    if trace.keeps_bodies:
        call["settings"] = {name: getattr(settings, name) for name in _SETTINGS}
        call["hooks"] = _hook_names(hooks)
        chosen = table.resolve(record.fallback_from or record.route)
        call["chosen"] = None if chosen is None else chosen.model_id
        wanted = {attempt.route for attempt in trace.attempts} | {call["chosen"]}
        call["entries"] = {
            route.model_id: _entry(route) for route in table.routes if route.model_id in wanted
        }
        call["masks"] = None  # known when everything else has been masked
    files.add_call(call)
    return files.found


def outline_of(record: FinishedCall, trace: CallTrace) -> dict[str, Any]:
    """Return what `proxyd.recording.store.heads_of` returns of a recorded call, for one that is not recorded.

    Values of headers and addresses that could be secret are masked by name; other texts are not searched for keys.
    """
    attempts = []
    for attempt in trace.attempts:
        response = None
        if attempt.head_at is not None:
            response = {**_response_head(attempt, record), **_size(attempt.flow)}
        attempts.append({"request": _request_head(attempt, record), "response": response})
    return {
        "folder": None,
        "call": {
            "started": _iso(record.started_at),
            "facts": _fields(record, trace, keeps_bodies=False),
            "notes": [],
            "has_bodies": False,
        },
        "client": _client_head(trace),
        "attempts": attempts,
        "response": {"status": record.status, "outcome": record.outcome, **_size(trace.response)},
    }


def _client_head(trace: CallTrace) -> dict[str, Any]:
    method, path, headers = trace.head
    keys = trace.keys or ClientKeys()
    return {
        "method": method,
        "path": _path(path),
        "headers": shown_headers(headers.items()),
        "keys": [
            name
            for name, key in (("x-api-key", keys.api_key), ("authorization", keys.bearer))
            if key is not None
        ],
        "body_bytes": trace.body_size,
    }


def _request_head(attempt: AttemptTrace, record: FinishedCall) -> dict[str, Any]:
    method, url = attempt.request
    return {
        "route": attempt.route,
        "mode": attempt.mode,
        "method": method,
        "url": shown_url(url),
        "headers": shown_headers(attempt.headers.items()),
        "sent_ms": _ms(attempt.sent_at, record.begun),
        "body_bytes": attempt.size,
    }


def _response_head(attempt: AttemptTrace, record: FinishedCall) -> dict[str, Any]:
    assert attempt.head_at is not None, "there was a response"
    return {
        "status": attempt.status,
        "headers": shown_headers(attempt.response_headers),
        "head_ms": _ms(attempt.head_at, record.begun),
        "is_whole": attempt.flow.is_whole,
    }


def _size(flow: Flow) -> dict[str, int]:
    return {"body_bytes": flow.size, "chunks": flow.count}


class _Files:
    """The files. Keys are masked when a file is added."""

    def __init__(self, masks: Masks) -> None:
        self.found: dict[str, bytes] = {}
        self._masks = masks

    def add(self, name: str, data: bytes) -> str:
        self.found[name] = self._masks.over(data)
        return name

    def add_json(self, name: str, value: Mapping[str, Any]) -> None:
        text = json.dumps(self._masks.over_json(value), indent=2, ensure_ascii=False)
        self.found[name] = text.encode("utf-8", "backslashreplace") + b"\n"

    def add_call(self, call: dict[str, Any]) -> None:
        call = self._masks.over_json(call)
        if "masks" in call:
            call["masks"] = sorted(self._masks.used)
        self.add_json("call.json", call)

    def add_flow(self, name: str, flow: Flow, begun: float, kind: str, encoding: str) -> dict[str, Any]:
        """Add timing and bytes of one direction; returns their description for the head."""
        head: dict[str, Any] = {**_size(flow)}
        chunks, kept = flow.chunks, [None] * flow.count
        if chunks is not None and encoding not in ("", "identity"):
            decompressed = _decompressed(chunks) if encoding in ("gzip", "x-gzip", "deflate") else None
            if decompressed is None:
                head["body_left_out"] = f"compressed ({encoding}) in a way in which keys cannot be found"
            else:
                head["body_decompressed"] = encoding
                kept = [len(chunk) for chunk in decompressed]  # type: ignore[misc]
            chunks = decompressed
        marks = ((moment - begun) * 1000 for moment in flow.times)
        self.found[f"{name}.timing"] = timing(zip(marks, flow.sizes, kept, strict=False))
        if chunks is not None:
            head["body_file"] = self.add(f"{name}{_suffix(kind)}", b"".join(chunks))
            if flow.is_truncated:
                head["body_cut"] = "the rest was too large to be kept"
        return head


def _add_attempt(
    files: _Files,
    number: int,
    attempt: AttemptTrace,
    record: FinishedCall,
    table: RouteTable,
    notes: list[str],
) -> str:
    request = _request_head(attempt, record)
    keeps_bodies = record.trace is not None and record.trace.keeps_bodies
    if attempt.is_truncated:
        notes.append(f"what attempt {number} sent is too large to be kept")
    elif keeps_bodies:
        request["body_file"] = files.add(f"{number}-upstream-request.body.json", attempt.body)
    if keeps_bodies:
        request["is_first_choice"] = _is_first_choice(
            attempt.route, record.fallback_from or record.route, table
        )
        request["estimated_input_tokens"] = attempt.estimated_input_tokens
        if attempt.learned is not None and attempt.learned.lines:
            request["learned"] = {
                "quirks": dict(attempt.learned.quirks),
                "max_tokens": attempt.learned.max_tokens,
                "lines": list(attempt.learned.lines),
            }
    files.add_json(f"{number}-upstream-request.json", request)
    if attempt.head_at is None:
        return ""
    by_name = _by_name(attempt.response_headers)
    # Bodies of translated calls are decompressed before they are traced.
    encoding = by_name.get("content-encoding", "").strip().lower() if attempt.mode == "direct" else ""
    response = {
        **_response_head(attempt, record),
        **files.add_flow(
            f"{number}-upstream-response",
            attempt.flow,
            record.begun,
            by_name.get("content-type", ""),
            encoding,
        ),
    }
    if "body_cut" in response:
        notes.append(f"the response to attempt {number} is cut: it was too large to be kept")
    files.add_json(f"{number}-upstream-response.json", response)
    return encoding


def _add_response(
    files: _Files, record: FinishedCall, trace: CallTrace, encoding: str, notes: list[str]
) -> None:
    flow = trace.response
    if encoding and flow.chunks and flow.chunks[0][:1] not in (b"\x1f", b"\x78"):
        encoding = ""  # it was decompressed for hooks
    if record.mode == "direct" and trace.attempts:  # it is passed through
        kind = _by_name(trace.attempts[-1].response_headers).get("content-type", "")
    else:
        kind = "text/event-stream" if record.is_stream else "application/json"
    response: dict[str, Any] = {
        "status": record.status,
        "outcome": record.outcome,
        **files.add_flow("client-response", flow, record.begun, kind, encoding),
    }
    if record.outcome == "refused":
        response["error"] = {"type": record.error_type, "message": _error(record, trace, trace.keeps_bodies)}
    if "body_cut" in response:
        notes.append("the response to the client is cut: it was too large to be kept")
    files.add_json("client-response.json", response)


def _fields(record: FinishedCall, trace: CallTrace, *, keeps_bodies: bool) -> dict[str, Any]:
    facts = call_facts(record)
    for name in ("error_type", "stop_reason"):
        if not keeps_bodies and not _TOKEN.fullmatch(facts.get(name, "-")):
            del facts[name]  # an upstream's own text
    error = _error(record, trace, keeps_bodies)
    if error is None:
        facts.pop("error", None)
    else:
        facts["error"] = error
    return facts


def _error(record: FinishedCall, trace: CallTrace, keeps_bodies: bool) -> str | None:
    """The error message. Without bodies only where it is ours: an upstream's may quote the prompt."""
    error = record.error
    if error is None or keeps_bodies or _OWN_MESSAGES.fullmatch(error):
        return error
    has_response = any(attempt.head_at is not None for attempt in trace.attempts)
    return None if has_response else error


def _entry(route: ModelRoute) -> dict[str, Any]:
    """The entry of models.yaml without keys."""
    entry = {
        each.name: getattr(route, each.name)
        for each in fields(route)
        if each.init and each.name not in _OMITTED_FIELDS
    }
    entry["has_key"] = route.has_own_key
    entry["api_base"] = shown_url(route.api_base)
    entry["extra_headers"] = shown_headers(route.extra_headers.items())
    return entry


def _is_first_choice(route_id: str, chosen_id: str, table: RouteTable) -> bool:
    chosen = table.resolve(chosen_id)
    here = next((route for route in table.routes if route.model_id == route_id), None)
    return chosen is None or here is None or origin_of(chosen.api_base) == origin_of(here.api_base)


def _hook_names(hooks: HookSet | None) -> list[str]:
    return [] if hooks is None else [file.name for file in hooks.files if not file.is_off]


def _decompressed(chunks: list[bytes]) -> list[bytes] | None:
    """Decompress a body chunk by chunk; None where it is not compressed as declared."""
    decompressor, left, found = zlib.decompressobj(zlib.MAX_WBITS | 32), _MAX_DECOMPRESSED_BYTES, []
    try:
        for chunk in chunks:
            found.append(decompressor.decompress(chunk, left) if left > 0 else b"")
            left -= len(found[-1])
    except zlib.error:
        return None
    return found


def _path(target: str) -> str:
    """Path and query; a client may send an absolute URI (RFC 9112, 3.2.2)."""
    if not target.startswith("/"):
        target = urlsplit(target)._replace(scheme="", netloc="").geturl()
    return shown_url(target)


def _by_name(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {str(name).lower(): value for name, value in headers}


def _suffix(kind: str) -> str:
    if "event-stream" in kind:
        return ".sse"
    return ".body.json" if "json" in kind else ".body.txt"


def _ms(moment: float, begun: float) -> float:
    return round((moment - begun) * 1000, 3)


def _iso(moment: float) -> str:
    whole, milliseconds = divmod(round(moment * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"
