"""The access log: one event a call with all of its facts, and redacted like any other."""

from __future__ import annotations

import json

from structlog.testing import capture_logs

from proxyd.codecs.anthropic.usage import Usage
from proxyd.config.routes import Pricing
from proxyd.secret import Secret
from proxyd.telemetry.access_log import call_facts, log_calls
from tests.support.log_text import logging_to_text
from tests.support.observing import SESSION, finished


def test_event_of_an_ordinary_call() -> None:
    with logging_to_text() as log:
        log_calls([finished(retries=1, usage=Usage(10, 2, 30, 0, 1, True), is_stream=True)])
        (line,) = map(json.loads, log.lines())
    assert line["event"] == "call.finished"
    assert line["level"] == "info"
    expected = {
        "request_id": "req_test", "route": "m", "mode": "translated", "kind": "main", "status": 200,
        "outcome": "ok", "ttfb_ms": 250, "duration_ms": 2000, "input_tokens": 10, "output_tokens": 2,
        "cache_read_tokens": 30, "reasoning_tokens": 1, "usage_is_estimated": True, "retries": 1,
        "stop_reason": "end_turn", "session_id": SESSION,
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert "client_gone" not in line


def test_timestamp_is_the_end_of_the_call() -> None:
    with logging_to_text() as log:
        log_calls([finished(started_at=1_600_000_000.0)])  # it took two seconds
        (line,) = map(json.loads, log.lines())
    assert line["timestamp"] == "2020-09-13T12:26:42.000000Z"
    assert "ended_at" not in line


def test_failures_are_warnings() -> None:
    with logging_to_text("warning") as log:
        log_calls(
            [
                finished(),
                finished(outcome="client_gone"),
                finished(outcome="failed", error_type="api_error"),
            ]
        )
        (line,) = map(json.loads, log.lines())
    assert (line["level"], line["outcome"]) == ("warning", "failed")


#: A call with every field, in texts that JSON has to escape.
FULL = finished(
    model='"\\\n\u2028\ud800ä',
    outcome="client_gone",
    pricing=Pricing(10_000, 0, 0, 0),  # one dollar, which is no True
    usage=Usage(100, 20, 300, 7, 5, True),
    is_stream=True,
    fallback_from="m2",
    cache_break="tools",
    client_request_id="c-1",
    upstream_request_id="u-1",
    error_type="api_error",
    error="no\tmore" * 100,
)
FACTS = {
    "request_id": "req_test", "model": '"\\\n\u2028\ud800ä', "route": "m", "mode": "translated", "kind": "main",
    "status": 200, "outcome": "client_gone", "stream": True, "duration_ms": 2000, "bytes_in": 0, "bytes_out": 0,
    "events": 0, "input_tokens": 100, "cache_read_tokens": 300, "cache_write_tokens": 7, "output_tokens": 20,
    "retries": 0, "ttfb_ms": 250, "reasoning_tokens": 5, "usage_is_estimated": True, "client_gone": True,
    "cost_usd": 1.0, "stop_reason": "end_turn", "cache_break": "tools", "fallback_from": "m2", "session_id": SESSION,
    "upstream_request_id": "u-1", "client_request_id": "c-1", "error_type": "api_error", "error": "no\tmore" * 100,
}  # fmt: skip


def test_all_fields() -> None:
    with logging_to_text() as log:
        log_calls([FULL, finished(model="m" * 5000)])
        line, long_line = map(json.loads, log.lines())
    when = {"timestamp": line["timestamp"]}
    assert line == {**FACTS, "event": "call.finished", "part": "call", "level": "info", **when}
    assert long_line["model"] == "m" * 200
    assert call_facts(FULL) == FACTS


def test_captured_events_have_the_same_fields() -> None:
    with capture_logs() as events:
        log_calls([FULL])
    (event,) = events
    ended_at = FULL.started_at + FULL.duration_s
    assert event == {
        **FACTS, "event": "call.finished", "part": "call", "log_level": "info", "ended_at": ended_at
    }  # fmt: skip


def test_keys_are_masked() -> None:
    key = Secret('quoted"key\\of-a-client')
    with logging_to_text() as log:
        log_calls(
            [
                finished(),
                finished(error=f"the upstream says {key.reveal()}"),
                finished(error="sk-abcdefgh12345"),
            ]
        )
        lines = log.lines()
    assert [json.loads(line).get("error") for line in lines] == [None, "the upstream says ***", "***"]
    assert not any("of-a-client" in line or "abcdefgh" in line for line in lines)
