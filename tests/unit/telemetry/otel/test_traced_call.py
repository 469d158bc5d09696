"""The trace of a call with spans: whose context it continues, and what its attempts are sent."""

from __future__ import annotations

from proxyd.telemetry.otel.trace_context import context_in
from proxyd.telemetry.otel.traced_call import TracedCall

PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "tracestate": "a=1"}


def test_the_clients_trace_and_decision_go_on() -> None:
    call = TracedCall(None, 0, PARENT, sample=1.0)
    parent = context_in(PARENT)
    assert parent is not None
    assert call.parent == parent
    assert call.context.trace_id == parent.trace_id
    assert not call.context.is_sampled
    assert TracedCall(None, 0, {}, sample=1.0).parent is None


def test_each_attempt_is_sent_a_context_of_its_own_in_place_of_the_clients() -> None:
    call = TracedCall(None, 0, PARENT, sample=1.0)
    sent = [call.headers_of_attempt({"x-api-key": "k", **PARENT}) for _ in range(2)]
    contexts = [context_in(each) for each in sent]
    assert [each.span_id for each in contexts if each is not None] == call.attempt_ids
    assert len({call.context.span_id, *call.attempt_ids}) == 3
    assert sent[0].keys() == {"x-api-key", "traceparent", "tracestate"}
    # Where the client has none, none is made up.
    without = TracedCall(None, 0, {}, sample=1.0).headers_of_attempt({"tracestate": "stray=1"})
    assert without.keys() == {"traceparent"}


def test_a_call_made_for_another_is_within_it() -> None:
    outer = TracedCall(None, 0, {}, sample=0.0)
    inner = TracedCall(None, 0, outer.context_headers, sample=1.0)
    assert inner.parent == outer.context
    assert not inner.context.is_sampled
