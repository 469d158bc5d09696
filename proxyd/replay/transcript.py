"""Export of a record as an anonymized transcript for the test suite (`proxyd.replay.anonymizer`).

The files have the format of ``tests/transcripts``, so a folder that is copied there becomes a test:

- ``<profile>/<case>.sse`` and ``.options.json``: the upstream's response, and the request that matters for it; of
  another format than Chat Completions in a folder of its own, such as ``responses/<profile>/``;
- ``requests/<profile>/<case>.request.json`` and ``.route.json``: the client's request, and the entry's options;
- ``errors/<profile>/<case>.json`` instead of the stream where the upstream refused the call;
- for a direct route ``anthropic/<case>.sse`` and ``.request.json``.

The export checks that the transcript produces the same kinds of events as the record.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxyd import errors
from proxyd.codecs.anthropic.events import Ping, StreamEvent, Unknown
from proxyd.codecs.anthropic.passthrough import split_frames
from proxyd.codecs.formats import FORMATS
from proxyd.codecs.upstream_errors.errors import refusal
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError
from proxyd.providers.registry import dialect_for, format_for, profile_for
from proxyd.providers.translated_request import TranslatedCall
from proxyd.recording.store import BadRecord, Record, RecordedAttempt
from proxyd.replay.anonymizer import Anonymizer, anonymize_body
from proxyd.replay.diff import FreshIds
from proxyd.replay.replay import ReadEntry, learned_quirks_of, payload_of, request_for, route_of
from proxyd.replay.responses import ReplayedResponse, ResponseReplayer

__all__ = ["Export", "export"]

#: Fields of an entry that a transcript's route file may have besides quirks.
_ROUTE_OPTIONS = ("max_tokens", "temperature", "top_p", "reasoning_effort", "vision")
#: The folder of the streams of each format.
_FOLDERS = {each.name: f"{each.folder}/" if each.folder else "" for each in FORMATS.values()}
_WHERE = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Export:
    """The files of a transcript.

    Attributes:
        files: relative paths and contents.
        kinds: the kinds of events that the anonymized response produces.
        is_faithful: the recorded response produces the same.
    """

    files: dict[str, bytes]
    kinds: list[str]
    is_faithful: bool


def export(record: Record, read_entry: ReadEntry, case: str) -> Export:
    """Make a transcript of the last attempt.

    Raises:
        BadRecord: the record does not contain what is needed.
    """
    if record.body is None or not record.attempts:
        raise BadRecord(
            f"{record.path} does not contain request and response: set 'record_bodies: true' under 'settings' in "
            "models.yaml and make the call again"
        )
    attempt = record.attempts[-1]
    if attempt.response is None or attempt.chunks is None:
        raise BadRecord(
            f"{record.path} has no response of an upstream, so there is nothing to make a transcript of"
        )
    route = learned_quirks_of(attempt).applied_to(route_of(record, attempt, read_entry))
    anonymizer = Anonymizer()
    payload = anonymizer.value(payload_of(record)) if record.body else {}
    filled = _anonymized(record, attempt, payload, anonymizer)
    anonymized_route = _anonymized_route(route, anonymizer)
    then, now = _response(record, route), _response(filled, anonymized_route)
    body = b"".join(chunk for _, chunk in filled.attempts[-1].chunks or ())
    if route.direct:
        files = {f"anthropic/{case}.sse": body, f"anthropic/{case}.request.json": _json(payload)}
    else:
        files = _translated_files(filled, anonymized_route, payload, body, case)
    return Export(files, _kinds(now), _kinds(then) == _kinds(now))


def _anonymized(
    record: Record, attempt: RecordedAttempt, payload: dict[str, Any], anonymizer: Anonymizer
) -> Record:
    """Anonymize the client's request and the upstream's response, in the same chunks."""
    chunks = attempt.chunks or []
    whole = anonymize_body(b"".join(chunk for _, chunk in chunks), anonymizer)
    at, anonymized = 0, []
    for moment, chunk in chunks:
        anonymized.append((moment, whole[at : at + len(chunk)]))
        at += len(chunk)
    return replace(
        record,
        body=json.dumps(payload).encode() if record.body else record.body,
        attempts=[*record.attempts[:-1], replace(attempt, chunks=anonymized)],
    )


def _anonymized_route(route: ModelRoute, anonymizer: Anonymizer) -> ModelRoute:
    """Anonymize the entry: what depends on the model's name becomes quirks."""
    profile = profile_for(route.api_base, route.provider)
    name = anonymizer.name(route.model_name)
    quirks: dict[str, Any] = {}
    chosen = None
    if not route.direct:
        chosen, _ = format_for(route)
        wanted = dialect_for(profile, route.model_name, route.quirks, chosen)
        found = dialect_for(profile, name, {}, chosen)
        for each in dataclasses.fields(wanted):
            value = getattr(wanted, each.name)
            if value != getattr(found, each.name):
                quirks[each.name] = _plain(value, anonymizer)
    return ModelRoute(
        model_id="golden",
        api_base=_WHERE,
        model_name=name,
        direct=route.direct,
        format=chosen.name if chosen else None,
        provider=profile.name,
        can_stream=route.can_stream,
        extra_body=anonymizer.value(dict(route.extra_body)),
        quirks=quirks,
        **{option: getattr(route, option) for option in _ROUTE_OPTIONS},
    )


