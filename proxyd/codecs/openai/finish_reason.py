"""Why an answer stopped: finish reasons, and what servers say beside them, as ``stop_reason``.

See docs/spec/chat-to-messages.md#stop-reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from proxyd.codecs.openai.codec import Warn
from proxyd.codecs.openai.errors import ErrorContext, refusal_from_chunk
from proxyd.errors import Overloaded, UpstreamError

__all__ = ["FAILURES", "STOP_REASONS", "Stop"]

#: finish_reason -> stop_reason. What is not here is taken as ``stop``.
STOP_REASONS = {
    "stop": "end_turn",
    "eos": "end_turn",
    "end_turn": "end_turn",
    "complete": "end_turn",
    "tool_calls": "end_turn",  # becomes tool_use when a call was really made
    "function_call": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "max_tokens",
    "repetition_truncation": "max_tokens",
    "content_filter": "refusal",
    "sensitive": "refusal",
    "safety": "refusal",
    "model_context_window_exceeded": "model_context_window_exceeded",
}

#: Reasons that a later, different one replaces.
_PLAIN_STOPS = frozenset({"stop", "eos", "end_turn", "complete"})

#: finish reasons that say the upstream failed
FAILURES: dict[str, Callable[[str], Exception]] = {
    "error": UpstreamError,
    "network_error": UpstreamError,
    "abort": UpstreamError,
    "insufficient_system_resource": Overloaded,
}

_REFUSAL_DETAILS = {"type": "refusal", "category": None, "explanation": None}


class Stop:
    """What has been said of it so far.

    Attributes:
        has_refusal: the model refused in so many words; whatever reason is given then.
    """

    __slots__ = ("_matched", "_reason", "has_refusal")

    def __init__(self) -> None:
        self._reason: str | None = None
        self._matched: str | None = None
        self.has_refusal = False

    @property
    def is_known(self) -> bool:
        """A finish reason has come."""
        return self._reason is not None

    def add(
        self,
        reason: str,
        choice: dict[str, Any],
        chunk: dict[str, Any],
        *,
        stop_sequences: Collection[str],
        errors: ErrorContext,
        warn: Warn,
    ) -> None:
        """Take the finish reason of a choice.

        Args:
            stop_sequences: what the client asked to stop at.
            errors: for reading an error that stands beside the reason.

        Raises:
            ProxyError: it says that the upstream failed, before any other.
        """
        # Gateways pass Gemini's own words on, which are the same in capitals.
        reason = reason.lower()
        failure = FAILURES.get(reason)
        if failure is not None:
            if self._reason is not None:
                return  # the answer was whole
            inner = choice.get("error") or chunk.get("error")
            raise (
                refusal_from_chunk(inner, errors)
                if inner
                else failure(f"the upstream stopped with finish_reason {reason}")
            )
        if reason not in STOP_REASONS:
            warn("stream.unknown_finish_reason")
        if self._reason is None or self._reason in _PLAIN_STOPS or self._reason not in STOP_REASONS:
            self._reason = reason
        for matched in (choice.get("stop_reason"), choice.get("matched_stop")):  # vLLM, SGLang
            if isinstance(matched, str) and matched in stop_sequences:
                self._matched = matched

    def delta(self, *, has_calls: bool) -> dict[str, Any]:
        """The ``delta`` of ``message_delta``.

        Args:
            has_calls: a tool call was made, which is what Claude Code goes by.
        """
        reason = STOP_REASONS.get(self._reason or "stop", "end_turn")
        if self.has_refusal:
            reason = "refusal"
        delta: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None}
        if reason == "refusal":
            delta["stop_details"] = dict(_REFUSAL_DETAILS)
        elif reason == "end_turn":
            if has_calls:
                delta["stop_reason"] = "tool_use"
            elif self._matched is not None:
                delta["stop_reason"] = "stop_sequence"
                delta["stop_sequence"] = self._matched
        return delta
