"""Replay of a recorded call through the installed code, without an upstream and without timers.

The request is translated again from the client's request, and the recorded chunks are decoded again. Both are compared
with the record. What the code cannot know is taken from the record: the entry of models.yaml as it was, learned quirks,
the estimated input tokens, the error of a broken connection, and whether the message had been started early because the
upstream was silent.

Hooks are not run, pings are not compared, and where the client left, only what it had been sent is compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from multidict import CIMultiDict

from proxyd import errors, jsonio
from proxyd.codecs.anthropic.events import Ping, encode_events
from proxyd.codecs.anthropic.passthrough import split_frames
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.translated import run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError
from proxyd.providers import direct_request as direct
from proxyd.providers import translated_request as translated
from proxyd.providers.base import CallTimeouts, ClientKeys, UpstreamRequest
from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.proxy.client_request import PREFIX
from proxyd.recording.key_masking import shown_headers, shown_url
from proxyd.recording.store import BadRecord, Record, RecordedAttempt
from proxyd.replay.diff import Difference, FreshIds, differences, shown
from proxyd.replay.responses import ReplayedResponse, ResponseReplayer
from proxyd.secret import MASK, Secret
from proxyd.server_tools.context_edits import Edited, apply_edits

__all__ = ["Found", "ReadEntry", "Replay", "learned_quirks_of", "payload_of", "request_for", "route_of"]

#: Parses a recorded entry; raises `errors.ConfigError`.
ReadEntry = Callable[[Mapping[str, Any]], ModelRoute]

_CHAT = "/chat/completions"
_KEY = Secret(MASK)


@dataclass(frozen=True)
class Found:
    """The result for one part of the call, ``request 2`` or ``response``; `difference` is None where it is equal."""

    part: str
    difference: Difference | None


@dataclass
class Replay:
    """The replay of one record.

    Attributes:
        notes: what could not be compared, and why.
    """

    record: Record
    read_entry: ReadEntry
    notes: list[str] = field(default_factory=list)
    _ids: FreshIds = field(default_factory=FreshIds)

    def __post_init__(self) -> None:
        self._responses = ResponseReplayer(self.record)

    def run(self) -> list[Found]:
        """Compare all parts of the call.

        Raises:
            BadRecord: it has no bodies, or is incomplete.
        """
        record = self.record
        if record.call.get("has_bodies") is not True:
            raise BadRecord(
                f"{record.path} has no bodies, so there is nothing to replay: set 'record_bodies: true' under "
                "'settings' in models.yaml and make the call again"
            )
        if record.body is None:
            raise BadRecord(
                f"{record.path} does not hold the client's request, which was too large to be kept"
            )
        self.notes += [note for note in record.call.get("notes") or () if isinstance(note, str)]
        if hooks := record.call.get("hooks"):
            self.notes.append(f"hooks were in force ({', '.join(map(str, hooks))}); they are not run again")
        if not record.attempts:
            return self._run_unsent()
        found = []
        for number, attempt in enumerate(record.attempts, 1):
            is_last = number == len(record.attempts)
            part = f"request {number}"
            try:
                call, request = self._prepare(attempt)
            except ProxyError as exc:
                found.append(Found(part, Difference("", "a request", f"refused: {exc.message}")))
                continue
            found.append(Found(part, self._request_difference(attempt, request)))
            if is_last:
                found += self._run_response(attempt, call)
        return found

    # -- requests

    def _prepare(self, attempt: RecordedAttempt) -> tuple[translated.TranslatedCall | None, UpstreamRequest]:
        route = route_of(self.record, attempt, self.read_entry)
        is_first = attempt.request.get("is_first_choice") is not False
        url = str(attempt.request.get("url"))
        return request_for(
            self.record,
            learned_quirks_of(attempt).applied_to(route),
            self._ids,
            is_first=is_first,
            demo_base=url.removesuffix(_CHAT),
            estimate=_whole_number(attempt.request.get("estimated_input_tokens")),
        )

    def _request_difference(self, attempt: RecordedAttempt, request: UpstreamRequest) -> Difference | None:
        then = {name: attempt.request.get(name) for name in ("method", "url", "headers")}
        now = {
            "method": request.method,
            "url": shown_url(request.url),
            "headers": shown_headers(request.headers.items()),
        }
        for difference in differences(then, now):
            return difference
        if attempt.body is None:
            return None
        recorded, made = self._unmasked(attempt.body), self._unmasked(request.body)
        return None if recorded == made else _body_difference(recorded, made)

    def _run_unsent(self) -> list[Found]:
        """Replay a call without attempts: the proxy refused it, or responded itself."""
        chosen, facts = self.record.call.get("chosen"), self.record.facts
        try:
            call, _ = request_for(self.record, _entry(self.record, str(chosen), self.read_entry), self._ids)
        except ProxyError as exc:
            return [self._compare(ReplayedResponse.refused(exc))]
        if facts.get("outcome") == "ok" and call is not None:  # max_tokens: 0
            frames = encode_events(translated.empty_response(call.response, call.new_id))
            return [self._compare(ReplayedResponse(self._responses.body_of(frames)))]
        self.notes.append(
            f"nothing was sent to an upstream: {facts.get('error') or facts.get('outcome')}; that depends on what "
            "the daemon was doing, and is not replayed"
        )
        return []

    # -- responses

    def _run_response(self, attempt: RecordedAttempt, call: translated.TranslatedCall | None) -> list[Found]:
        if attempt.response is None:
            self.notes.append("the upstream did not respond, so only what was sent could be compared")
            return []
        if attempt.chunks is None:
            why = attempt.response.get("body_left_out", "it was not kept")
            self.notes.append(f"the upstream's response is not in the record: {why}")
            return []
        status = _whole_number(attempt.response.get("status")) or 0
        if 300 <= status < 400:
            self.notes.append("the upstream responded with a redirect, which is not followed")
            return []
        if call is None:
            response = self._responses.direct(attempt)
        else:
            response = self._responses.translated(attempt, call, payload_of(self.record))
        self.notes += [f"the installed code has a bug: {bug}" for bug in self._responses.bugs]
        return [self._compare(response)]

    # -- comparison

    def _unmasked(self, data: bytes) -> bytes:
        """Replace all masks by one: some keys were masked before they were recorded."""
        for mask in self.record.masks:
            data = data.replace(mask.encode(), MASK.encode())
        return data

    def _compare(self, response: ReplayedResponse) -> Found:
        facts = self.record.facts
        if facts.get("outcome") == "refused":
            then = (facts.get("status"), facts.get("error_type"), facts.get("error"))
            if response.refusal is None:
                return Found("response", Difference("", _refused(*then), shown(response.body)))
            pairs = zip(("status", "type", "message"), then, response.refusal, strict=True)
            for place, one, other in pairs:
                texts = [
                    self._unmasked(each.encode()).decode() if isinstance(each, str) else each
                    for each in (one, other)
                ]
                for difference in differences(texts[0], texts[1], place=place):
                    return Found("response", difference)
            return Found("response", None)
        chunks = self.record.response_chunks
        if chunks is None:
            self.notes.append("the response to the client is not in the record")
            return Found("response", None)
        recorded = self._unmasked(b"".join(chunk for _, chunk in chunks))
        if response.refusal is not None:
            if self._responses.was_left and not recorded:
                return Found("response", None)
            return Found("response", Difference("", shown(recorded), _refused(*response.refusal)))
        is_prefix = response.is_open or "body_cut" in self.record.response
        now = self._unmasked(response.body)
        if str(self.record.response.get("body_file", "")).endswith(".sse"):
            return Found("response", self._stream_difference(recorded, now, is_prefix=is_prefix))
        if recorded == now or (is_prefix and (now.startswith(recorded) or recorded.startswith(now))):
            return Found("response", None)
        return Found("response", _body_difference(recorded, now, self._ids))

    def _stream_difference(self, recorded: bytes, now: bytes, *, is_prefix: bool) -> Difference | None:
        then, made = _frames(recorded), _frames(now)
        for number in range(max(len(then), len(made))):
            if number >= len(then):
                return (
                    None if is_prefix else Difference(f"event {number + 1}", "(the end)", shown(made[number]))
                )
            if number >= len(made):
                return (
                    None if is_prefix else Difference(f"event {number + 1}", shown(then[number]), "(the end)")
                )
            difference = self._frame_difference(then[number], made[number])
            if difference is not None:
                if is_prefix and number == len(then) - 1 and made[number].startswith(then[number]):
                    return None  # the record was cut in the middle of it
                place = f"event {number + 1} ({_name(then[number])})"
                return replace(
                    difference, place=f"{place}: {difference.place}" if difference.place else place
                )
        return None

    def _frame_difference(self, recorded: bytes, now: bytes) -> Difference | None:
        if recorded == now:
            return None
        then, made = _data(recorded), _data(now)
        if then is None or made is None or _name(recorded) != _name(now):
            return Difference("", shown(recorded), shown(now))
        for difference in differences(then, made, self._ids):
            return difference
        if any(drawn.encode() in now for drawn in self._ids.drawn):
            return None
        return Difference("the same data in other bytes", shown(recorded), shown(now))


def request_for(
    record: Record,
    route: ModelRoute,
    ids: FreshIds,
    *,
    model: str | None = None,
    is_first: bool = True,
    demo_base: str | None = None,
    estimate: int | None = None,
) -> tuple[translated.TranslatedCall | None, UpstreamRequest]:
    """Prepare the client's request of `record` for `route`.

    Args:
        model: the model to ask for instead of the recorded one.

    Raises:
        ProxyError: it is refused.
        BadRecord: there is no request.
    """
    body = record.body or b""
    payload = payload_of(record)
    if model is not None:
        payload["model"] = model
    keys = ClientKeys()
    names = record.client.get("keys")
    if is_first and isinstance(names, list):
        keys = ClientKeys(_KEY if "x-api-key" in names else None, _KEY if "authorization" in names else None)
    headers = record.client.get("headers")
    sent = CIMultiDict(
        (str(name), str(value)) for name, value in (headers.items() if isinstance(headers, dict) else ())
    )
    if route.direct:
        path, _, query = str(record.client.get("path")).partition("?")
        return None, direct.prepare(
            route,
            path=path.removeprefix(PREFIX),
            query=query,
            headers=sent,
            body=body,
            payload=payload,
            keys=keys,
            timeouts=CallTimeouts(),
            method=str(record.client.get("method")),
            is_first=is_first,
            forwarded=_forwarded(record),
        )
    session = record.facts.get("session_id")
    limits = record.settings
    edited = Edited(payload, [], ())
    if limits.get("context_edits") is True:
        edited = apply_edits(payload, ToolInputs())
    call = run_to_end(
        translated.prepare(
            route,
            demo_base if route.is_demo and demo_base else route.api_base,
            edited.payload,
            keys,
            timeouts=CallTimeouts(),
            new_id=ids.new_id,
            warn=lambda note: None,
            max_body_bytes=_whole_number(limits.get("max_upstream_body_bytes")) or 1 << 26,
            max_frame_bytes=_whole_number(limits.get("max_frame_bytes")) or 1 << 23,
            session_id=session if isinstance(session, str) else None,
            corrected=None if estimate is None else lambda _: estimate,
            applied_edits=edited.applied,
        )
    ).written()
    return call, call.request


def _forwarded(record: Record) -> tuple[str, ...]:
    """The recorded setting ``forward_headers``; older records have none."""
    patterns = record.settings.get("forward_headers", ["*"])
    return tuple(map(str, patterns)) if isinstance(patterns, list) else ()


def route_of(record: Record, attempt: RecordedAttempt, read_entry: ReadEntry) -> ModelRoute:
    """The entry of `attempt`, as it was.

    Raises:
        BadRecord: it is missing or invalid.
    """
    return _entry(record, str(attempt.request.get("route")), read_entry)


def _entry(record: Record, model_id: str, read_entry: ReadEntry) -> ModelRoute:
    entries = record.call.get("entries")
    entry = entries.get(model_id) if isinstance(entries, dict) else None
    if not isinstance(entry, dict):
        raise BadRecord(f"{record.path} does not say how the entry {model_id!r} was configured")
    try:
        return read_entry(entry)
    except errors.ConfigError as exc:
        raise BadRecord(f"{record.path}: the entry {model_id!r} is not valid: {exc.message}") from None


def learned_quirks_of(attempt: RecordedAttempt) -> LearnedQuirks:
    """The quirks that the daemon had learned of the route."""
    learned = attempt.request.get("learned")
    if not isinstance(learned, dict):
        return LearnedQuirks()
    quirks, lines = learned.get("quirks"), learned.get("lines")
    return LearnedQuirks(
        quirks if isinstance(quirks, dict) else {},
        _whole_number(learned.get("max_tokens")),
        tuple(map(str, lines)) if isinstance(lines, list) else (),
    )


def payload_of(record: Record) -> dict[str, Any]:
    """Parse the client's request.

    Raises:
        BadRecord: it is not a JSON object.
    """
    if not record.body:
        return {"model": record.facts.get("model")}
    try:
        payload = jsonio.loads(record.body, max_values=jsonio.MAX_REQUEST_VALUES)
    except jsonio.JSONError:
        payload = None
    if not isinstance(payload, dict):
        raise BadRecord(f"{record.path}: the client's request is no JSON object")
    return payload


def _body_difference(recorded: bytes, now: bytes, ids: FreshIds | None = None) -> Difference | None:
    try:
        then, made = json.loads(recorded), json.loads(now)
    except (ValueError, RecursionError):
        return Difference("body", shown(recorded), shown(now))
    for difference in differences(then, made, ids, "body"):
        return difference
    if ids is not None and any(drawn.encode() in now for drawn in ids.drawn):
        return None
    at = next(
        (at for at, (one, other) in enumerate(zip(recorded, now, strict=False)) if one != other),
        min(len(recorded), len(now)),
    )
    return Difference(
        f"the same body in other bytes, from byte {at} on",
        shown(recorded[max(0, at - 20) : at + 40]),
        shown(now[max(0, at - 20) : at + 40]),
    )


def _frames(stream: bytes) -> list[bytes]:
    return [raw for raw, event in split_frames(stream) if not isinstance(event, Ping)]


def _name(frame: bytes) -> str:
    return next(
        (line[7:].decode("utf-8", "replace") for line in frame.splitlines() if line.startswith(b"event: ")),
        "?",
    )


def _data(frame: bytes) -> Any:
    lines = [line[5:].lstrip() for line in frame.splitlines() if line.startswith(b"data:")]
    try:
        return json.loads(b"\n".join(lines))
    except (ValueError, RecursionError):
        return None


def _refused(status: Any, kind: Any, message: Any) -> str:
    return f"refused: {status} {kind}: {message}"


def _whole_number(value: Any) -> int | None:
    return value if type(value) is int else None
