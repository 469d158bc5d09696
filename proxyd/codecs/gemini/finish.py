"""Map the finish reasons of the Gemini API, and the reasons for which it blocks a prompt
(docs/spec/gemini.md#finish)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyd.codecs.openai.finish_reason import meaning_of_unknown, normalized
from proxyd.errors import ProxyError, Refused

__all__ = [
    "FAILED",
    "REASONS",
    "empty_response",
    "failure_of",
    "nameless_call",
    "refusal_details",
    "stop_reason_of",
]

#: Stop reason of a response that has failed.
FAILED = ""

#: ``finishReason`` -> stop reason.
REASONS: Mapping[str, str] = {
    "STOP": "end_turn",
    "MAX_TOKENS": "max_tokens",
    "SAFETY": "refusal",
    "RECITATION": "refusal",
    "LANGUAGE": "refusal",
    "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "SPII": "refusal",
    "IMAGE_SAFETY": "refusal",
    "IMAGE_PROHIBITED_CONTENT": "refusal",
    "IMAGE_RECITATION": "refusal",
    "IMAGE_OTHER": "refusal",
    "NO_IMAGE": "refusal",
    "MODEL_ARMOR": "refusal",
    "ESCALATION": "refusal",
    "MALFORMED_FUNCTION_CALL": FAILED,
    "UNEXPECTED_TOOL_CALL": FAILED,
    "TOO_MANY_TOOL_CALLS": FAILED,
    "MALFORMED_RESPONSE": FAILED,
    "MISSING_THOUGHT_SIGNATURE": FAILED,
    "OTHER": FAILED,
    "PUP_LIMITED_DISABLED": FAILED,
    "CONTINUATION": FAILED,
}
#: Values that stand for no reason.
_NONE = frozenset({"", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})

#: Characters of the vendor's words that are shown.
_MAX_WORDS = 500
#: Characters of a reason that are shown.
_MAX_REASON = 60


def stop_reason_of(reason: Any) -> str | None:
    """Return the stop reason for a ``finishReason``; `FAILED` for a failure, None where it stands for none."""
    if not isinstance(reason, str) or reason in _NONE:
        return None
    known = REASONS.get(reason, REASONS.get(normalized(reason).upper()))
    if known is not None:
        return known
    meaning = meaning_of_unknown(normalized(reason))
    return "end_turn" if meaning is None else meaning


def _named(reason: Any) -> str:
    text = str(reason)
    return text[:_MAX_REASON] if text.replace("_", "").isalnum() else "of an unknown form"


def failure_of(reason: Any) -> ProxyError:
    """Return the error for a response that has failed; it is retried while nothing was given out.

    ``finishMessage`` is no part of it, since it may repeat what the model has written.
    """
    return _failure(f"the model ended its response in an error ({_named(reason)})")


def empty_response() -> ProxyError:
    """Return the error for a response without content."""
    return _failure("the model ended its response without having said anything")


def nameless_call() -> ProxyError:
    """Return the error for a response of which a call without a name is all."""
    return _failure("the model called a tool without naming it, and said nothing else")


def _failure(message: str) -> ProxyError:
    return Refused(message, status=500, kind="api_error")


def refusal_details(subject: str, reason: Any, words: Any) -> dict[str, Any]:
    """Return ``stop_details`` of a refusal.

    Args:
        subject: what was refused: the prompt or the response.
        words: the vendor's explanation, if it gives one.
    """
    explanation = f"Gemini blocked the {subject}: {_named(reason)}"
    if isinstance(words, str) and words.strip():
        explanation = f"{explanation}. {words.strip()[:_MAX_WORDS]}"
    return {"type": "refusal", "category": None, "explanation": explanation}
