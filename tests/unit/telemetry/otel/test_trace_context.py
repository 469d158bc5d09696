"""Trace context in headers: what W3C Trace Context calls valid is taken, everything else begins a new trace."""

from __future__ import annotations

from multidict import CIMultiDict

from proxyd.telemetry.otel.trace_context import TraceContext, context_in, new_context
from tests.support.rows import check_rows

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_what_is_written_is_what_was_read() -> None:
    head = CIMultiDict({"Traceparent": GOOD, "TraceState": "vendor=1,other=x y"})
    context = context_in(head)
    assert context == TraceContext(int(TRACE, 16), int(SPAN, 16), True, "vendor=1,other=x y")
    assert context.headers == {"traceparent": GOOD, "tracestate": "vendor=1,other=x y"}
    child = context.child()
    assert (child.trace_id, child.state) == (context.trace_id, context.state)
    assert child.span_id != context.span_id


#: Value of traceparent -> whether it is sampled, None for one that is not valid.
VALUES = {
    GOOD: True,
    f"00-{TRACE}-{SPAN}-00": False,
    f"00-{TRACE}-{SPAN}-ff": True,
    f"cc-{TRACE}-{SPAN}-01-of-a-later-version": True,
    f"00-{TRACE}-{SPAN}-01-more": None,
    f"ff-{TRACE}-{SPAN}-01": None,
    f"00-{'0' * 32}-{SPAN}-01": None,
    f"00-{TRACE}-{'0' * 16}-01": None,
    f"00-{TRACE.upper()}-{SPAN}-01": None,
    f"00-{TRACE}-{SPAN}": None,
    f"{GOOD},{GOOD}": None,
    "": None,
    "\u0660" * 55: None,
}


def test_a_traceparent_that_is_not_valid_is_left_out() -> None:
    def check(value: str) -> None:
        context = context_in({"traceparent": value})
        assert (None if context is None else context.is_sampled) == VALUES[value]

    check_rows(VALUES, check)
    assert context_in({}) is None
    assert context_in(CIMultiDict([("traceparent", GOOD), ("traceparent", GOOD)])) is None


def test_a_tracestate_that_is_not_valid_is_left_out_alone() -> None:
    def state(*values: str) -> str:
        pairs = [("traceparent", GOOD), *(("tracestate", value) for value in values)]
        context = context_in(CIMultiDict(pairs))
        assert context is not None
        return context.state

    assert state("a=1", "b=2") == "a=1,b=2"
    assert state(f"a={'x' * 200},b={'x' * 200}") != ""
    for bad in ("no pair", "a=\x01", "A=1", "a=1=2", ",".join(f"k{n}={'x' * 30}" for n in range(20))):
        assert state(bad) == ""


def test_a_share_of_the_traces_is_sampled() -> None:
    assert all(new_context(1.0).is_sampled for _ in range(50))
    assert not any(new_context(0.0).is_sampled for _ in range(50))
    some = [new_context(0.5) for _ in range(400)]
    assert 100 < sum(each.is_sampled for each in some) < 300  # 10 standard deviations
    assert len({each.trace_id for each in some}) == 400
