"""A call that is over, as its observers are notified of it: log line, ledger, metrics, live feed, records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter

from proxyd.codecs.anthropic.usage import Usage
from proxyd.codecs.translation.translation_notes import Note
from proxyd.config.routes import Pricing
from proxyd.telemetry.call_record import UPSTREAM_TEXTS, CallRecord, masked_texts
from proxyd.telemetry.call_trace import CallTrace

__all__ = ["FinishedCall"]


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """What is known of a finished call; nothing changes it. Its texts hold no key. See `CallRecord` for the fields.

    Attributes:
        cache_break: why fewer tokens were read from the cache than by the call before.
    """

    request_id: str
    model: str = ""
    route: str = ""
    mode: str = ""
    upstream_model: str = ""
    fallback_from: str | None = None
    kind: str = "main"
    pricing: Pricing | None = None
    is_stream: bool = False
    session_id: str | None = None
    agent_id: str | None = None
    client_request_id: str | None = None
    upstream_request_id: str | None = None
    response_model: str | None = None
    address: str | None = None
    status: int = 0
    outcome: str = "ok"
    error_type: str | None = None
    error: str | None = None
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    estimated_input_tokens: int | None = None
    estimated_tool_tokens: int = 0
    retries: int = 0
    events: int = 0
    codec_s: float = 0.0
    trace: CallTrace | None = None
    outline: CallTrace | None = None
    cache_break: str | None = None
    rule: str | None = None
    agent_type: str | None = None
    prompt_id: str | None = None
    served_with: str | None = None
    caller: str | None = None
    team: str | None = None
    client_address: str | None = None
    safeguards: str | None = None
    alterations: Sequence[Note] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    started_at: float = 0.0
    begun: float = 0.0
    first_byte: float | None = None
    ended: float = 0.0

    @classmethod
    def of(cls, record: CallRecord, cache_break: str | None = None) -> FinishedCall:
        """Freeze `record`, whose call has ended. Keys are masked while they are known: observers keep it for longer."""
        values = dict(zip(_TAKEN, _taken(record), strict=True))
        values.update(masked_texts(record, UPSTREAM_TEXTS))
        return cls(**values, cache_break=cache_break)

    @property
    def ttfb_s(self) -> float | None:
        return None if self.first_byte is None else self.first_byte - self.begun

    @property
    def cost_usd(self) -> float | None:
        """The cost by the entry's ``pricing``; None where a price that it needs is unknown."""
        return None if self.pricing is None else self.pricing.cost_of(self.usage)

    @property
    def duration_s(self) -> float:
        return self.ended - self.begun


_TAKEN = tuple(each.name for each in fields(FinishedCall) if each.name != "cache_break")
_taken = attrgetter(*_TAKEN)
