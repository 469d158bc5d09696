"""The access log: one ``call.finished`` event for each call, with everything that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxyd.logs.setup import get_logger
from proxyd.telemetry.finished_call import FinishedCall

__all__ = ["call_facts", "log_calls"]

log = get_logger("call")

#: Texts that many calls do not have, by the names of `FinishedCall`.
_OPTIONAL = (
    "stop_reason",
    "cache_break",
    "rule",
    "agent_type",
    "prompt_id",
    "safeguards",
    "served_with",
    "caller",
    "team",
    "client_address",
    "fallback_from",
    "session_id",
    "upstream_request_id",
    "client_request_id",
    "address",
    "error_type",
    "error",
)


def log_calls(records: Sequence[FinishedCall]) -> None:
    """Log finished calls, each with the time at which it ended; failures at level warning."""
    bound = log.bind()  # once: each use of `log` itself makes a logger
    for record in records:
        method = bound.info if record.outcome in ("ok", "client_gone") else bound.warning
        method("call.finished", **call_facts(record), ended_at=record.started_at + record.duration_s)


def call_facts(record: FinishedCall) -> dict[str, Any]:
    """Everything that is known of a finished call, by the names of the log's fields."""
    usage = record.usage
    facts: dict[str, Any] = {
        "request_id": record.request_id,
        "model": record.model,
        "route": record.route,
        "mode": record.mode,
        "kind": record.kind,
        "status": record.status,
        "outcome": record.outcome,
        "stream": record.is_stream,
        "duration_ms": round(record.duration_s * 1000),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "events": record.events,
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "retries": record.retries,
    }
    if record.ttfb_s is not None:
        facts["ttfb_ms"] = round(record.ttfb_s * 1000)
    if usage.reasoning_tokens is not None:
        facts["reasoning_tokens"] = usage.reasoning_tokens
    if usage.is_estimated:
        facts["usage_is_estimated"] = True
    if record.outcome == "client_gone":
        facts["client_gone"] = True
    if record.cost_usd is not None:
        facts["cost_usd"] = record.cost_usd
    for name in _OPTIONAL:
        value = getattr(record, name)
        if value is not None:
            facts[name] = value
    return facts
