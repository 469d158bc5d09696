"""Trace context as the headers ``traceparent`` and ``tracestate`` carry it (W3C Trace Context, level 2)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from multidict import MultiMapping

__all__ = ["TraceContext", "context_in", "new_context", "new_span_id"]

#: Version 00; a later one may have more fields behind these (section 4.3 of the recommendation).
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 0x01
#: Longest tracestate that is passed on; the recommendation asks for 512 at least.
_MAX_STATE_CHARS = 512
_MEMBER = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span and its trace.

    Attributes:
        state: value of ``tracestate``, as it was received; "" for none.
    """

    trace_id: int
    span_id: int
    is_sampled: bool
    state: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that is a part of this span."""
        parent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.is_sampled:02x}"
        return {"traceparent": parent, "tracestate": self.state} if self.state else {"traceparent": parent}

    def child(self) -> TraceContext:
        """Return the context of a new span within this one."""
        return replace(self, span_id=new_span_id())


def context_in(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the context in a request's head; None where there is none that is valid."""
    match = _TRACEPARENT.fullmatch(",".join(_values(headers, "traceparent")).strip())
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["more"]):
        return None
    trace_id, span_id = int(match["trace"], 16), int(match["span"], 16)
    if not trace_id or not span_id:
        return None
    state = ",".join(_values(headers, "tracestate"))
    return TraceContext(
        trace_id,
        span_id,
        is_sampled=bool(int(match["flags"], 16) & _SAMPLED),
        state=state if _is_state(state) else "",
    )


def new_context(sample: float) -> TraceContext:
    """Return the context of a new trace.

    Args:
        sample: share of the traces that are sampled.
    """
    trace_id = int.from_bytes(secrets.token_bytes(16), "big") or 1
    # As the SDK's TraceIdRatioBased: other services with the same share decide alike.
    return TraceContext(trace_id, new_span_id(), is_sampled=trace_id % (1 << 64) < round(sample * (1 << 64)))


def new_span_id() -> int:
    """Return a random id, which is never 0."""
    return int.from_bytes(secrets.token_bytes(8), "big") or 1


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    if isinstance(headers, MultiMapping):
        return list(headers.getall(name, []))
    return [headers[name]] if name in headers else []


def _is_state(state: str) -> bool:
    members = [member.strip(" \t") for member in state.split(",")]
    return len(state) <= _MAX_STATE_CHARS and all(_MEMBER.fullmatch(member) for member in members if member)
