"""The wire form of auto mode's safety check: what a request asks for, and what the response says.

A request of a session in auto mode has ``safeguards`` with an entry of type ``dangerous_tool_use``; the response has
``safeguard_results`` in the delta of ``message_delta``, or at the top level of a whole message. A request that gets
none makes Claude Code say that the check does not come through.

See docs/spec/hints-and-modes.md#safeguards and #safeguard-results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "RESULTS",
    "SKIPPED",
    "TYPE",
    "UNSUPPORTED",
    "Verdict",
    "available",
    "classifier_context",
    "evaluated",
    "no_verdict",
    "summary_of",
    "unavailable",
]

TYPE = "dangerous_tool_use"
#: The member of the response.
RESULTS = "safeguard_results"
#: Longest explanation of a verdict, in characters.
MAX_EXPLANATION = 500

#: One verdict, as the client reads it.
Verdict = Mapping[str, Any]
SKIPPED: Verdict = {"type": "skipped"}


def classifier_context(payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the context for the classifier, or None where the request asks for no such check."""
    asked = payload.get("safeguards")
    for entry in asked if isinstance(asked, list) else ():
        if isinstance(entry, Mapping) and entry.get("type") == TYPE:
            context = entry.get("classifier_context")
            return context if isinstance(context, Mapping) else {}
    return None


def _results(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"type": TYPE, "status": dict(status)}]


#: The response where nothing checks: Claude Code then says so and asks the user.
UNSUPPORTED = _results({"type": "unsupported"})


def available(verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """Return the results with one verdict for each id of a tool use."""
    return _results({"type": "available", "tool_uses": {name: dict(each) for name, each in verdicts.items()}})


def unavailable(reason: str) -> list[dict[str, Any]]:
    """Return the results of a check that failed as a whole.

    Args:
        reason: ``error``, ``rate_limited``, ``input_too_long`` or ``disabled``.
    """
    return _results({"type": "unavailable", "reason": reason})


def evaluated(*, is_flagged: bool, explanation: str = "") -> Verdict:
    """Return the verdict of a classifier."""
    verdict: dict[str, Any] = {"type": "evaluated", "outcome": "flagged" if is_flagged else "not_flagged"}
    if explanation:
        verdict["explanation"] = " ".join(explanation.split())[:MAX_EXPLANATION]
    return verdict


def no_verdict(reason: str) -> Verdict:
    """Return what stands for the verdict of one call that was not judged.

    Args:
        reason: ``timeout``, ``error``, ``refused``, ``input_too_long``, ``input_unparsed`` or ``truncated``.
    """
    return {"type": "unavailable", "reason": reason}


def summary_of(results: Any) -> str:
    """Return results in a few words for logs and pages, such as ``2 allowed, 1 blocked``; "" for none."""
    entries = results if isinstance(results, list) else []
    entry = next((each for each in entries if isinstance(each, Mapping) and each.get("type") == TYPE), None)
    status = entry.get("status") if entry is not None else None
    if not isinstance(status, Mapping):
        return ""
    if status.get("type") != "available":
        return ": ".join(str(status[name])[:40] for name in ("type", "reason") if name in status)
    counts: dict[str, int] = {}
    tool_uses = status.get("tool_uses")
    for verdict in tool_uses.values() if isinstance(tool_uses, Mapping) else ():
        word = _word_of(verdict)
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def _word_of(verdict: Any) -> str:
    if not isinstance(verdict, Mapping):
        return "unreadable"
    if verdict.get("type") == "evaluated":
        return {"not_flagged": "allowed", "flagged": "blocked"}.get(str(verdict.get("outcome")), "unreadable")
    if verdict.get("type") == "skipped":
        return "not checked"
    return f"without verdict ({str(verdict.get('reason'))[:20]})"
