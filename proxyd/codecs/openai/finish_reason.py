"""Map finish reasons, and the fields that servers add to them, to ``stop_reason``.

See docs/spec/chat-to-messages.md#stop-reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from proxyd.codecs.openai.codec import Warn
from proxyd.codecs.openai.errors import ErrorContext, refusal_from_chunk
from proxyd.errors import Overloaded, UpstreamError

__all__ = ["FAILURES", "STOP_REASONS", "FinishReason"]

#: finish_reason -> stop_reason. Others are read as ``stop``.
STOP_REASONS = {
    "stop": "end_turn",
    "eos": "end_turn",
    "end_turn": "end_turn",
    "complete": "end_turn",
    "tool_calls": "end_turn",  # becomes tool_use if there is a call
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

#: finish_reason -> error, where it means that the upstream failed
FAILURES: dict[str, Callable[[str], Exception]] = {
    "error": UpstreamError,
    "network_error": UpstreamError,
    "abort": UpstreamError,
    "insufficient_system_resource": Overloaded,
}

_REFUSAL_DETAILS = {"type": "refusal", "category": None, "explanation": None}


class FinishReason:
    """The finish reason of one message, with the fields beside it.

    Attributes:
        has_refusal: the model refused in a field of its own, which counts more than any finish reason.
    """

    __slots__ = ("_matched", "_reason", "has_refusal")

    def __init__(self) -> None:
        self._reason: str | None = None
        self._matched: str | None = None
        self.has_refusal = False

    @property
    def is_known(self) -> bool:
        """A finish reason was received."""
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
            stop_sequences: those of the client's request.
            errors: for the text of an error beside the reason.

        Raises:
            ProxyError: it is the first finish reason, and means that the upstream failed.
        """
        # Gateways forward Gemini's own values, which are the same in capitals.
        reason = reason.lower()
        failure = FAILURES.get(reason)
        if failure is not None:
            if self._reason is not None:
                return  # the message was complete
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

    def may_cut_call(self, stop_sequences: Collection[str]) -> bool:
        """Whether the reason explains a tool call without its end: the text was cut, or ended at a stop sequence.

        Few servers say that a stop sequence matched, so a plain stop counts where the request has any.
        """
        if self._matched is not None or self.has_refusal:
            return True
        stop_reason = STOP_REASONS.get(self._reason or "")
        return stop_reason not in (None, "end_turn") or (
            self._reason in _PLAIN_STOPS and bool(stop_sequences)
        )

    def message_delta(
        self, *, has_calls: bool, has_cut_call: bool, stop_sequences: Collection[str]
    ) -> dict[str, Any]:
        """Return the ``delta`` of ``message_delta``.

        Args:
            has_calls: the message has a tool call. Claude Code runs tools by the blocks, whatever the stop reason says.
            has_cut_call: one of them has no end.
            stop_sequences: those of the client's request.
        """
        reason = STOP_REASONS.get(self._reason or "stop", "end_turn")
        if self.has_refusal:
            reason = "refusal"
        delta: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None}
        if reason == "refusal":
            delta["stop_details"] = dict(_REFUSAL_DETAILS)
        elif reason == "end_turn":
            is_at_sequence = self._matched is not None
            if has_cut_call and self.may_cut_call(stop_sequences):
                is_at_sequence = True
            elif has_calls:
                delta["stop_reason"] = "tool_use"
                return delta
            if is_at_sequence:
                delta["stop_reason"] = "stop_sequence"
                delta["stop_sequence"] = self._matched or (
                    next(iter(stop_sequences)) if len(stop_sequences) == 1 else None
                )
        return delta
