"""The trace of a call that has spans: it takes the context of the client's request and passes it to each upstream."""

from __future__ import annotations

from collections.abc import Mapping

from proxyd.telemetry.call_trace import CallTrace
from proxyd.telemetry.otel.content import CallContent
from proxyd.telemetry.otel.trace_context import TraceContext, context_in, new_context

__all__ = ["TracedCall"]


class TracedCall(CallTrace):
    """A `CallTrace` with the identities of the spans.

    Args:
        headers: of the client's request.
        sample: share of the calls that have spans, of those whose client does not decide it.
        body: the client's, where what is said in the call is sent, too; else None.

    Attributes:
        parent: the client's span; None for a call that begins a trace.
        context: the call's own span.
        attempt_ids: ids of the spans of the attempts, in order, also of those that are only counted.
        content: what is said in the call; None where it is not sent.
    """

    __slots__ = ("attempt_ids", "content", "context", "parent")

    def __init__(
        self,
        in_force: object,
        body_size: int,
        headers: Mapping[str, str],
        sample: float,
        body: bytes | None = None,
    ) -> None:
        super().__init__(in_force, body_size)
        self.parent = context_in(headers)
        self.context: TraceContext = new_context(sample) if self.parent is None else self.parent.child()
        self.attempt_ids: list[int] = []
        self.content = None if body is None or not self.context.is_sampled else CallContent(body)

    def headers_of_attempt(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of an attempt, with the context of its own span in place of the client's."""
        context = self.context.child()
        self.attempt_ids.append(context.span_id)
        kept = {name: value for name, value in headers.items() if name not in ("traceparent", "tracestate")}
        return {**kept, **context.headers}

    @property
    def context_headers(self) -> Mapping[str, str]:
        return self.context.headers

    def on_written(self, data: bytes) -> None:
        super().on_written(data)
        if self.content is not None:
            self.content.add(data)
