"""What a finished call adds to the metrics of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.otel import conventions as names
from proxyd.telemetry.otel.spans import OWN_KINDS, Attributes, attempt_attributes, trace_of

__all__ = ["INSTRUMENTS", "Instrument", "Measurement", "measurements_of"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """A histogram."""

    unit: str
    help: str
    buckets: tuple[float, ...]


#: By name.
INSTRUMENTS: Mapping[str, Instrument] = {
    names.CLIENT_TOKEN_USAGE: Instrument(
        "{token}", "Input and output tokens of a call.", names.TOKEN_BUCKETS
    ),
    names.CLIENT_DURATION: Instrument(
        "s", "Time from the request of an attempt to the end of its response.", names.DURATION_BUCKETS_S
    ),
    names.CLIENT_FIRST_CHUNK: Instrument(
        "s", "Time from the request of an attempt to the first chunk of its stream.", names.DURATION_BUCKETS_S
    ),
    names.SERVER_DURATION: Instrument("s", "Time of a client's call.", names.DURATION_BUCKETS_S),
    names.SERVER_FIRST_TOKEN: Instrument(
        "s", "Time from a client's request to the first byte of its stream.", names.FIRST_TOKEN_BUCKETS_S
    ),
    names.SERVER_PER_TOKEN: Instrument(
        "s", "Time per output token after the first of a client's stream.", names.PER_TOKEN_BUCKETS_S
    ),
}
#: Attributes of an attempt that metrics have, too.
_OF_ATTEMPT = (
    names.OPERATION_NAME,
    names.PROVIDER_NAME,
    names.REQUEST_MODEL,
    names.SERVER_ADDRESS,
    names.SERVER_PORT,
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value for an instrument."""

    instrument: str
    value: float
    attributes: Attributes


def measurements_of(call: FinishedCall, provider_of: Callable[[str, str], str]) -> list[Measurement]:
    """Return what a call adds; nothing for one that is no message, or has reached no upstream.

    Args:
        provider_of: as for `spans_of`.
    """
    trace = trace_of(call)
    if trace is None or call.kind == "count" or not trace.attempts:
        return []
    found: list[Measurement] = []
    labels: Attributes = {}
    for attempt in trace.attempts:
        attributes = attempt_attributes(call, attempt, provider_of)
        labels = {name: attributes[name] for name in _OF_ATTEMPT if name in attributes}
        timed = _with_error(labels, attempt.error_type)
        seconds = (attempt.ended_at or call.ended) - attempt.sent_at
        found.append(Measurement(names.CLIENT_DURATION, seconds, timed))
        if call.is_stream and attempt.error_type is None and attempt.flow.first_at is not None:
            first_s = attempt.flow.first_at - attempt.sent_at
            found.append(Measurement(names.CLIENT_FIRST_CHUNK, first_s, labels))
    usage = call.usage
    if usage.total_input_tokens or usage.output_tokens:
        for kind, tokens in (("input", usage.total_input_tokens), ("output", usage.output_tokens)):
            found.append(Measurement(names.CLIENT_TOKEN_USAGE, tokens, {**labels, names.TOKEN_TYPE: kind}))
    if call.kind not in OWN_KINDS:
        found += _of_client(call, labels)
    return found


def _of_client(call: FinishedCall, labels: Attributes) -> list[Measurement]:
    # The address is that of the upstream; the server of these metrics is claude-proxy itself.
    labels = {name: labels[name] for name in _OF_ATTEMPT[:3]}
    timed = _with_error(labels, call.error_type)
    found = [Measurement(names.SERVER_DURATION, call.duration_s, timed)]
    if call.outcome == "ok" and call.is_stream and call.ttfb_s is not None:
        found.append(Measurement(names.SERVER_FIRST_TOKEN, call.ttfb_s, labels))
        further = call.usage.output_tokens - 1
        if further > 0:
            seconds = (call.duration_s - call.ttfb_s) / further
            found.append(Measurement(names.SERVER_PER_TOKEN, seconds, labels))
    return found


def _with_error(labels: Attributes, error_type: str | None) -> Attributes:
    return labels if error_type is None else {**labels, names.ERROR_TYPE: error_type}