def _plain(value: Any, anonymizer: Anonymizer) -> Any:
    """Convert a quirk to JSON; values that are put into bodies are anonymized."""
    if isinstance(value, Mapping):
        return anonymizer.value(dict(value))
    return list(value) if isinstance(value, tuple) else value


def _response(record: Record, route: ModelRoute) -> ReplayedResponse:
    """The response to the client if it had asked for a stream."""
    facts = {**record.facts, "stream": True}
    record = replace(record, call={**record.call, "facts": facts})
    attempt = record.attempts[-1]
    if route.direct:
        return ResponseReplayer(record).direct(attempt)
    try:
        call, _ = request_for(record, route, FreshIds())
    except ProxyError as exc:
        return ReplayedResponse.refused(exc)
    assert isinstance(call, TranslatedCall), "the route is translated"
    return ResponseReplayer(record).translated(attempt, call, payload_of(record))


def _kinds(response: ReplayedResponse) -> list[str]:
    if response.refusal is not None:
        status, kind, _ = response.refusal
        return [f"refused: {status} {kind}"]
    return [_kind(event) for _, event in split_frames(response.body) if not isinstance(event, Ping)]


def _kind(event: StreamEvent | None) -> str:
    if isinstance(event, Unknown):
        return str(event.data.get("type"))
    return "none" if event is None else type(event).__name__


def _translated_files(
    record: Record, route: ModelRoute, payload: dict[str, Any], body: bytes, case: str
) -> dict[str, bytes]:
    profile, attempt = str(route.provider), record.attempts[-1]
    folder = _FOLDERS[str(route.format)] + profile
    quirks = {"quirks": dict(route.quirks)} if route.quirks else {}
    options = {option: value for option in _ROUTE_OPTIONS if (value := getattr(route, option)) is not None}
    if not route.can_stream:
        options["stream"] = False
    if route.extra_body:
        options["extra_body"] = dict(route.extra_body)
    files = {
        f"requests/{profile}/{case}.request.json": _json(payload),
        f"requests/{profile}/{case}.route.json": _json({"model": route.model_name, **options, **quirks}),
    }
    status = (attempt.response or {}).get("status")
    if status == 200:
        request = {name: value for name, value in payload.items() if name not in ("model", "stream")}
        files[f"{folder}/{case}.sse"] = body
        files[f"{folder}/{case}.options.json"] = _json(
            {"model_name": route.model_name, **quirks, "request": request}
        )
    else:
        files[f"errors/{profile}/{case}.json"] = _json(_error(record, route, body))
    return files


def _error(record: Record, route: ModelRoute, body: bytes) -> dict[str, Any]:
    """An error in the format of tests/transcripts/errors, with what it means to the installed code."""
    response = record.attempts[-1].response or {}
    headers = {
        name: value for name, value in response.get("headers", {}).items() if name.startswith("retry-")
    }
    call, _ = request_for(record, route, FreshIds())
    assert call is not None, "the route is translated"
    context = {
        each.name: value
        for each in dataclasses.fields(call.context)
        if (value := getattr(call.context, each.name)) not in (None, each.default)
    }
    exc = refusal(response.get("status", 0), headers, body, call.context)
    status, kind = errors.error_response(exc)
    return {
        "source": f"a record of claude-proxy {record.call.get('claude_proxy')}, with filler",
        "status": response.get("status"),
        "headers": headers,
        "body": body.decode("utf-8", "replace"),
        "context": context,
        "expect": {
            "status": status,
            "kind": kind,
            "message": exc.message,
            "headers": dict(exc.headers),
        },
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"
