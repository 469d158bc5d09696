"""Map finish reasons, and the fields that servers add to them, to ``stop_reason``.

See docs/spec/chat-to-messages.md#stop-reasons.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from proxyd.codecs.codec import Warn
from proxyd.codecs.upstream_errors.errors import ErrorContext, refusal_from_chunk
from proxyd.errors import ProxyError, UpstreamError, UpstreamOverloaded

__all__ = ["FAILURES", "STOP_REASONS", "FinishReason"]

#: finish_reason, as `normalized` -> stop_reason.
STOP_REASONS = {
    "stop": "end_turn",
    "eos": "end_turn",
    "eos_token": "end_turn",  # TGI, watsonx
    "end_turn": "end_turn",
    "complete": "end_turn",  # Cohere
    "completed": "end_turn",
    "normal": "end_turn",  # Baidu
    "stop_sequence": "end_turn",
    "tool_calls": "end_turn",  # becomes tool_use if there is a call
    "tool_call": "end_turn",
    "tool_use": "end_turn",
    "function_call": "end_turn",
    "pause_turn": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_length": "max_tokens",
    "max_len": "max_tokens",  # xAI's gRPC
    "model_length": "max_tokens",  # Mistral
    "token_limit": "max_tokens",  # watsonx
    "limit": "max_tokens",  # older llama.cpp
    "repetition": "max_tokens",  # vLLM
    "repetition_truncation": "max_tokens",  # MiMo
    "incomplete": "max_tokens",
    "content_filter": "refusal",
    "content_filtered": "refusal",  # Bedrock
    "guardrail_intervened": "refusal",  # Bedrock
    "sensitive": "refusal",  # GLM, Hunyuan
    "refusal": "refusal",
    "error_toxic": "refusal",  # Cohere
    "safety": "refusal",  # this and the next: Gemini
    "recitation": "refusal",
    "blocklist": "refusal",
    "prohibited_content": "refusal",
    "spii": "refusal",
    "language": "refusal",
    "image_safety": "refusal",
    "image_prohibited_content": "refusal",
    "image_recitation": "refusal",
    "model_context_window_exceeded": "model_context_window_exceeded",  # GLM, Bedrock
    "context_length_exceeded": "model_context_window_exceeded",
    "max_context": "model_context_window_exceeded",  # xAI's gRPC
    "error_limit": "model_context_window_exceeded",  # Cohere
}

#: Reasons that a later, different one replaces.
_PLAIN_STOPS = frozenset({"stop", "eos", "eos_token", "end_turn", "complete", "completed", "normal"})

#: Values that stand for no finish reason, in every chunk but the last: DashScope, watsonx, Gemini.
_NONE = frozenset({"", "null", "none", "not_finished", "unspecified"})

#: finish_reason -> error, where it means that the upstream failed
FAILURES: dict[str, type[ProxyError]] = {
    "error": UpstreamError,
    "network_error": UpstreamError,  # GLM
    "server_error": UpstreamError,
    "internal_error": UpstreamError,
    "failed": UpstreamError,
    "abort": UpstreamError,  # vLLM, SGLang
    "aborted": UpstreamError,
    "cancelled": UpstreamError,
    "canceled": UpstreamError,
    "user_cancel": UpstreamError,  # Cohere
    "timeout": UpstreamError,
    "time_limit": UpstreamError,  # watsonx, xAI's gRPC
    "malformed_function_call": UpstreamError,  # this and the next: Gemini
    "malformed_response": UpstreamError,
    "unexpected_tool_call": UpstreamError,
    "too_many_tool_calls": UpstreamError,
    "missing_thought_signature": UpstreamError,
    "malformed_model_output": UpstreamError,  # Bedrock
    "malformed_tool_use": UpstreamError,
    "insufficient_system_resource": UpstreamOverloaded,  # DeepSeek
    "overloaded": UpstreamOverloaded,
}

#: The meaning of reasons that are in no table, by their words: the first match counts.
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?:{words})"), meaning)
    for words, meaning in (
        ("context|window|prompt_?(?:too_?)?long", "model_context_window_exceeded"),
        (
            "filter|safety|block|prohibit|sensitiv|guardrail|moderat|polic(?:y|ies)|refus|toxic|viol|harm|hate|jailbreak|armor",
            "refusal",
        ),
        (
            "error|fail|malform|abort|cancel|time_?out|time_?limit|rate_?limit|quota|overload|unavail|except|interrupt"
            "|invalid|crash|disconnect|reject|denied|kill|lost|corrupt|unexpected|preempt|evict|oom|out_of_memory|deadline"
            "|dead|closed|shut_?down|unreachable",
            "",
        ),
        (
            "limit|length|max_|truncat|cut_?off|budget|exceed|exhaust|too_many|incomplete|repetition|cache_full",
            "max_tokens",
        ),
    )
)

_REFUSAL_DETAILS = {"type": "refusal", "category": None, "explanation": None}


#: Characters of an unknown reason that are shown in an error.
_MAX_SHOWN = 80


def normalized(reason: str) -> str:
    """Return a finish reason as the tables have it: gateways forward Gemini's and others' own values in any case."""
    reason = re.sub(r"[\s-]+", "_", reason.strip().lower())
    return reason.removeprefix("finish_reason_").removeprefix("finishreason.").removeprefix("reason_")


def meaning_of_unknown(reason: str) -> str | None:
    """Return the stop reason that the words of an unknown finish reason mean; "" for a failure, None for neither."""
    return next((meaning for pattern, meaning in _WORDS if pattern.search(reason[:_MAX_SHOWN])), None)


def _shown(reason: str) -> str:
    return reason if re.fullmatch(rf"[\w.]{{1,{_MAX_SHOWN}}}", reason) else "of an unknown form"


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

    @property
    def is_unknown(self) -> bool:
        """The finish reason is in no table, and its words mean nothing known."""
        reason = self._reason
        return reason is not None and reason not in STOP_REASONS and meaning_of_unknown(reason) is None

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
        reason = normalized(reason)
        if reason in _NONE:
            return
        failure = FAILURES.get(reason)
        if failure is None and reason not in STOP_REASONS:
            warn("stream.unknown_finish_reason")
            if meaning_of_unknown(reason) == "":
                failure = UpstreamError
        if failure is not None:
            if self._reason is not None:
                return  # the message was complete
            inner = choice.get("error") or chunk.get("error")
            raise (
                refusal_from_chunk(inner, errors)
                if inner
                else failure(f"the upstream stopped with finish_reason {_shown(reason)}")
            )
        if self._reason is None or self._reason in _PLAIN_STOPS or self._reason not in STOP_REASONS:
            self._reason = reason
        for matched in (choice.get("stop_reason"), choice.get("matched_stop")):  # vLLM, SGLang
            if isinstance(matched, str) and matched in stop_sequences:
                self._matched = matched

    @property
    def _stop_reason(self) -> str:
        reason = self._reason or "stop"
        return STOP_REASONS.get(reason) or meaning_of_unknown(reason) or "end_turn"

    def may_cut_call(self, stop_sequences: Collection[str]) -> bool:
        """Whether the reason explains a tool call without its end: the text was cut, or ended at a stop sequence.

        Few servers say that a stop sequence matched, so a plain stop counts where the request has any.
        """
        if self._matched is not None or self.has_refusal:
            return True
        if self._stop_reason != "end_turn":
            return True
        return self._reason in _PLAIN_STOPS | {"stop_sequence"} and bool(stop_sequences)

    def message_delta(
        self, *, has_calls: bool, has_cut_call: bool, stop_sequences: Collection[str]
    ) -> dict[str, Any]:
        """Return the ``delta`` of ``message_delta``.

        Args:
            has_calls: the message has a tool call. Claude Code runs tools by the blocks, whatever the stop reason says.
            has_cut_call: one of them has no end.
            stop_sequences: those of the client's request.
        """
        reason = "refusal" if self.has_refusal else self._stop_reason
        delta: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None}
        if reason == "refusal":
            delta["stop_details"] = dict(_REFUSAL_DETAILS)
        elif reason == "end_turn":
            is_at_sequence = self._matched is not None or (
                self._reason == "stop_sequence" and bool(stop_sequences)
            )
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
