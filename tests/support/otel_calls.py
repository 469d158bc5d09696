"""Finished calls that have spans."""

from __future__ import annotations

from typing import Any

from proxyd.telemetry.finished_call import FinishedCall
from proxyd.telemetry.otel.traced_call import TracedCall
from tests.support.observing import finished

__all__ = ["traced_call"]


def traced_call(
    attempts: int = 1, *, sample: float = 1.0, body: bytes | None = None, **fields: Any
) -> FinishedCall:
    """A finished call with so many attempts, the last of which has served it.

    Args:
        body: the client's, of a call whose content is sent.
        fields: as for `finished`.
    """
    trace = TracedCall(None, 0, {}, sample, body)
    trace.head = "POST", "/v1/messages", {}
    url = "https://up.example:8443/v1/messages"
    for number in range(attempts):
        is_last = number == attempts - 1
        trace.on_sent(
            ("POST", url), trace.headers_of_attempt({}), b"{}", route="m", mode="direct", model="up"
        )
        trace.on_response_head(200 if is_last else 503, ())
        trace.on_chunk(b"data: {}\n\n")
        trace.on_over(None if is_last else "overloaded_error")
        each = trace.attempts[-1]
        # Times of the call that `finished` makes, which lasts from 10 to 12.
        each.sent_at, each.head_at, each.ended_at = (
            10.1 + number / 10,
            10.15 + number / 10,
            10.2 + number / 10,
        )
        each.flow.first_at = each.sent_at + 0.0625
    return finished(trace=trace, is_stream=True, **fields)
