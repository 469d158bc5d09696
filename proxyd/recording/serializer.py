"""What is in the record of a call: its trace and its facts as files, keys masked (`record_files` has their form)."""

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
from proxyd.logs.setup import facts_of
from proxyd.providers.base import ClientKeys
from proxyd.recording.key_masking import Masks, shown_headers, shown_url
from proxyd.recording.store import FORMAT, timing
from proxyd.telemetry.call_record import CallRecord
from proxyd.telemetry.call_trace import AttemptTrace, CallTrace, Flow
from proxyd.urls import origin_of

if TYPE_CHECKING:
    from proxyd.hooks.loader import HookSet

__all__ = ["files_of"]

#: Of one body, unpacked.
_MAX_DECOMPRESSED_BYTES = 16 * 1024 * 1024

#: Sentences of our own about an answer that had begun. Others may be the upstream's, which may quote a prompt.
_OWN_WORDS = re.compile(
    r"(?:(?:the upstream|ADDRESS) (?:closed the stream before finishing|was silent for [\d.]+ s|answered \d+)"
    r"|the response of ADDRESS took longer than [\d.]+ s|the upstream's answer took longer than [\d.]+ s"
    r"|claude-proxy is shutting down|internal error in claude-proxy; see its log)".replace(
        "ADDRESS", r"[\w.:/%?&=…\[\]~+-]{1,500}"
    )
)
_TOKEN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: Of an entry: what makes no difference to a request or an answer, or is a secret.
_ENTRY_LEFT_OUT = frozenset({"api_key", "key_origin", "timeouts", "pricing", "aliases"})
#: Settings by which an answer is read and ended.
_SETTINGS = (
    "forward_headers",
    "max_frame_bytes",
    "max_upstream_body_bytes",
    "max_error_body_bytes",
    "on_midstream_error",
)


