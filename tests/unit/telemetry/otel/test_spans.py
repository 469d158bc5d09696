"""The spans of finished calls that no test with sockets covers."""

from __future__ import annotations

from typing import Any

from proxyd.codecs.anthropic.usage import Usage
from proxyd.store.virtual_keys import VirtualKey
from proxyd.telemetry.call_trace import CallTrace
from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.otel import conventions as names
from proxyd.telemetry.otel.spans import SpanData, spans_of
from proxyd.telemetry.otel.traced_call import TracedCall
from tests.support.observing import finished
from tests.support.otel_calls import traced_call


def spans(call: FinishedCall) -> list[SpanData]:
    return spans_of(call, lambda route, url: f"{route}-vendor")


def test_times_are_unix_times_within_the_call() -> None:
    own, attempt = spans(traced_call(started_at=1_000.0))
    assert (own.start_ns, own.end_ns) == (1_000_000_000_000, 1_002_000_000_000)
    assert own.start_ns <= attempt.start_ns <= attempt.end_ns <= own.end_ns
    assert attempt.parent == own.context


def test_the_result_of_a_call_is_in_its_last_attempt() -> None:
    call = traced_call(2, usage=Usage(100, 20, 300, 40, 5, is_estimated=True), upstream_request_id="req_up")
    first, last = (each.attributes for each in spans(call)[1:])
    assert names.INPUT_TOKENS not in first
    found = {name: last[name] for name in (names.INPUT_TOKENS, names.OUTPUT_TOKENS, names.CACHE_READ_TOKENS)}
    assert found == {names.INPUT_TOKENS: 440, names.OUTPUT_TOKENS: 20, names.CACHE_READ_TOKENS: 300}
    assert last[names.CACHE_CREATION_TOKENS] == 40
    assert last[names.REASONING_TOKENS] == 5
    assert last[names.IS_ESTIMATED] is True
    assert last[names.FINISH_REASONS] == ("end_turn",)
    assert last[names.PROVIDER_NAME] == "m-vendor"
    assert (names.RESEND_COUNT in first, last[names.RESEND_COUNT]) == (False, 1)


def test_failures() -> None:
    def own(**fields: Any) -> SpanData:
        return spans(traced_call(**fields))[0]

    assert own(status=529, outcome="refused", error_type="overloaded_error").has_failed
    assert own(status=200, outcome="failed", error_type="api_error").has_failed
    # A client's own mistake is no failure of the server; that it left is none of anybody.
    refused = own(status=400, outcome="refused", error_type="invalid_request_error")
    assert not refused.has_failed
    assert refused.attributes[names.ERROR_TYPE] == "invalid_request_error"
    assert not own(outcome="client_gone").has_failed


def test_a_virtual_key_is_known_by_its_name_alone() -> None:
    key = VirtualKey("the-id", "alice", "the-digest", 0.0, team="blue")
    attributes = spans(traced_call(virtual_key=key))[0].attributes
    assert (attributes[names.CALLER], attributes[names.TEAM]) == ("alice", "blue")
    assert not {"the-id", "the-digest"} & set(attributes.values())


def test_calls_without_spans() -> None:
    assert spans(finished()) == []
    assert spans(finished(trace=CallTrace())) == []
    assert spans(finished(trace=TracedCall(None, 0, {}, sample=0.0))) == []


def test_a_path_that_holds_what_a_client_asks_for_is_no_name() -> None:
    trace = TracedCall(None, 0, {}, sample=1.0)
    trace.head = "GET", "/v1/models/any-name?key=sk-not-shown", {}
    (own,) = spans(finished(trace=trace))
    assert own.name == "GET"
    assert names.ROUTE not in own.attributes
    assert own.attributes[names.URL_PATH] == "/v1/models/any-name"


def test_a_call_of_the_proxys_own_comes_from_no_client() -> None:
    own = spans(traced_call(kind="auto_mode"))[0]
    assert (own.kind, own.is_parent_remote) == ("INTERNAL", False)
