"""The spans of a finished call: one of the call itself, and within it one of each attempt at an upstream.

The span of the call has no ``gen_ai.operation.name`` and no usage: a backend that adds these up counts each call once,
with the attempt that has served it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxyd.redaction import redacted
from proxyd.telemetry.call_trace import AttemptTrace
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.otel import conventions as names
from proxyd.telemetry.otel.trace_context import TraceContext
from proxyd.telemetry.otel.traced_call import TracedCall

__all__ = ["OWN_KINDS", "Attributes", "SpanData", "attempt_attributes", "spans_of", "trace_of"]

Attributes = dict[str, "str | int | float | bool | tuple[str, ...]"]

#: Calls that the proxy makes for itself: they come from no client.
OWN_KINDS = frozenset({"auto_mode", "image", "searching"})
#: Paths that have a name of their own; those of models hold whatever a client asks for.
_ROUTES = frozenset({"/v1/messages", "/v1/messages/count_tokens"})
_PORTS = {"http": 80, "https": 443}
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SpanData:
    """A span that is over.

    Attributes:
        parent: None for the first of its trace.
        is_parent_remote: the parent is in another process.
        kind: name of a member of the SDK's ``SpanKind``.
        start_ns, end_ns: Unix time.
    """

    name: str
    context: TraceContext
    parent: TraceContext | None
    is_parent_remote: bool
    kind: str
    start_ns: int
    end_ns: int
    has_failed: bool
    attributes: Attributes


def trace_of(call: FinishedCall) -> TracedCall | None:
    """Return the trace of a call that began while spans are sent."""
    trace = call.trace or call.outline
    return trace if isinstance(trace, TracedCall) else None


def spans_of(call: FinishedCall, provider_of: Callable[[str, str], str]) -> list[SpanData]:
    """Return the spans of a call, the first of them its own; none if it is not sampled.

    Args:
        provider_of: id of an entry and URL -> name of the profile.
    """
    trace = trace_of(call)
    if trace is None or not trace.context.is_sampled:
        return []

    def unix_ns(moment: float) -> int:
        return int((call.started_at + moment - call.begun) * _NS)

    method, path = trace.head[0], urlsplit(trace.head[1]).path
    is_known = path in _ROUTES
    own = SpanData(
        name=f"{method} {path}" if is_known else method,
        context=trace.context,
        parent=trace.parent,
        is_parent_remote=call.kind not in OWN_KINDS,
        kind="INTERNAL" if call.kind in OWN_KINDS else "SERVER",
        start_ns=unix_ns(call.begun),
        end_ns=unix_ns(call.ended),
        has_failed=call.status >= 500 or call.outcome in ("failed", "crashed"),
        attributes=_call_attributes(call, method, path, is_known=is_known),
    )
    spans = [own]
    last = len(trace.attempts) - 1
    # Of attempts that are only counted there are ids alone.
    for number, (attempt, span_id) in enumerate(zip(trace.attempts, trace.attempt_ids, strict=False)):
        attributes = attempt_attributes(call, attempt, provider_of)
        if number:
            attributes[names.RESEND_COUNT] = number
        if number == last:
            attributes.update(_result_attributes(call, attempt))
        spans.append(
            SpanData(
                name=f"{names.CHAT} {attempt.model}",
                context=TraceContext(trace.context.trace_id, span_id, True, trace.context.state),
                parent=trace.context,
                is_parent_remote=False,
                kind="CLIENT",
                start_ns=unix_ns(attempt.sent_at),
                end_ns=unix_ns(attempt.ended_at or call.ended),
                has_failed=names.ERROR_TYPE in attributes,
                attributes=attributes,
            )
        )
    return spans


def _call_attributes(call: FinishedCall, method: str, path: str, *, is_known: bool) -> Attributes:
    found: Mapping[str, str | int | float | None] = {
        names.REQUEST_METHOD: method,
        names.ROUTE: path if is_known else None,
        names.URL_PATH: redacted(path),
        names.STATUS_CODE: call.status or None,
        names.ERROR_TYPE: call.error_type,
        names.REQUEST_MODEL: call.model,
        names.CONVERSATION_ID: call.session_id,
        names.REQUEST_ID: call.request_id,
        names.MODEL_ROUTE: call.route or None,
        names.MODE: call.mode or None,
        names.KIND: call.kind,
        names.OUTCOME: call.outcome,
        names.CALLER: call.caller,
        names.TEAM: call.team,
        names.RETRIES: call.retries or None,
        names.FALLBACK_FROM: call.fallback_from,
        names.RULE: call.rule,
        names.SERVED_WITH: call.served_with,
        names.AGENT_TYPE: call.agent_type,
        names.PROMPT_ID: call.prompt_id,
        names.COST_USD: call.cost_usd,
    }
    return {name: value for name, value in found.items() if value is not None}


def attempt_attributes(
    call: FinishedCall, attempt: AttemptTrace, provider_of: Callable[[str, str], str]
) -> Attributes:
    """Return what is known of an attempt whatever its result."""
    method, url = attempt.request
    parts = urlsplit(url)
    found: Mapping[str, str | int | bool | None] = {
        names.OPERATION_NAME: names.CHAT,
        names.PROVIDER_NAME: names.provider_name(provider_of(attempt.route, url)),
        names.REQUEST_MODEL: attempt.model,
        names.REQUEST_STREAM: call.is_stream,
        names.CONVERSATION_ID: call.session_id,
        names.SERVER_ADDRESS: parts.hostname,
        names.SERVER_PORT: parts.port or _PORTS.get(parts.scheme),
        names.REQUEST_METHOD: method,
        names.STATUS_CODE: attempt.status or None,
        names.ERROR_TYPE: attempt.error_type,
        names.MODEL_ROUTE: attempt.route,
        names.MODE: attempt.mode,
    }
    return {name: value for name, value in found.items() if value is not None}


def _result_attributes(call: FinishedCall, attempt: AttemptTrace) -> Attributes:
    """Return what is known of the response that the client was sent."""
    found: Attributes = {}
    usage = call.usage
    if usage.total_input_tokens or usage.output_tokens:
        found[names.INPUT_TOKENS] = usage.total_input_tokens
        found[names.OUTPUT_TOKENS] = usage.output_tokens
        found[names.CACHE_READ_TOKENS] = usage.cache_read_tokens
        found[names.CACHE_CREATION_TOKENS] = usage.cache_write_tokens
        if usage.reasoning_tokens is not None:
            found[names.REASONING_TOKENS] = usage.reasoning_tokens
        if usage.is_estimated:
            found[names.IS_ESTIMATED] = True
    if call.stop_reason is not None:
        found[names.FINISH_REASONS] = (call.stop_reason,)
    if call.response_model is not None:
        found[names.RESPONSE_MODEL] = call.response_model
    if call.upstream_request_id is not None:
        found[names.UPSTREAM_REQUEST_ID] = call.upstream_request_id
    if call.is_stream and attempt.flow.first_at is not None:
        found[names.TIME_TO_FIRST_CHUNK] = attempt.flow.first_at - attempt.sent_at
    return found