def files_of(record: CallRecord) -> dict[str, bytes]:
    """The files of a record by their names."""
    trace = record.trace
    assert trace is not None, "asked only where there is one"
    masks = Masks()
    files = _Files(masks)
    settings, table, hooks = (
        trace.holds if isinstance(trace.holds, tuple) else (Settings(), RouteTable(), None)
    )
    notes: list[str] = []
    method, path, headers = trace.head
    keys = trace.keys or ClientKeys()
    client = {
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
    if trace.is_body_cut:
        notes.append("the client's request is too large to be kept")
    elif trace.keeps_bodies:
        client["body_file"] = files.add("client-request.body.json", trace.body)
    files.add_json("client-request.json", client)
    encoding = ""
    for number, attempt in enumerate(trace.attempts, 1):
        encoding = _add_attempt(files, number, attempt, record, table, notes)
    _add_answer(files, record, trace, encoding, notes)
    if trace.further_attempts:
        notes.append(f"{trace.further_attempts} further attempts are not in here")
    if trace.has_failed:
        notes.append("claude-proxy failed while it noted this call: something may be missing")
    call = {
        "format": FORMAT,
        "claude_proxy": proxyd.__version__,
        "started": _iso(record.started_at),
        "facts": _facts(record, keeps_bodies=trace.keeps_bodies),
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
        call["masks"] = None  # known once all else has been masked
    files.add_call(call)
    return files.found


class _Files:
    """The files, masked as they come in."""

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
        """Timing and bytes of one direction; returns what its head says of them."""
        head: dict[str, Any] = {"body_bytes": flow.size, "pieces": flow.count}
        pieces, kept = flow.pieces, [None] * flow.count
        if pieces is not None and encoding not in ("", "identity"):
            unpacked = _decompressed(pieces) if encoding in ("gzip", "x-gzip", "deflate") else None
            if unpacked is None:
                head["body_left_out"] = f"packed ({encoding}) in a way that hides keys from us"
            else:
                head["body_unpacked"] = encoding
                kept = [len(piece) for piece in unpacked]  # type: ignore[misc]
            pieces = unpacked
        marks = ((moment - begun) * 1000 for moment in flow.times)
        self.found[f"{name}.timing"] = timing(zip(marks, flow.sizes, kept, strict=False))
        if pieces is not None:
            head["body_file"] = self.add(f"{name}{_ending(kind)}", b"".join(pieces))
            if flow.is_cut:
                head["body_cut"] = "the rest was too large to be kept"
        return head


def _add_attempt(
    files: _Files, number: int, attempt: AttemptTrace, record: CallRecord, table: RouteTable, notes: list[str]
) -> str:
    method, url = attempt.request
    request: dict[str, Any] = {
        "route": attempt.route,
        "mode": attempt.mode,
        "method": method,
        "url": shown_url(url),
        "headers": shown_headers(attempt.headers.items()),
        "sent_ms": _ms(attempt.sent_at, record.begun),
        "body_bytes": attempt.size,
    }
    keeps_bodies = record.trace is not None and record.trace.keeps_bodies
    if attempt.is_cut:
        notes.append(f"what attempt {number} sent is too large to be kept")
    elif keeps_bodies:
        request["body_file"] = files.add(f"{number}-upstream-request.body.json", attempt.body)
    if keeps_bodies:
        request["is_first_choice"] = _is_first_choice(
            attempt.route, record.fallback_from or record.route, table
        )
        request["estimated_input_tokens"] = attempt.estimated_input_tokens
        if attempt.lessons is not None and attempt.lessons.lines:
            request["learned"] = {
                "quirks": dict(attempt.lessons.quirks),
                "max_tokens": attempt.lessons.max_tokens,
                "lines": list(attempt.lessons.lines),
            }
    files.add_json(f"{number}-upstream-request.json", request)
    if attempt.head_at is None:
        return ""
    by_name = _by_name(attempt.response_headers)
    # Translated calls are read through a session that unpacks.
    encoding = by_name.get("content-encoding", "").strip().lower() if attempt.mode == "direct" else ""
    response = {
        "status": attempt.status,
        "headers": shown_headers(attempt.response_headers),
        "head_ms": _ms(attempt.head_at, record.begun),
        "is_whole": attempt.flow.is_whole,
        **files.add_flow(
            f"{number}-upstream-response",
            attempt.flow,
            record.begun,
            by_name.get("content-type", ""),
            encoding,
        ),
    }
    if "body_cut" in response:
        notes.append(f"the answer to attempt {number} is cut: it was too large to be kept")
    files.add_json(f"{number}-upstream-response.json", response)
    return encoding


def _add_answer(files: _Files, record: CallRecord, trace: CallTrace, encoding: str, notes: list[str]) -> None:
    flow = trace.answer
    if encoding and flow.pieces and flow.pieces[0][:1] not in (b"\x1f", b"\x78"):
        encoding = ""  # it was unpacked on its way, for hooks
    if record.mode == "direct" and trace.attempts:  # it goes on as it came
        kind = _by_name(trace.attempts[-1].response_headers).get("content-type", "")
    else:
        kind = "text/event-stream" if record.is_stream else "application/json"
    answer: dict[str, Any] = {
        "status": record.status,
        "outcome": record.outcome,
        **files.add_flow("answer", flow, record.begun, kind, encoding),
    }
    if record.outcome == "refused":
        answer["error"] = {"type": record.error_type, "message": _error(record, trace.keeps_bodies)}
    if "body_cut" in answer:
        notes.append("what the client was answered is cut: it was too large to be kept")
    files.add_json("answer.json", answer)


def _facts(record: CallRecord, *, keeps_bodies: bool) -> dict[str, Any]:
    facts = facts_of(record)
    for name in ("error_type", "stop_reason"):
        if not keeps_bodies and not _TOKEN.fullmatch(facts.get(name, "-")):
            del facts[name]  # an upstream's own word for it
    error = _error(record, keeps_bodies)
    if error is None:
        facts.pop("error", None)
    else:
        facts["error"] = error
    return facts


def _error(record: CallRecord, keeps_bodies: bool) -> str | None:
    """The sentence of a failure. Without bodies only where it is ours: an upstream's may quote the prompt."""
    trace, error = record.trace, record.error
    if error is None or keeps_bodies or _OWN_WORDS.fullmatch(error):
        return error
    was_answered = trace is not None and any(attempt.head_at is not None for attempt in trace.attempts)
    return None if was_answered else error


def _entry(route: ModelRoute) -> dict[str, Any]:
    """The entry of models.yaml without its key and without other people's."""
    entry = {
        each.name: getattr(route, each.name)
        for each in fields(route)
        if each.init and each.name not in _ENTRY_LEFT_OUT
    }
    entry["has_key"] = route.api_key is not None
    entry["api_base"] = shown_url(route.api_base)
    entry["extra_headers"] = shown_headers(route.extra_headers.items())
    return entry


def _is_first_choice(route_id: str, chosen_id: str, table: RouteTable) -> bool:
    chosen = table.resolve(chosen_id)
    here = next((route for route in table.routes if route.model_id == route_id), None)
    return chosen is None or here is None or origin_of(chosen.api_base) == origin_of(here.api_base)


def _hook_names(hooks: HookSet | None) -> list[str]:
    return [] if hooks is None else [file.name for file in hooks.files if not file.is_off]


def _decompressed(pieces: list[bytes]) -> list[bytes] | None:
    """What each piece of a packed body unpacks to; None for what is packed otherwise than it says."""
    decompressor, left, found = zlib.decompressobj(zlib.MAX_WBITS | 32), _MAX_DECOMPRESSED_BYTES, []
    try:
        for piece in pieces:
            found.append(decompressor.decompress(piece, left) if left > 0 else b"")
            left -= len(found[-1])
    except zlib.error:
        return None
    return found


def _path(target: str) -> str:
    """Path and query; a client may write the whole address there (RFC 9112, 3.2.2)."""
    if not target.startswith("/"):
        target = urlsplit(target)._replace(scheme="", netloc="").geturl()
    return shown_url(target)


def _by_name(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {str(name).lower(): value for name, value in headers}


def _ending(kind: str) -> str:
    if "event-stream" in kind:
        return ".sse"
    return ".body.json" if "json" in kind else ".body.txt"


def _ms(moment: float, begun: float) -> float:
    return round((moment - begun) * 1000, 3)


def _iso(moment: float) -> str:
    whole, milliseconds = divmod(round(moment * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"
